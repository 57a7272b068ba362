//! What earlier steps of a migration leave in the session, for a step that may run in another one: the
//! settings in their text, and the values that were saved at the end of a step. Pure.

use std::collections::BTreeSet;

use crate::migrations::steps::{Step, Steps};
use crate::sql::settings::{self, ComputedSettings, SetStatement, SettingValues, SettingsInEffect};
use crate::sql::{Kind, Piece, Script, Statement};

/// The values that a finished step has saved.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The step, from 1.
    pub step: usize,
    pub values: &'a SettingValues,
}

/// Which settings the statements of a migration change, and which of them are saved at the end of steps.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    /// The indexes of the statements that compute settings.
    computing: Vec<usize>,
    all: Timeline,
    /// Without those whose values steps save for the next one: all that the file sets, if one of them is
    /// computed. Otherwise all can be read from the text.
    unsaved: Timeline,
}

impl FileSettings {
    /// Reads them, and decides what each step saves at its end.
    pub(super) fn of(script: &Script<'_>, steps: &mut [Step]) -> FileSettings {
        let (saved, computing) = match steps {
            // Nothing comes after its settings.
            [_] => (Vec::new(), Vec::new()),
            _ => saved_settings(script),
        };
        save(script, steps, &saved);
        let end = steps.last().map_or(0, |last| last.statements.start);
        let all = Timeline::new(script, end, &[]);
        let unsaved = match saved.as_slice() {
            [] => Timeline::default(),
            saved => Timeline::new(script, end, saved),
        };
        FileSettings { computing, all, unsaved }
    }
}

/// Decides what each step saves of these.
fn save(script: &Script<'_>, steps: &mut [Step], saved: &[String]) {
    if saved.is_empty() {
        return;
    }
    let mut changes = script.statements().iter().map(|statement| change(&statement));
    let (mut made, mut in_routines) = (BTreeSet::new(), BTreeSet::new());
    let mut end = 0;
    for step in steps {
        let statements = step.statements.end.saturating_sub(end);
        end = end.max(step.statements.end);
        for change in changes.by_ref().take(statements).flatten() {
            match change {
                SettingChange::Computed(computed) if computed.in_routine => {
                    in_routines.extend(computed.names);
                }
                SettingChange::Computed(computed) => made.extend(computed.names),
                // RESET ALL resets no role.
                SettingChange::Set(set) if set.name == "all" => {
                    made.retain(|name| settings::is_role(name));
                }
                SettingChange::Set(set) if set.resets => {
                    made.remove(&set.name);
                }
                SettingChange::Set(set) => {
                    made.insert(set.name);
                }
            }
        }
        // The file may call a routine again after it has reset what that makes.
        let is_saved = |name: &&String| made.contains(*name) || in_routines.contains(*name);
        step.saves = saved.iter().filter(is_saved).cloned().collect();
    }
}

/// The settings that are saved at the end of steps: none if all can be read from the text. With the
/// indexes of the statements that compute some.
fn saved_settings(script: &Script<'_>) -> (Vec<String>, Vec<usize>) {
    let (mut saved, mut computing) = (Vec::new(), Vec::new());
    for (index, statement) in script.statements().iter().enumerate() {
        match change(&statement) {
            Some(SettingChange::Set(set)) => {
                saved.extend(Some(set.name).filter(|name| settings::has_value(name)));
            }
            Some(SettingChange::Computed(computed)) if !computed.names.is_empty() => {
                computing.push(index);
                saved.extend(computed.names);
            }
            Some(SettingChange::Computed(_)) | None => {}
        }
    }
    if computing.is_empty() {
        return (Vec::new(), computing);
    }
    saved.sort();
    saved.dedup();
    (saved, computing)
}

/// What is in effect before any statement of a script, as its text shows it. Kept in such a way that the
/// answer takes about as many steps as settings are in effect, and all of it is about as long as the
/// script: each time when more statements have changed settings than are in effect, those are kept.
#[derive(Debug, Default)]
struct Timeline {
    /// The indexes of the statements that change settings.
    changes: Vec<usize>,
    /// What is in effect after so many of them.
    kept: Vec<(usize, SettingsInEffect<Source>)>,
}

impl Timeline {
    /// Of the statements before `end`, without these settings.
    fn new(script: &Script<'_>, end: usize, without: &[String]) -> Timeline {
        let mut timeline = Timeline::default();
        let (mut in_effect, mut since) = (SettingsInEffect::none(), 0);
        for (index, statement) in script.statements().range(0..end).iter().enumerate() {
            if !add_statement(&mut in_effect, index, &statement, without) {
                continue;
            }
            timeline.changes.push(index);
            since += 1;
            if since > in_effect.len() {
                timeline.kept.push((timeline.changes.len(), in_effect.clone()));
                since = 0;
            }
        }
        timeline
    }

    /// What is in effect before the statement `end`.
    fn at(&self, script: &Script<'_>, end: usize) -> SettingsInEffect<Source> {
        let (mut in_effect, rest) = self.last_kept(end);
        for &index in rest {
            if let Some(statement) = script.statements().get(index) {
                add_statement(&mut in_effect, index, &statement, &[]);
            }
        }
        in_effect
    }

    /// What was kept last before the statement `end`, and the statements since that change it.
    fn last_kept(&self, end: usize) -> (SettingsInEffect<Source>, &[usize]) {
        let count = self.changes.partition_point(|&index| index < end);
        let kept = self.kept.partition_point(|(changes, _)| *changes <= count);
        let kept = kept.checked_sub(1).and_then(|last| self.kept.get(last)).cloned();
        let (done, in_effect) = kept.unwrap_or((0, SettingsInEffect::none()));
        (in_effect, self.changes.get(done..count).unwrap_or_default())
    }

    /// The statements from `start` on and before `end` that change settings.
    fn between(&self, start: usize, end: usize) -> impl Iterator<Item = usize> {
        let first = self.changes.partition_point(|&index| index < start);
        self.changes.iter().skip(first).copied().take_while(move |&index| index < end)
    }
}

/// What a statement does to settings.
enum SettingChange {
    Set(SetStatement),
    Computed(ComputedSettings),
}

fn change(statement: &Statement<'_>) -> Option<SettingChange> {
    match statement.kind {
        Kind::Setting => statement.set_statement().map(SettingChange::Set),
        _ => Some(SettingChange::Computed(statement.computed_settings())),
    }
}

impl Steps {
    /// The settings that a step needs and that earlier ones have made, in this order.
    pub fn replay<'a>(
        &self,
        script: &Script<'a>,
        step: &Step,
        saved: Option<Saved<'_>>,
    ) -> Vec<Piece<'a>> {
        let to_repeat = self.settings_before(script, step, saved).to_repeat();
        to_repeat.filter_map(|source| source.piece(script)).collect()
    }

    /// The settings that are not as the session began with them when a step runs, each with the SQL
    /// that makes it. What is not computed yet is there with the SQL that computes it.
    pub fn changed_settings<'a>(
        &self,
        script: &Script<'a>,
        step: &Step,
        saved: Option<Saved<'_>>,
    ) -> Vec<(Option<String>, Piece<'a>)> {
        let in_effect = self.settings_before(script, step, saved);
        let changed = in_effect.changed().filter_map(|(set, source)| {
            Some((set.map(|set| set.name.clone()), source.piece(script)?))
        });
        let saved_end = self.saved_end(saved);
        let computing = &self.settings.computing;
        let first = computing.partition_point(|&index| index < saved_end);
        let before = computing.iter().skip(first).copied();
        let before = before.take_while(|&index| index < step.statements.start);
        let computed = before.flat_map(|index| {
            let statement = script.statements().get(index);
            let names = statement.map(|statement| statement.computed_settings().names);
            let names = names.unwrap_or_default().into_iter();
            names.filter_map(move |name| Some((Some(name), script.piece(index)?)))
        });
        changed.chain(computed).collect()
    }

    fn settings_before(
        &self,
        script: &Script<'_>,
        step: &Step,
        saved: Option<Saved<'_>>,
    ) -> SettingsInEffect<Source> {
        let FileSettings { all, unsaved, .. } = &self.settings;
        // A step without statements needs no settings.
        let end = if step.statements.is_empty() { 0 } else { step.statements.start };
        let saved_end = self.saved_end(saved).min(end);
        let (Some(saved), Some(last)) = (saved, saved_end.checked_sub(1)) else {
            return all.at(script, end);
        };
        let mut in_effect = unsaved.at(script, saved_end);
        add_saved(&mut in_effect, last, saved.values);
        for index in all.between(saved_end, end) {
            if let Some(statement) = script.statements().get(index) {
                add_statement(&mut in_effect, index, &statement, &[]);
            }
        }
        in_effect
    }

    /// The index of the first statement whose settings are not saved.
    fn saved_end(&self, saved: Option<Saved<'_>>) -> usize {
        let index = saved.and_then(|saved| saved.step.checked_sub(1));
        index.and_then(|index| self.all().get(index)).map_or(0, |step| step.statements.end)
    }
}

/// What makes a setting again.
#[derive(Clone, Debug)]
enum Source {
    /// The statement with this index.
    Statement(usize),
    /// SQL of ours, with a value that was saved after the statement with this index.
    Saved(usize, String),
}

impl Source {
    fn piece<'a>(&self, script: &Script<'a>) -> Option<Piece<'a>> {
        match self {
            Source::Statement(index) => script.piece(*index),
            Source::Saved(last, sql) => {
                Some(Piece { text: sql.clone().into(), ..script.piece(*last)? })
            }
        }
    }
}

/// Returns whether the statement changes any setting but these.
fn add_statement(
    in_effect: &mut SettingsInEffect<Source>,
    index: usize,
    statement: &Statement<'_>,
    without: &[String],
) -> bool {
    match statement.kind {
        Kind::NoTransactionBlock("DISCARD ALL") => *in_effect = SettingsInEffect::none(),
        Kind::Setting => {
            let set = statement.set_statement();
            if set.as_ref().is_some_and(|set| without.contains(&set.name)) {
                return false;
            }
            in_effect.add(set, Source::Statement(index));
        }
        _ => return false,
    }
    true
}

/// Adds the values that the step with this last statement has saved.
fn add_saved(in_effect: &mut SettingsInEffect<Source>, last: usize, values: &SettingValues) {
    let mut values: Vec<_> = values.iter().collect();
    // The role comes last: under it, other settings may be refused.
    values.sort_by_key(|(name, _)| (name.as_str() == "role", settings::is_role(name)));
    for (name, value) in values {
        if let Some(value) = value {
            let (set, sql) = settings::set_value(name, value);
            in_effect.add(Some(set), Source::Saved(last, sql));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "set search_path = a; load 'b'; \
        select set_config('x.y', current_setting('search_path'), false); commit; \
        vacuum; set role c; select 1; commit; select 2; vacuum";

    /// What is sent before the step with this number.
    fn replay(sql: &str, step: usize, saved: Option<(usize, &[(&str, &str)])>) -> Vec<String> {
        let script = Script::parse(sql);
        let steps = Steps::split(&script);
        let values = |(step, values): (usize, &[(&str, &str)])| {
            let value = |(name, value): &(&str, &str)| (name.to_string(), Some(value.to_string()));
            (step, values.iter().map(value).collect::<SettingValues>())
        };
        let saved = saved.map(values);
        let saved = saved.as_ref().map(|(step, values)| Saved { step: *step, values });
        let replay = steps.replay(&script, &steps.all()[step - 1], saved);
        replay.into_iter().map(|piece| piece.text.into_owned()).collect()
    }

    #[test]
    fn only_a_file_that_computes_a_setting_saves_what_it_sets() {
        let saved = |sql| -> BTreeSet<String> {
            let steps = Steps::split(&Script::parse(sql));
            steps.all().iter().flat_map(|step| step.saves.clone()).collect()
        };
        let all = ["role", "search_path", "x.y"].map(str::to_owned);
        assert_eq!(saved(SQL), BTreeSet::from(all));
        assert_eq!(saved("set search_path = a; select 1; vacuum"), BTreeSet::new());
        assert_eq!(saved("select set_config('a', b, false)"), BTreeSet::new(), "one step");
    }

    #[test]
    fn a_step_saves_what_the_file_has_set_by_its_end() {
        let sql = "set a = b; select set_config('x.y', c, false); vacuum; set d = e; select 1; \
                   commit; reset a; select 2; vacuum; reset all; select 3; vacuum";
        let script = Script::parse(sql);
        let steps = Steps::split(&script);
        let saved = |step: usize| steps.all()[step - 1].saves.clone();
        assert_eq!(
            [saved(1), saved(3), saved(4)],
            [
                vec!["a".to_owned(), "x.y".to_owned()],
                vec!["a".to_owned(), "d".to_owned(), "x.y".to_owned()],
                vec!["d".to_owned(), "x.y".to_owned()],
            ]
        );
        assert_eq!(saved(6), [""; 0]);
    }

    #[test]
    fn a_step_saves_what_a_routine_of_the_file_may_have_made_again_since_it_was_reset() {
        let sql = "create function f() returns text language sql as \
                   $$select set_config('x.y', current_setting('a.b'), false)$$; vacuum; \
                   reset all; select f(); commit; select 2";
        let steps = Steps::split(&Script::parse(sql));
        let saves: Vec<_> = steps.all().iter().map(|step| step.saves.clone()).collect();
        assert_eq!(saves[2], ["x.y"]);
    }

    #[test]
    fn the_values_of_the_last_step_that_saved_them_come_before_the_settings_after_it() {
        assert_eq!(replay(SQL, 1, None), [""; 0]);
        let first: &[_] = &[("role", "none"), ("search_path", "a"), ("x.y", "a, it's")];
        let values = [
            "load 'b'",
            "select pg_catalog.set_config('search_path', 'a', false)",
            "select pg_catalog.set_config('x.y', 'a, it''s', false)",
        ];
        assert_eq!(replay(SQL, 2, Some((1, first))), values);
        let mut with_role = values.to_vec();
        with_role.push("set role c");
        assert_eq!(replay(SQL, 4, Some((1, first))), with_role);
        let third: &[_] = &[("role", "c"), ("search_path", "d")];
        let values = [
            "load 'b'",
            "select pg_catalog.set_config('search_path', 'd', false)",
            "select pg_catalog.set_config('role', 'c', false)",
        ];
        assert_eq!(replay(SQL, 4, Some((3, third))), values);
    }

    #[test]
    fn the_settings_of_a_step_are_found_without_going_through_all_statements_before_it() {
        let none = "select set_config('e', (select 1)::text, false); ";
        for (before, of_step) in [
            ("", "set role a; set b = c; select 1; reset role; commit; "),
            ("", "set b = c; select 1; reset all; commit; "),
            ("set b = c; set d = e; ", "select 1; commit; "),
            (none, "set role a; set b = c; select 1; reset role; commit; "),
        ] {
            let sql = format!("{before}{}", of_step.repeat(1000));
            let script = Script::parse(&sql);
            let steps = Steps::split(&script);
            assert_eq!(steps.all().len(), 1000);
            let FileSettings { all, unsaved, .. } = &steps.settings;
            for timeline in [all, unsaved] {
                let kept = timeline.kept.iter().map(|(_, kept)| kept.len()).sum::<usize>();
                assert!(kept <= timeline.changes.len(), "{kept} are kept");
                for step in steps.all() {
                    let (in_effect, rest) = timeline.last_kept(step.statements.start);
                    let visited = in_effect.len() + rest.len();
                    assert!(visited <= 12, "{of_step}: {visited}");
                }
            }
        }
    }

    #[test]
    fn settings_before_discard_all_are_not_repeated() {
        let sql = "set a = b; create table c (); discard all; set d = e; create table f ()";
        assert_eq!(replay(sql, 3, None), [""; 0], "it is part of the step");
        let sql = "set a = b; create table c (); discard all; set d = e; vacuum";
        assert_eq!(replay(sql, 3, None), ["set d = e"]);
    }

    #[test]
    fn a_setting_that_is_still_to_be_computed_counts_as_changed() {
        let changed = |sql: &str| -> Vec<_> {
            let script = Script::parse(sql);
            let steps = Steps::split(&script);
            let alone = steps.all().iter().find(|step| step.outside_transaction.is_some());
            let changed = steps.changed_settings(&script, alone.unwrap(), None);
            changed.into_iter().filter_map(|(name, _)| name).collect()
        };
        assert_eq!(changed("set search_path = a; set role b; reset role; vacuum"), ["search_path"]);
        assert_eq!(changed("set search_path = a; reset search_path; vacuum"), [""; 0]);
        let computed = "do $$ begin perform set_config('search_path', f(), false); end $$; vacuum";
        assert_eq!(changed(computed), ["search_path"]);
    }
}
