//! What holds for every set and every history. They are drawn from small pools, so that time
//! stamps, names and contents collide all the time.

use std::mem::discriminant;

use super::*;
use crate::migrations::layout;

/// Marsaglia's xorshift: the same cases in every run, and a failing one is found by its number.
struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, pool: &[T]) -> T {
        pool[self.below(pool.len())]
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// Times of which some share a second, and one is far in the future.
const TIMES: [i64; 6] = [1000, 1000, 1400, 2000, 3000, 9_000_000_000_000];
/// Contents of which some differ in their line ends only.
const CONTENTS: [&str; 7] = ["x", "y", "z", "l\n", "l\r\n", "m\nn\n", "m\r\nn\n"];
const NAMES: [&str; 6] = ["0_a", "1_a", "2_b", "3_c", "19700101000001_a", "19700101000002_b"];

thread_local! {
    /// A migration for each content, with its hashes: those take time.
    static MADE: Vec<Migration> = CONTENTS
        .map(|content| {
            let migration = Migration::new("", "", None, content.as_bytes());
            migration.matches_hash("");
            migration
        })
        .to_vec();
}

fn some_content(random: &mut Random) -> Migration {
    MADE.with(|made| made[random.below(made.len())].clone())
}

fn some_set(random: &mut Random) -> MigrationSet {
    let layout = random.of(&[Layout::Drizzle0, Layout::Drizzle1, Layout::Plain]);
    let mut migrations: Vec<Migration> = Vec::new();
    for _ in 0..random.below(5) {
        let name = random.of(&NAMES);
        let when = match layout {
            Layout::Drizzle0 => Some(random.of(&TIMES)),
            Layout::Drizzle1 => Some(random.of(&TIMES) / 1000 * 1000),
            Layout::Plain => None,
        };
        if migrations.iter().all(|it| it.name != name) {
            let mut migration = some_content(random);
            (migration.name, migration.when) = (name.to_owned(), when);
            migrations.push(migration);
        }
    }
    MigrationSet::new(layout, migrations).unwrap()
}

fn some_history(random: &mut Random, set: &MigrationSet) -> History {
    let state = random.of(&[TableVersion::V0, TableVersion::V1]);
    let rows = (0..random.below(6)).map(|at| {
        let carried = set.get(random.below(4)).filter(|_| !random.one_in(4));
        let name = carried.map(|it| table::row_name(it, set.layout()));
        let name = name.unwrap_or_else(|| random.of(&NAMES).to_owned());
        let hash = match carried.filter(|_| !random.one_in(3)) {
            Some(migration) => migration.hash.clone(),
            None => some_content(random).hash,
        };
        let created_at = carried.and_then(|it| it.when).filter(|_| !random.one_in(3));
        Row {
            id: i64::try_from(at).unwrap() + 1,
            hash: hash.to_string(),
            created_at: created_at
                .or_else(|| Some(random.of(&TIMES)).filter(|_| !random.one_in(4))),
            name: Some(name).filter(|_| state == TableVersion::V1 && !random.one_in(4)),
            xmin: 0,
        }
    });
    let rows: Vec<Row> = rows.collect();
    History { state, rows, in_recovery: false }
}

/// Says, when a check fails, of what.
struct Case<'a>(u64, &'a MigrationSet, &'a History);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Case(seed, set, history) = self;
            eprintln!("seed {seed}, {}, {:?}", set.layout(), history.state);
            for Migration { name, when, hash, .. } in set.migrations() {
                eprintln!("    {name} {when:?} {hash:.8}");
            }
            for row in &history.rows {
                eprintln!("  row {:?} {:?} {:.8}", row.name, row.created_at, row.hash);
            }
        }
    }
}

/// Checks twenty thousand sets with a history each.
fn for_all(check: impl Fn(&mut Random, &MigrationSet, &History)) {
    for seed in 1..=20_000 {
        let mut random = Random::seeded(seed);
        let set = some_set(&mut random);
        let history = some_history(&mut random, &set);
        let _case = Case(seed, &set, &history);
        check(&mut random, &set, &history);
    }
}

const LENIENT: Policy = Policy { apply_older: true, strict: false };

fn applied_all(set: &MigrationSet, history: &History, plan: &Plan) -> History {
    let records: Vec<_> = plan.pending.iter().map(|it| (it.place, None)).collect();
    recorded(set, history, &plan.matches, &records)
}

#[test]
fn every_row_and_every_migration_is_accounted_for_once() {
    for_all(|_, set, history| {
        let matches = match_rows(set, &history.rows);
        assert_eq!(matches.migrations.len(), set.migrations().len());
        assert_eq!(matches.rows.len(), history.rows.len());
        for (place, status) in matches.migrations.iter().enumerate() {
            let records = matches.rows(RowStatus::Of(place));
            match status {
                MigrationStatus::Applied(row) | MigrationStatus::Edited(row) => {
                    assert_eq!(records, [*row])
                }
                MigrationStatus::Ambiguous | MigrationStatus::Pending => {
                    assert!(records.is_empty());
                    assert!(matches.rows(RowStatus::Duplicate(place)).is_empty());
                }
            }
        }
        let is_open = |status| status == MigrationStatus::Ambiguous;
        assert_eq!(
            matches.migrations(is_open).is_empty(),
            matches.rows(RowStatus::Ambiguous).is_empty()
        );
    });
}

#[test]
fn applied_and_edited_say_whether_the_hash_is_the_same() {
    for_all(|_, set, history| {
        for (place, status) in match_rows(set, &history.rows).migrations.into_iter().enumerate() {
            let matches_hash =
                |row: usize| set.get(place).unwrap().matches_hash(&history.rows[row].hash);
            match status {
                MigrationStatus::Applied(row) => assert!(matches_hash(row)),
                MigrationStatus::Edited(row) => assert!(!matches_hash(row)),
                MigrationStatus::Ambiguous | MigrationStatus::Pending => {}
            }
        }
    });
}

#[test]
fn what_has_a_row_with_its_identity_and_hash_is_not_pending() {
    for_all(|_, set, history| {
        let matches = match_rows(set, &history.rows);
        let identities = Identities::of(set);
        for (row, status) in history.rows.iter().zip(&matches.rows) {
            let same = identities.matching(row).iter();
            let mut same =
                same.filter(|&&of| set.get(of).unwrap().matches_hash(&row.hash)).peekable();
            // A row is the record of one of them, unless each of them has one.
            if same.peek().is_some() {
                let all = same.all(|&of| matches.migrations[of] != MigrationStatus::Pending);
                assert!(all || matches!(status, RowStatus::Of(_)));
            }
        }
    });
}

#[test]
fn a_plan_lists_what_is_pending_in_order_and_only_that() {
    for_all(|_, set, history| {
        for apply_older in [false, true] {
            let Ok(plan) = plan(set, history, Policy { apply_older, strict: false }) else {
                continue;
            };
            let places: Vec<_> = plan.pending.iter().map(|it| it.place).collect();
            assert!(places.is_sorted());
            let is_pending = |status| status == MigrationStatus::Pending;
            assert_eq!(places, plan.matches.migrations(is_pending));
            assert_eq!(plan.applied + places.len(), set.migrations().len());
        }
    });
}

#[test]
fn a_plan_that_was_carried_out_leaves_nothing_to_do() {
    for_all(|_, set, history| {
        let Ok(first) = plan(set, history, LENIENT) else { return };
        let after = applied_all(set, history, &first);
        let second = plan(set, &after, Policy::default()).unwrap();
        assert_eq!(second.pending, []);
        assert_eq!(second.unknown.len(), first.unknown.len());
    });
}

#[test]
fn a_plan_that_was_carried_out_in_part_goes_on_with_the_rest() {
    for_all(|random, set, history| {
        let Ok(first) = plan(set, history, LENIENT) else { return };
        let done = random.below(first.pending.len() + 1);
        let records: Vec<_> = first.pending[..done].iter().map(|it| (it.place, None)).collect();
        let after = recorded(set, history, &first.matches, &records);
        let second = plan(set, &after, LENIENT).unwrap();
        assert_eq!(second.pending.len(), first.pending.len() - done);
    });
}

#[test]
fn the_rules_only_stop_and_never_choose() {
    for_all(|_, set, history| {
        let lenient = plan(set, history, LENIENT);
        for strict in [false, true] {
            for apply_older in [false, true] {
                let plan = plan(set, history, Policy { apply_older, strict });
                assert!(plan.is_err() || plan == lenient);
            }
        }
    });
}

#[test]
fn after_baseline_everything_chosen_is_applied() {
    for_all(|random, set, history| {
        let through = random.below(set.migrations().len() + 1);
        let Ok((matches, places)) = baseline(set, history, Some(through)) else { return };
        let records: Vec<_> = places.iter().map(|&place| (place, None)).collect();
        let after = recorded(set, history, &matches, &records);
        let (matches, again) = baseline(set, &after, Some(through)).unwrap();
        assert!(again.is_empty());
        assert_eq!(matches.edited().len(), match_rows(set, &history.rows).edited().len());
    });
}

#[test]
fn after_accept_nothing_named_is_edited_and_nothing_else_has_changed() {
    for_all(|random, set, history| {
        // Of migrations that cannot be told apart, the first is the one that is recorded.
        let all: Vec<usize> = (0..set.migrations().len()).collect();
        let is_twin =
            |a: &Migration, b: &Migration| a.when == b.when && a.matches_hash(b.hash.as_str());
        let mut pairs = all.iter().flat_map(|&b| (0..b).map(move |a| (a, b)));
        if pairs.any(|(a, b)| is_twin(set.get(a).unwrap(), set.get(b).unwrap())) {
            return;
        }
        let named: Vec<usize> = all.into_iter().filter(|_| random.one_in(2)).collect();
        let Ok(accepted) = accept(set, history, Some(&named)) else { return };
        let after = recorded(set, history, &accepted.matches, &accepted.records);
        let matches = match_rows(set, &after.rows);
        for (place, status) in matches.migrations.iter().enumerate() {
            let is_recorded = accepted.records.iter().any(|(recorded, _)| *recorded == place);
            let before = accepted.matches.migrations[place];
            let expected = if is_recorded { MigrationStatus::Applied(0) } else { before };
            assert_eq!(discriminant(status), discriminant(&expected));
        }
        if accepted.refused.is_empty() {
            assert_eq!(accept(set, &after, Some(&named)).unwrap().records, []);
        }
    });
}

#[test]
fn the_order_of_rows_that_have_an_identity_does_not_matter_for_what_runs() {
    for_all(|random, set, history| {
        let identities = Identities::of(set);
        if history.rows.iter().any(|row| identities.matching(row).is_empty()) {
            return;
        }
        let mut shuffled = history.clone();
        for at in (1..shuffled.rows.len()).rev() {
            shuffled.rows.swap(at, random.below(at + 1));
        }
        let decide = |history| match plan(set, history, Policy::default()) {
            Ok(plan) => format!("{:?}", plan.pending),
            Err(disagreement) => shown(disagreement, set),
        };
        assert_eq!(decide(&shuffled), decide(history));
    });
}

#[test]
fn a_table_is_upgraded_only_if_every_row_gets_a_name() {
    for_all(|_, set, history| {
        let Ok(plan) = plan(set, history, LENIENT) else { return };
        let upgrades = history.state == TableVersion::V0 && table::needs_name(set.layout());
        if upgrades && !plan.pending.is_empty() {
            assert!(plan.matches.names(set).iter().all(Option::is_some));
        }
    });
}

/// How a runner other than ours marks its rows.
#[derive(Clone, Copy)]
enum Marks {
    Drizzle,
    TimeOfApplying,
    Seconds,
    Count,
    Nothing,
}

#[test]
fn what_a_runner_has_run_is_never_run_again_however_it_marks_its_rows() {
    let made = |edit: &str| {
        let contents = (0..6).map(|place| format!("{place}{edit}").into_bytes());
        let made: Vec<_> = contents.map(|content| Migration::new("", "", None, content)).collect();
        made.iter().for_each(|migration| assert!(!migration.matches_hash("")));
        made
    };
    let (as_it_ran, edited) = (made(""), made(", edited"));
    for seed in 1..=20_000 {
        let mut random = Random::seeded(seed);
        let marks = random.of(&[
            Marks::Drizzle,
            Marks::TimeOfApplying,
            Marks::Seconds,
            Marks::Count,
            Marks::Nothing,
        ]);
        let (mut migrations, mut rows, mut ran) = (Vec::new(), Vec::new(), Vec::new());
        let mut now = 1_700_000_000_000;
        for (count, place) in (0_i64..6).zip(0..) {
            now += random.of(&[1000, 1500, 2000]);
            let when = now;
            let source = if random.one_in(4) { &edited } else { &as_it_ran };
            let mut migration = source[place].clone();
            (migration.name, migration.when) = (format!("{place}_name"), Some(when));
            migrations.push(migration);
            // It was applied at its turn or, being merged late, not at all.
            if random.one_in(4) {
                continue;
            }
            now += random.of(&[0, 700]);
            ran.push(place);
            rows.push(Row {
                id: count,
                hash: as_it_ran[place].hash.to_string(),
                created_at: match marks {
                    Marks::Drizzle => Some(when),
                    Marks::TimeOfApplying => Some(now),
                    Marks::Seconds => Some(now / 1000),
                    Marks::Count => Some(count),
                    Marks::Nothing => None,
                },
                name: None,
                xmin: 0,
            });
        }
        let set = MigrationSet::new(Layout::Drizzle0, migrations).unwrap();
        let history = History { state: TableVersion::V0, rows, in_recovery: false };
        let _case = Case(seed, &set, &history);
        if let Ok(plan) = plan(&set, &history, Policy::default()) {
            assert!(!plan.pending.iter().any(|it| ran.contains(&it.place)), "{:?}", plan.pending);
        }
    }
}

/// What ran, as drizzle-orm of either generation or we record it, and the files as they are now:
/// edited, renamed, with other line ends.
fn some_past(random: &mut Random, ran: &[Migration; 6], now: &[Migration; 6]) -> Past {
    let layout = random.of(&[Layout::Drizzle0, Layout::Drizzle1, Layout::Plain]);
    let state = match layout {
        Layout::Plain => TableVersion::V1,
        _ => random.of(&[TableVersion::V0, TableVersion::V1]),
    };
    let (mut migrations, mut rows, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    let mut time = 1_700_000_000_000;
    for place in 0..6 {
        time += random.of(&[0, 300, 1000, 1700]);
        let when = match layout {
            Layout::Drizzle0 => Some(time),
            Layout::Drizzle1 => Some(time / 1000 * 1000),
            Layout::Plain => None,
        };
        let name = match when {
            Some(when) if layout == Layout::Drizzle1 => {
                format!("{}_{place}", layout::folder_prefix(when))
            }
            _ => format!("{place}_name{place}"),
        };
        let mut before = ran[place].clone();
        (before.name, before.when) = (name, when);
        let mut after = before.clone();
        let is_renamed = random.one_in(5);
        // What was renamed and edited is known by its time, and a plain file has none.
        if random.one_in(4) && !(is_renamed && layout == Layout::Plain) {
            after = now[place].clone();
        } else if random.one_in(4) {
            let content = String::from_utf8(ran[place].content().to_vec()).unwrap();
            after = Migration::new("", "", None, content.replace('\n', "\r\n").into_bytes());
        }
        (after.name, after.when) = (before.name.clone(), when);
        if is_renamed {
            after.name.push('r');
        }
        migrations.push(after);
        if random.one_in(4) {
            continue;
        }
        recorded.push(place);
        let name = table::row_name(&before, layout);
        let name = Some(name).filter(|_| state == TableVersion::V1 && !random.one_in(5));
        // Drizzle 1.x keeps whole seconds; what it upgraded, and what has no name, is of 0.x.
        let is_whole = layout != Layout::Plain && name.is_some() && random.one_in(2);
        let created_at = if is_whole { time / 1000 * 1000 } else { time };
        for _ in 0..random.of(&[1, 1, 1, 2]) {
            rows.push(Row {
                id: 0,
                hash: before.hash.to_string(),
                created_at: Some(created_at).filter(|_| !random.one_in(6)),
                name: name.clone(),
                xmin: 0,
            });
        }
    }
    for (row, id) in rows.iter_mut().zip(1..) {
        row.id = id;
    }
    let set = MigrationSet::new(layout, migrations).unwrap();
    Past { set, history: History { state, rows, in_recovery: false }, recorded }
}

struct Past {
    set: MigrationSet,
    history: History,
    /// The places of what ran.
    recorded: Vec<usize>,
}

#[test]
fn what_has_run_is_never_run_again_whatever_became_of_its_file() {
    let made = |edit: &str| {
        [0, 1, 2, 3, 4, 5].map(|place| {
            let content = format!("{place}\n{edit}\n");
            Migration::new("", "", None, content.into_bytes())
        })
    };
    let (ran, edited) = (made(""), made("edited"));
    let mut carried_out = 0;
    for seed in 1..=20_000 {
        let mut random = Random::seeded(seed);
        let Past { set, history, recorded } = some_past(&mut random, &ran, &edited);
        let _case = Case(seed, &set, &history);
        if let Ok(plan) = plan(&set, &history, Policy::default()) {
            carried_out += 1;
            assert!(!plan.pending.iter().any(|it| recorded.contains(&it.place)));
        }
    }
    assert!(carried_out > 2_000, "{carried_out}");
}
