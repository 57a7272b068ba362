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

/// Decides what each step saves at its end. Returns all of it, which is nothing if it can be read from
/// the text.
pub(super) fn save(script: &Script<'_>, steps: &mut [Step]) -> Vec<String> {
    let saved = saved_settings(script);
    if saved.is_empty() {
        return saved;
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
    saved
}

/// The settings that are saved at the end of steps: none if all can be read from the text.
fn saved_settings(script: &Script<'_>) -> Vec<String> {
    let (mut saved, mut has_computed) = (Vec::new(), false);
    for change in script.statements().iter().filter_map(|statement| change(&statement)) {
        match change {
            SettingChange::Set(set) => {
                saved.extend(Some(set.name).filter(|name| settings::has_value(name)));
            }
            SettingChange::Computed(computed) => {
                has_computed |= !computed.names.is_empty();
                saved.extend(computed.names);
            }
        }
    }
    if !has_computed {
        return Vec::new();
    }
    saved.sort();
    saved.dedup();
    saved
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
        let before = script.statements().iter().enumerate().take(step.statements.start);
        let unsaved = before.skip(self.saved_end(saved));
        let computing = unsaved.filter(|(_, statement)| statement.kind != Kind::Setting);
        let computed = computing.flat_map(|(index, statement)| {
            let names = statement.computed_settings().names.into_iter();
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
        let mut in_effect = SettingsInEffect::none();
        // A step without statements needs no settings.
        let end = if step.statements.is_empty() { 0 } else { step.statements.start };
        let saved_end = self.saved_end(saved).min(end);
        for index in 0..saved_end {
            add_statement(&mut in_effect, script, index, &self.saved_settings);
        }
        if let (Some(saved), Some(last)) = (saved, saved_end.checked_sub(1)) {
            add_saved(&mut in_effect, last, saved.values);
        }
        for index in saved_end..end {
            add_statement(&mut in_effect, script, index, &[]);
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

fn add_statement(
    in_effect: &mut SettingsInEffect<Source>,
    script: &Script<'_>,
    index: usize,
    saved: &[String],
) {
    let Some(statement) = script.statements().get(index) else { return };
    match statement.kind {
        Kind::NoTransactionBlock("DISCARD ALL") => *in_effect = SettingsInEffect::none(),
        Kind::Setting => {
            let set = statement.set_statement();
            if !set.as_ref().is_some_and(|set| saved.contains(&set.name)) {
                in_effect.add(set, Source::Statement(index));
            }
        }
        _ => {}
    }
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
        let saved = |sql| Steps::split(&Script::parse(sql)).saved_settings;
        assert_eq!(saved(SQL), ["role", "search_path", "x.y"]);
        assert_eq!(saved("set search_path = a; select 1; vacuum"), [""; 0]);
        assert_eq!(saved("select set_config('a', b, false)"), [""; 0], "one step");
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
