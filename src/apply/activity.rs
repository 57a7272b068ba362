//! How far a statement is, from the views `pg_stat_progress_*`. Pure.

use crate::apply::event::CommandProgress;
use crate::postgres::result::ResultRow;
use crate::sql::quote::EQ;

/// Selects the activity of the backend `running.pid`: the command, the table, the phase, and how much
/// is done of how much in that phase. There is no row if it runs no such command.
pub fn activity_sql(server_version: u32) -> String {
    let is = |phase: &str| format!("phase {EQ} '{phase}'");
    // Sorting has no numbers, but those of the phase before are still there.
    let index = |kind: &str| {
        format!(
            "case when pg_catalog.starts_with(phase, 'waiting') then lockers_{kind} \
             when {} then tuples_{kind} \
             when pg_catalog.strpos(phase, 'sorting') {EQ} 0 then blocks_{kind} end",
            is("building index: loading tuples in tree")
        )
    };
    let vacuumed = format!(
        "case when {} then heap_blks_vacuumed when {} then heap_blks_scanned end",
        is("vacuuming heap"),
        is("scanning heap")
    );
    let clustered = format!("case when {} then heap_blks_scanned end", is("seq scanning heap"));
    let sampled = format!("case when {} then sample_blks_scanned end", is("acquiring sample rows"));
    let mut views = vec![
        ("create_index", "command", "phase", index("done"), index("total")),
        ("vacuum", "'VACUUM'", "phase", vacuumed, "heap_blks_total".to_owned()),
        ("cluster", "command", "phase", clustered, "heap_blks_total".to_owned()),
        ("analyze", "'ANALYZE'", "phase", sampled, "sample_blks_total".to_owned()),
    ];
    if server_version >= 14 {
        views.push((
            "copy",
            "command",
            "null",
            "bytes_processed".to_owned(),
            "bytes_total".to_owned(),
        ));
    }
    let selects = views.into_iter().map(|(view, command, phase, done, total)| {
        format!(
            "select {command} as command, \
             (select relid::pg_catalog.regclass::pg_catalog.text where not relid {EQ} 0) as relation, \
             {phase} as phase, {done} as done, {total} as total \
             from pg_catalog.pg_stat_progress_{view} where pid {EQ} running.pid"
        )
    });
    selects.collect::<Vec<_>>().join(" union all ")
}

/// Reads the columns of [`activity_sql`], which begin at this one. `copy_length` is how many bytes the
/// server gets for a COPY, which it does not know itself.
pub fn parse(
    row: ResultRow<'_>,
    first: usize,
    copy_length: Option<u64>,
) -> Option<CommandProgress> {
    let text = |index: usize| row.at(first + index).map(str::to_owned);
    let number = |index: usize| row.at(first + index).and_then(|text| text.parse::<u64>().ok());
    let command = text(0)?;
    let is_copy = command.starts_with("COPY");
    let total = number(4).filter(|&total| total > 0);
    let total = total.or(copy_length.filter(|_| is_copy));
    let percent = number(3).zip(total).and_then(|(done, total)| percent(done, total));
    Some(CommandProgress { command, table: text(1), phase: text(2), percent })
}

fn percent(done: u64, total: u64) -> Option<u8> {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    (total > 0).then(|| u8::try_from(percent.min(100)).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentage_is_that_of_the_phase_and_of_a_copy_as_far_as_its_length_is_known() {
        let parsed = |row: [&str; 5], copy_length| {
            let values = row.map(|text| (!text.is_empty()).then(|| text.to_owned()));
            let values: Vec<_> = [None].into_iter().chain(values).collect();
            parse(ResultRow::from(values.as_slice()), 1, copy_length)
        };
        for (row, copy_length, percent) in [
            (["CREATE INDEX", "t", "building index: scanning table", "43", "100"], None, Some(43)),
            (["VACUUM", "t", "scanning heap", "0", "7"], None, Some(0)),
            (["VACUUM", "t", "initializing", "0", "0"], None, None),
            (["VACUUM", "t", "vacuuming indexes", "", "7"], None, None),
            (["COPY FROM", "t", "", "512", "0"], Some(1024), Some(50)),
            (["COPY FROM", "t", "", "512", "0"], None, None),
            (["COPY FROM", "t", "", "2048", "1024"], Some(1), Some(100)),
            (["CREATE INDEX", "t", "initializing", "5", "0"], Some(9), None),
        ] {
            let activity = parsed(row, copy_length).unwrap();
            assert_eq!(activity.percent, percent, "{row:?}");
            assert_eq!(activity.phase.is_none(), row[2].is_empty(), "{row:?}");
        }
        assert_eq!(parsed([""; 5], Some(1)), None);
    }
}
