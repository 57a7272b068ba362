//! Which events are shown when, for a person who watches and for one who reads the log later. Pure: an
//! event brings its own time.

use std::time::Duration;

use crate::apply::event::{Applied, Event, Running};
use crate::cli::config::{Format, Style};

use super::{event, events};

/// When a long-running operation first gets a line. The next comes after twice that time, and so on, but
/// not later than after so long.
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
    running: Pace,
    /// The same for what is waited for, and how long that could be at first.
    waiting: Pace,
    wait_limit: Duration,
}

/// When something that goes on gets its next line.
#[derive(Debug)]
struct Pace {
    last: Duration,
    next: Duration,
}

impl Pace {
    fn new() -> Pace {
        Pace { last: Duration::ZERO, next: FIRST_LINE }
    }

    /// Whether it is time for a line, after so long. With a shorter time, something else has begun.
    fn is_due(&mut self, time: Duration) -> bool {
        if time < self.last {
            self.next = FIRST_LINE;
        }
        self.last = time;
        let is_due = time >= self.next;
        if is_due {
            self.next = time + time.min(MAX_INTERVAL);
        }
        is_due
    }
}

impl Log {
    pub fn new(style: Style, has_live_line: bool) -> Log {
        Log {
            style,
            has_live_line,
            announced: None,
            running: Pace::new(),
            waiting: Pace::new(),
            wait_limit: Duration::ZERO,
        }
    }

    pub fn show(&mut self, event: &Event) -> Shown {
        if let Some(left) = event.remaining() {
            (self.waiting, self.wait_limit) = (Pace::new(), left);
        }
        match (event, self.style.format) {
            (Event::Running(running), _) => self.still_running(event, running),
            (Event::Repeated(event), _) => self.still_waiting(event),
            (Event::Unprinted(_), _) => Shown::Nothing,
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

    fn still_waiting(&mut self, event: &Event) -> Shown {
        let left = event.remaining().unwrap_or_default();
        match self.waiting.is_due(self.wait_limit.saturating_sub(left)) {
            _ if self.has_live_line => live(event),
            true => self.line(event),
            false => Shown::Nothing,
        }
    }

    fn still_running(&mut self, event: &Event, running: &Running) -> Shown {
        if self.has_live_line {
            return live(event);
        }
        if !self.running.is_due(running.running_for) {
            return Shown::Nothing;
        }
        // This line names the migration too.
        self.announced = None;
        self.line(event)
    }
}

fn live(event: &Event) -> Shown {
    Shown::Live(events::live_line(event))
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
    fn a_wait_that_goes_on_gets_further_lines_likewise_and_a_live_line_on_a_terminal() {
        let locked_out = |left| Event::LockedOut {
            holder: HeldBy::Unseen,
            left: Duration::from_secs(600 - left),
        };
        let again = |seconds| Event::Repeated(Box::new(locked_out(seconds)));
        let mut log = Log::new(style(Format::Json), false);
        for _ in 0..2 {
            assert_ne!(log.show(&locked_out(0)), Shown::Nothing);
            let is_shown = |&seconds: &u64| log.show(&again(seconds)) != Shown::Nothing;
            let shown: Vec<_> = (1..100).filter(is_shown).collect();
            assert_eq!(shown, [10, 20, 40, 80]);
        }
        let mut log = Log::new(style(Format::Text), true);
        assert!(matches!(log.show(&locked_out(0)), Shown::Lines(_)));
        let Shown::Live(line) = log.show(&again(1)) else { panic!() };
        assert!(line.starts_with("premigrate: waiting up to 9 min 59 s for"), "{line}");
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
