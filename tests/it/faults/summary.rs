//! What is written of the trials: a line for each, and tables of all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::fault::{End, Kind, Trial};
use super::place::Outcome;

#[derive(Default)]
pub struct Summary {
    trials: usize,
    /// For each kind how often it came, and how the runs ended.
    kinds: BTreeMap<Kind, (usize, BTreeMap<End, usize>)>,
    beside: BTreeMap<End, usize>,
    asked: BTreeMap<&'static str, usize>,
    told: usize,
    missed: usize,
    pub wrong: Vec<(Trial, Outcome)>,
}

impl Summary {
    pub fn add(&mut self, outcome: &Outcome) {
        self.trials += 1;
        self.told += usize::from(outcome.told > 0);
        for (fault, came, end) in &outcome.ends {
            if *came {
                let (count, ends) = self.kinds.entry(fault.kind).or_default();
                *count += 1;
                *ends.entry(end.clone()).or_default() += 1;
            } else {
                self.missed += 1;
            }
        }
        for end in &outcome.beside {
            *self.beside.entry(end.clone()).or_default() += 1;
        }
        for asked in &outcome.asked {
            *self.asked.entry(asked).or_default() += 1;
        }
    }

    /// Tables in Markdown, as `docs/reliability.md` has them.
    pub fn text(&self, seed: u64, took: Duration, lacks_disk: bool) -> String {
        let faults: usize = self.kinds.values().map(|(count, _)| count).sum();
        let asked: usize = self.asked.values().sum();
        let mut text = String::new();
        let last = seed + (self.trials as u64).saturating_sub(1);
        let minutes = took.as_secs_f64() / 60.0;
        let _ = writeln!(
            text,
            "{} trials with {faults} faults, seeds {seed} to {last}, in {minutes:.1} minutes. {} differ \
             from an undisturbed run. {} faults did not come, because their runs ended before.\n",
            self.trials,
            self.wrong.len(),
            self.missed
        );
        let _ = writeln!(text, "| fault | count | how the run with it ended |\n|---|---:|---|");
        for (kind, (count, ends)) in &self.kinds {
            let _ = writeln!(text, "| {} | {count} | {} |", kind.name(), list(ends));
        }
        let beside: usize = self.beside.values().sum();
        let _ = writeln!(
            text,
            "| a second runner beside a fault | {beside} | {} |",
            list(&self.beside)
        );
        let _ = writeln!(text, "\n| what asked a person | count |\n|---|---:|");
        for (statement, count) in &self.asked {
            let _ = writeln!(text, "| `{}` | {count} |", statement.trim());
        }
        let _ = writeln!(text, "| all | {asked} |");
        let _ = writeln!(text, "| invalid indexes of a `REINDEX` to drop | {} |", self.told);
        if lacks_disk {
            let _ = writeln!(text, "\nA full disk was left out: only root can mount a small one.");
        }
        text
    }

    /// Each with the command that repeats it.
    pub fn failures(&self) -> String {
        let failure = |(trial, outcome): &(Trial, Outcome)| {
            let wrong = outcome.wrong.as_deref().unwrap_or_default();
            let repeat = format!("scripts/faults --seed {} --count 1", trial.seed);
            format!("{}\n{wrong}\nRepeat it with: {repeat}\n", line(trial, outcome))
        };
        self.wrong.iter().map(failure).collect::<Vec<_>>().join("\n")
    }
}

/// The line of a trial in the log.
pub fn line(trial: &Trial, outcome: &Outcome) -> String {
    let mut line = format!("{} {:?}", trial.seed, trial.route);
    for (number, fault) in trial.faults.iter().enumerate() {
        let end = match outcome.ends.get(number) {
            Some((_, true, end)) => end.to_string(),
            Some((_, false, end)) => format!("{end}, the fault did not come"),
            None => "no run".to_owned(),
        };
        let _ = write!(line, "; {fault} -> {end}");
    }
    for end in &outcome.beside {
        let _ = write!(line, "; beside it -> {end}");
    }
    for asked in &outcome.asked {
        let _ = write!(line, "; asked about {}", asked.trim());
    }
    if outcome.told > 0 {
        let _ = write!(line, "; told of invalid indexes");
    }
    line + if outcome.wrong.is_some() { "; DIFFERENT" } else { "; the same" }
}

fn list(ends: &BTreeMap<End, usize>) -> String {
    ends.iter().map(|(end, count)| format!("{end}: {count}")).collect::<Vec<_>>().join(", ")
}
