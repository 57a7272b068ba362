//! Properties of every set and every history. They are drawn from small pools, so that time stamps,
//! names and contents often collide.

use std::mem::discriminant;

use super::*;
use crate::migrations::folder_time::folder_prefix;

/// Marsaglia's xorshift: every run has the same cases, and the seed finds one that failed.
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

/// Some share a second, and one is far in the future.
const TIMES: [i64; 6] = [1000, 1000, 1400, 2000, 3000, 9_000_000_000_000];
/// Some differ only in their line ends.
const CONTENTS: [&str; 7] = ["x", "y", "z", "l\n", "l\r\n", "m\nn\n", "m\r\nn\n"];
const NAMES: [&str; 6] = ["0_a", "1_a", "2_b", "3_c", "19700101000001_a", "19700101000002_b"];

thread_local! {
    /// A migration for each content; hashing them once saves time.
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
        if migrations.iter().all(|other| other.name != name) {
            let mut migration = some_content(random);
            (migration.name, migration.when) = (name.to_owned(), when);
            migrations.push(migration);
        }
    }
    MigrationSet::new(layout, migrations).unwrap()
}

fn some_history(random: &mut Random, set: &MigrationSet) -> History {
    let table_version = random.of(&[TableVersion::V0, TableVersion::V1]);
    let rows = (0..random.below(6)).map(|at| {
        let carried = set.get(random.below(4)).filter(|_| !random.one_in(4));
        let name = carried.map(|migration| table::row_name(migration, set.layout()));
        let name = name.unwrap_or_else(|| random.of(&NAMES).to_owned());
        let hash = match carried.filter(|_| !random.one_in(3)) {
            Some(migration) => migration.hash.clone(),
            None => some_content(random).hash,
        };
        let created_at = carried.and_then(|migration| migration.when).filter(|_| !random.one_in(3));
        Row {
            id: i64::try_from(at).unwrap() + 1,
            hash: hash.to_string(),
            created_at: created_at
                .or_else(|| Some(random.of(&TIMES)).filter(|_| !random.one_in(4))),
            name: Some(name).filter(|_| table_version == TableVersion::V1 && !random.one_in(4)),
            xmin: None,
        }
    });
    let rows: Vec<Row> = rows.collect();
    History { table_version, rows, in_recovery: false, has_objects: true }
}

/// Prints the case when a check fails.
struct Case<'a>(u64, &'a MigrationSet, &'a History);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Case(seed, set, history) = self;
            eprintln!("seed {seed}, {}, {:?}", set.layout(), history.table_version);
            for Migration { name, when, hash, .. } in set.migrations() {
                eprintln!("    {name} {when:?} {hash:.8}");
            }
            for row in &history.rows {
                eprintln!("  row {:?} {:?} {:.8}", row.name, row.created_at, row.hash);
            }
        }
    }
}

/// Checks twenty thousand sets, each with a history.
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

/// The history once so many of the plan's migrations have run.
fn applied(set: &MigrationSet, history: &History, plan: &Plan, count: usize) -> History {
    let pending = plan.pending.iter().take(count);
    let new_row = |pending: &Pending| NewRow::new(set.get(pending.index).unwrap(), set.layout());
    let new_rows: Vec<_> = pending.map(new_row).collect();
    written(set, history, &plan.matches, &new_rows)
}

#[test]
fn every_row_and_every_migration_has_one_status() {
    for_all(|_, set, history| {
        let matches = match_rows(set, &history.rows);
        assert_eq!(matches.migrations.len(), set.migrations().len());
        assert_eq!(matches.rows.len(), history.rows.len());
        for (index, status) in matches.migrations.iter().enumerate() {
            let records = matches.rows_with(RowStatus::Matched(index));
            match status {
                MigrationStatus::Applied(row) | MigrationStatus::Edited(row) => {
                    assert_eq!(records, [*row])
                }
                MigrationStatus::Ambiguous | MigrationStatus::Pending => {
                    assert!(records.is_empty());
                    assert!(matches.rows_with(RowStatus::Duplicate(index)).is_empty());
                }
            }
        }
        let is_open = |status| status == MigrationStatus::Ambiguous;
        assert_eq!(
            matches.migrations_where(is_open).is_empty(),
            matches.rows_with(RowStatus::Ambiguous).is_empty()
        );
    });
}

#[test]
fn applied_migrations_have_the_same_hash_and_edited_ones_another() {
    for_all(|_, set, history| {
        for (index, status) in match_rows(set, &history.rows).migrations.into_iter().enumerate() {
            let matches_hash =
                |row: usize| set.get(index).unwrap().matches_hash(&history.rows[row].hash);
            match status {
                MigrationStatus::Applied(row) => assert!(matches_hash(row)),
                MigrationStatus::Edited(row) => assert!(!matches_hash(row)),
                MigrationStatus::Ambiguous | MigrationStatus::Pending => {}
            }
        }
    });
}

#[test]
fn a_migration_with_a_row_of_its_identity_and_hash_is_not_pending() {
    for_all(|_, set, history| {
        let matches = match_rows(set, &history.rows);
        let identities = Identities::new(set);
        for (row, status) in history.rows.iter().zip(&matches.rows) {
            let same = identities.candidates(row).iter();
            let mut same =
                same.filter(|&&of| set.get(of).unwrap().matches_hash(&row.hash)).peekable();
            // The row records one of them, unless each of them has a row.
            if same.peek().is_some() {
                let all = same.all(|&of| matches.migrations[of] != MigrationStatus::Pending);
                assert!(all || matches!(status, RowStatus::Matched(_)));
            }
        }
    });
}

#[test]
fn a_plan_lists_the_pending_migrations_in_order() {
    for_all(|_, set, history| {
        for apply_older in [false, true] {
            let Ok(plan) = plan_up(set, history, Policy { apply_older, strict: false }) else {
                continue;
            };
            let pending: Vec<_> = plan.pending.iter().map(|pending| pending.index).collect();
            assert!(pending.is_sorted());
            let is_pending = |status| status == MigrationStatus::Pending;
            assert_eq!(pending, plan.matches.migrations_where(is_pending));
            assert_eq!(plan.applied + pending.len(), set.migrations().len());
        }
    });
}

#[test]
fn after_a_plan_nothing_is_pending() {
    for_all(|_, set, history| {
        let Ok(first) = plan_up(set, history, LENIENT) else { return };
        let after = applied(set, history, &first, first.pending.len());
        let second = plan_up(set, &after, Policy::default()).unwrap();
        assert_eq!(second.pending, []);
        assert_eq!(second.unknown.len(), first.unknown.len());
    });
}

#[test]
fn after_a_part_of_a_plan_the_rest_is_pending() {
    for_all(|random, set, history| {
        let Ok(first) = plan_up(set, history, LENIENT) else { return };
        let done = random.below(first.pending.len() + 1);
        let after = applied(set, history, &first, done);
        let second = plan_up(set, &after, LENIENT).unwrap();
        assert_eq!(second.pending.len(), first.pending.len() - done);
    });
}

#[test]
fn the_policy_stops_a_run_but_never_changes_it() {
    for_all(|_, set, history| {
        let lenient = plan_up(set, history, LENIENT);
        for strict in [false, true] {
            for apply_older in [false, true] {
                let plan = plan_up(set, history, Policy { apply_older, strict });
                assert!(plan.is_err() || plan == lenient);
            }
        }
    });
}

#[test]
fn after_baseline_nothing_is_left_to_record() {
    for_all(|random, set, history| {
        let through = random.below(set.migrations().len() + 1);
        let Ok(first) = plan_baseline(set, history, Some(through)) else { return };
        let after = written(set, history, &first.matches, &first.rows);
        let second = plan_baseline(set, &after, Some(through)).unwrap();
        assert!(second.rows.is_empty());
        assert_eq!(second.matches.edited().len(), match_rows(set, &history.rows).edited().len());
    });
}

#[test]
fn accept_changes_the_status_of_what_it_records_only() {
    for_all(|random, set, history| {
        // Of migrations that cannot be told apart, accept records the first.
        let all: Vec<usize> = (0..set.migrations().len()).collect();
        let is_twin =
            |a: &Migration, b: &Migration| a.when == b.when && a.matches_hash(b.hash.as_str());
        let mut pairs = all.iter().flat_map(|&b| (0..b).map(move |a| (a, b)));
        if pairs.any(|(a, b)| is_twin(set.get(a).unwrap(), set.get(b).unwrap())) {
            return;
        }
        let chosen: Vec<usize> = all.into_iter().filter(|_| random.one_in(2)).collect();
        let Ok(first) = plan_accept(set, history, Some(&chosen)) else { return };
        let after = written(set, history, &first.matches, &first.rows);
        let matches = match_rows(set, &after.rows);
        for (index, status) in matches.migrations.iter().enumerate() {
            let is_recorded = first.migrations.contains(&set.get(index).unwrap().name);
            let before = first.matches.migrations[index];
            let expected = if is_recorded { MigrationStatus::Applied(0) } else { before };
            assert_eq!(discriminant(status), discriminant(&expected));
        }
        if first.not_applied.is_empty() {
            assert_eq!(plan_accept(set, &after, Some(&chosen)).unwrap().rows, []);
        }
    });
}

#[test]
fn the_order_of_rows_with_an_identity_does_not_change_the_plan() {
    for_all(|random, set, history| {
        let identities = Identities::new(set);
        if history.rows.iter().any(|row| identities.candidates(row).is_empty()) {
            return;
        }
        let mut shuffled = history.clone();
        for at in (1..shuffled.rows.len()).rev() {
            shuffled.rows.swap(at, random.below(at + 1));
        }
        let decide = |history| match plan_up(set, history, Policy::default()) {
            Ok(plan) => format!("{:?}", plan.pending),
            Err(mismatch) => shown(mismatch),
        };
        assert_eq!(decide(&shuffled), decide(history));
    });
}

#[test]
fn a_table_is_upgraded_only_if_every_row_gets_a_name() {
    for_all(|_, set, history| {
        let Ok(plan) = plan_up(set, history, LENIENT) else { return };
        let upgrades = history.table_version == TableVersion::V0 && table::needs_name(set.layout());
        if upgrades && !plan.pending.is_empty() {
            assert!(plan.matches.row_names(set).iter().all(Option::is_some));
        }
    });
}

/// What another runner writes as `created_at`.
#[derive(Clone, Copy)]
enum CreatedAt {
    Drizzle,
    TimeOfApplying,
    Seconds,
    Count,
    Nothing,
}

#[test]
fn migrations_of_another_runner_never_run_again_whatever_its_time_stamps() {
    let made = |edit: &str| {
        let contents = (0..6).map(|index| format!("{index}{edit}").into_bytes());
        let made: Vec<_> = contents.map(|content| Migration::new("", "", None, content)).collect();
        made.iter().for_each(|migration| assert!(!migration.matches_hash("")));
        made
    };
    let (as_it_ran, edited) = (made(""), made(", edited"));
    for seed in 1..=20_000 {
        let mut random = Random::seeded(seed);
        let created_at = random.of(&[
            CreatedAt::Drizzle,
            CreatedAt::TimeOfApplying,
            CreatedAt::Seconds,
            CreatedAt::Count,
            CreatedAt::Nothing,
        ]);
        let (mut migrations, mut rows, mut ran) = (Vec::new(), Vec::new(), Vec::new());
        let mut now = 1_700_000_000_000;
        for (count, index) in (0_i64..6).zip(0..) {
            now += random.of(&[1000, 1500, 2000]);
            let when = now;
            let source = if random.one_in(4) { &edited } else { &as_it_ran };
            let mut migration = source[index].clone();
            (migration.name, migration.when) = (format!("{index}_name"), Some(when));
            migrations.push(migration);
            // Some are merged late and have not been applied.
            if random.one_in(4) {
                continue;
            }
            now += random.of(&[0, 700]);
            ran.push(index);
            rows.push(Row {
                id: count,
                hash: as_it_ran[index].hash.to_string(),
                created_at: match created_at {
                    CreatedAt::Drizzle => Some(when),
                    CreatedAt::TimeOfApplying => Some(now),
                    CreatedAt::Seconds => Some(now / 1000),
                    CreatedAt::Count => Some(count),
                    CreatedAt::Nothing => None,
                },
                name: None,
                xmin: None,
            });
        }
        let set = MigrationSet::new(Layout::Drizzle0, migrations).unwrap();
        let history = History {
            table_version: TableVersion::V0,
            rows,
            in_recovery: false,
            has_objects: true,
        };
        let _case = Case(seed, &set, &history);
        if let Ok(plan) = plan_up(&set, &history, Policy::default()) {
            assert!(
                !plan.pending.iter().any(|pending| ran.contains(&pending.index)),
                "{:?}",
                plan.pending
            );
        }
    }
}

/// A history as drizzle-orm 0.x, 1.x or this program writes it, and the files as they are now: edited,
/// renamed, with other line ends.
fn some_past(random: &mut Random, ran: &[Migration; 6], now: &[Migration; 6]) -> Past {
    let layout = random.of(&[Layout::Drizzle0, Layout::Drizzle1, Layout::Plain]);
    let table_version = match layout {
        Layout::Plain => TableVersion::V1,
        _ => random.of(&[TableVersion::V0, TableVersion::V1]),
    };
    let (mut migrations, mut rows, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    let mut time = 1_700_000_000_000;
    for index in 0..6 {
        time += random.of(&[0, 300, 1000, 1700]);
        let when = match layout {
            Layout::Drizzle0 => Some(time),
            Layout::Drizzle1 => Some(time / 1000 * 1000),
            Layout::Plain => None,
        };
        let name = match when {
            Some(when) if layout == Layout::Drizzle1 => {
                format!("{}_{index}", folder_prefix(when))
            }
            _ => format!("{index}_name{index}"),
        };
        let mut before = ran[index].clone();
        (before.name, before.when) = (name, when);
        let mut after = before.clone();
        let is_renamed = random.one_in(5);
        // A file that was renamed and edited is matched by its time, which a plain file lacks.
        if random.one_in(4) && !(is_renamed && layout == Layout::Plain) {
            after = now[index].clone();
        } else if random.one_in(4) {
            let content = String::from_utf8(ran[index].content().unwrap().to_vec()).unwrap();
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
        recorded.push(index);
        let name = table::row_name(&before, layout);
        let name = Some(name).filter(|_| table_version == TableVersion::V1 && !random.one_in(5));
        // Drizzle 1.x writes whole seconds; rows that it upgraded, or without a name, are of 0.x.
        let is_whole = layout != Layout::Plain && name.is_some() && random.one_in(2);
        let created_at = if is_whole { time / 1000 * 1000 } else { time };
        for _ in 0..random.of(&[1, 1, 1, 2]) {
            rows.push(Row {
                id: 0,
                hash: before.hash.to_string(),
                created_at: Some(created_at).filter(|_| !random.one_in(6)),
                name: name.clone(),
                xmin: None,
            });
        }
    }
    for (row, id) in rows.iter_mut().zip(1..) {
        row.id = id;
    }
    let set = MigrationSet::new(layout, migrations).unwrap();
    Past {
        set,
        history: History { table_version, rows, in_recovery: false, has_objects: true },
        recorded,
    }
}

struct Past {
    set: MigrationSet,
    history: History,
    /// The indices of the migrations that ran.
    recorded: Vec<usize>,
}

#[test]
fn applied_migrations_never_run_again_whatever_happened_to_their_files() {
    let made = |edit: &str| {
        [0, 1, 2, 3, 4, 5].map(|index| {
            let content = format!("{index}\n{edit}\n");
            Migration::new("", "", None, content.into_bytes())
        })
    };
    let (ran, edited) = (made(""), made("edited"));
    let mut carried_out = 0;
    for seed in 1..=20_000 {
        let mut random = Random::seeded(seed);
        let Past { set, history, recorded } = some_past(&mut random, &ran, &edited);
        let _case = Case(seed, &set, &history);
        if let Ok(plan) = plan_up(&set, &history, Policy::default()) {
            carried_out += 1;
            assert!(!plan.pending.iter().any(|pending| recorded.contains(&pending.index)));
        }
    }
    assert!(carried_out > 2_000, "{carried_out}");
}
