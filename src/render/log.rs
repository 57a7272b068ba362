//! Which events are shown when, for a person who watches and for one who reads the log later. Pure: an
//! event brings its own time.

use std::time::Duration;

use crate::apply::event::{Applied, Event, Running};
use crate::cli::config::{Format, Style};

use super::{event, events, one_line};

/// When a line first says of something that it still runs. The next comes after twice that time, and
/// so on, but not later than after so long.
const FIRST_LINE: Duration = Duration::from_secs(10);
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// What to do for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    /// Lines, each with its end.
    Lines(String),
    /// A line without its end, in place of the last such one.
    Live(String),
}

/// What has been shown so far, as far as it matters.
#[derive(Debug)]
pub struct Log {
    style: Style,
    /// Whether there is a terminal on which a line can be replaced.
    has_live_line: bool,
    /// The migration that is about to be applied. Its first line waits for a second one.
    announced: Option<Event>,
    /// How long the last thing ran that still did, and when that gets its next line.
    running_for: Duration,
    next_line: Duration,
}

impl Log {
    pub fn new(style: Style, has_live_line: bool) -> Log {
        Log {
            style,
            has_live_line,
            announced: None,
            running_for: Duration::ZERO,
            next_line: FIRST_LINE,
        }
    }

    pub fn show(&mut self, event: &Event) -> Shown {
        match (event, self.style.format) {
            (Event::Running(running), _) => self.still_running(event, running),
            (Event::Repeated(_) | Event::Progress(_), _) => Shown::Nothing,
            (_, Format::Json) => self.line(event),
            (Event::Applying { out_of_order: false, .. }, Format::Text) => {
                self.announced = Some(event.clone());
                Shown::Nothing
            }
            // One line says it all, if there was none before.
            (Event::Applied(Applied { .. }), Format::Text) => {
                self.announced = None;
                self.line(event)
            }
            (_, Format::Text) => {
                let announced = self.announced.take_if(|_| event.is_about_migration());
                let before = announced.map(|event| self::event(&event, self.style));
                Shown::Lines(before.unwrap_or_default() + &self::event(event, self.style))
            }
        }
    }

    fn line(&self, event: &Event) -> Shown {
        Shown::Lines(self::event(event, self.style))
    }

    fn still_running(&mut self, event: &Event, running: &Running) -> Shown {
        if running.running_for < self.running_for {
            self.next_line = FIRST_LINE;
        }
        self.running_for = running.running_for;
        if self.has_live_line {
            return Shown::Live(events::lines(event).iter().map(|line| one_line(line)).collect());
        }
        if running.running_for < self.next_line {
            return Shown::Nothing;
        }
        self.next_line = running.running_for + running.running_for.min(MAX_INTERVAL);
        // This line names the migration too.
        self.announced = None;
        self.line(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::event::{HeldBy, StepsDone};

    fn style(format: Format) -> Style {
        Style { format, is_colored: false }
    }

    fn name() -> String {
        "0000_a".to_owned()
    }

    fn applying(out_of_order: bool) -> Event {
        Event::Applying { migration: name(), out_of_order }
    }

    fn applied() -> Event {
        Event::Applied(Applied { migration: name(), took: Some(Duration::from_millis(14)) })
    }

    fn running(seconds: u64) -> Event {
        Event::Running(Running {
            migration: Some(name()),
            step: None,
            statement: None,
            statements: 1,
            outside_transaction: None,
            running_for: Duration::from_secs(seconds),
            blocker: None,
            activity: None,
        })
    }

    fn lines(log: &mut Log, events: &[Event]) -> String {
        let shown = events.iter().map(|event| match log.show(event) {
            Shown::Nothing => String::new(),
            Shown::Lines(lines) => lines,
            Shown::Live(line) => panic!("{line}"),
        });
        shown.collect()
    }

    #[test]
    fn a_migration_has_one_line_where_there_is_nothing_to_say_between() {
        let resuming = Event::Resuming { migration: name(), done: StepsDone { done: 1, of: 2 } };
        let locked_out = Event::LockedOut { holder: HeldBy::Unseen, left: Duration::from_secs(1) };
        let log = || Log::new(style(Format::Text), false);
        assert_eq!(
            lines(&mut log(), &[applying(false), applied()]),
            "premigrate: applied 0000_a in 14 ms\n"
        );
        assert_eq!(
            lines(&mut log(), &[applying(false), resuming.clone(), resuming, applied()]),
            "premigrate: applying 0000_a\n\
             premigrate: resuming 0000_a: 1 of 2 steps already done\n\
             premigrate: resuming 0000_a: 1 of 2 steps already done\n\
             premigrate: applied 0000_a in 14 ms\n"
        );
        assert_eq!(
            lines(&mut log(), &[applying(true), applied()]),
            "premigrate: applying 0000_a out of order: a later migration is already applied\n\
             premigrate: applied 0000_a in 14 ms\n"
        );
        // Which is not about the migration, and may be the end of it.
        let shown = lines(&mut log(), &[applying(false), locked_out]);
        assert!(shown.starts_with("premigrate: waiting up to"), "{shown}");
        let json = lines(&mut Log::new(style(Format::Json), false), &[applying(false), applied()]);
        assert_eq!(json.lines().count(), 2, "{json}");
    }

    #[test]
    fn what_still_runs_gets_a_line_after_ten_seconds_and_then_at_growing_intervals() {
        for format in [Format::Text, Format::Json] {
            let mut log = Log::new(style(format), false);
            let mut shown = |range: std::ops::Range<u64>| {
                let is_shown = |&seconds: &u64| log.show(&running(seconds)) != Shown::Nothing;
                range.filter(is_shown).collect::<Vec<_>>()
            };
            assert_eq!(shown(1..100), [10, 20, 40, 80]);
            // The next statement.
            assert_eq!(shown(1..3000), [10, 20, 40, 80, 160, 320, 640, 1240, 1840, 2440]);
        }
    }

    #[test]
    fn a_line_that_says_what_still_runs_names_the_migration_already() {
        let mut log = Log::new(style(Format::Text), false);
        let shown = lines(&mut log, &[applying(false), running(11), applied()]);
        assert_eq!(
            shown,
            "premigrate: 0000_a: running for 11 s\npremigrate: applied 0000_a in 14 ms\n"
        );
    }

    #[test]
    fn on_a_terminal_the_live_line_is_there_from_the_first_second_on() {
        let mut log = Log::new(style(Format::Text), true);
        for seconds in 1..30 {
            let line = format!("premigrate: 0000_a: running for {seconds} s");
            assert_eq!(log.show(&running(seconds)), Shown::Live(line));
        }
    }

    #[test]
    fn a_name_that_could_drive_the_terminal_is_escaped_in_the_live_line() {
        let mut log = Log::new(style(Format::Text), true);
        let Event::Running(mut running) = running(1) else { panic!() };
        running.migration = Some("\u{1b}[31m\r\nx".to_owned());
        let Shown::Live(line) = log.show(&Event::Running(running)) else { panic!() };
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
