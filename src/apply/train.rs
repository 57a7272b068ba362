//! Transactions that are sent one behind the other, each before those ahead of it are answered: over
//! any distance, many cost hardly more than one.
//!
//! Each is still a transaction of its own, with the lock, the guards and its row. Its guards want the
//! rows of those ahead of it. So where one fails, the server skips all that is behind it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::history::table::RowsOnTheirWay;
use crate::postgres::session::{Message, Pipeline, Response, Session};
use crate::process::signals::Deadline;

use super::transaction::{Transaction, TransactionResult, TransactionSpec};

/// The most transactions on their way at once.
const MAX_ON_THEIR_WAY: usize = 100;
/// The most bytes of them: a bit less than a socket takes in while its server works, and reads nothing.
/// What does not fit would wait in our socket, where TCP_USER_TIMEOUT takes it for a dead network.
const MAX_BYTES_ON_THEIR_WAY: usize = 60_000;

/// Transactions that are sent in order; each expects the state that the one before it leaves.
pub(super) struct Train<'t> {
    pub(super) session: &'t Session,
    pipeline: Pipeline<'t>,
    /// Those that are not committed yet.
    specs: &'t [TransactionSpec<'t>],
    /// The first of these, where they are on their way.
    sent: VecDeque<Sent<'t>>,
    pace: ServerPace,
}

/// How fast the server is, and how far away. What is on its way is to keep it busy until more arrives,
/// and hardly more: a signal stops the sooner.
struct ServerPace {
    round_trip: Duration,
    /// When the last transactions have ended.
    ends: VecDeque<Instant>,
}

impl ServerPace {
    /// A server takes so long for a small transaction, as long as it is not known.
    const USUAL: Duration = Duration::from_millis(2);
    const ENDS: usize = 9;

    fn add_end(&mut self, end: Instant) {
        self.ends.push_back(end);
        if self.ends.len() > ServerPace::ENDS {
            self.ends.pop_front();
        }
    }

    /// How many transactions are to be on their way at once: one in work and one behind it, and those
    /// that the server does during a round trip.
    fn on_their_way(&self) -> usize {
        let time = match (self.ends.front(), self.ends.back(), self.ends.len()) {
            (Some(first), Some(last), count @ 2..) => (*last - *first).div_f64((count - 1) as f64),
            _ => ServerPace::USUAL,
        };
        let micros = |time: Duration| usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        let during_round_trip = micros(self.round_trip) / micros(time).max(1);
        during_round_trip.saturating_add(2).min(MAX_ON_THEIR_WAY)
    }
}

/// A transaction that is on its way.
struct Sent<'t> {
    transaction: Transaction<'t>,
    spec: &'t TransactionSpec<'t>,
    mode: SendMode,
    /// How many messages it has, and how many bytes.
    messages: usize,
    bytes: usize,
}

/// How a transaction is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendMode {
    /// All its messages at once, so that others may follow them.
    AtOnce,
    /// Each message after the reply to the one before.
    OneByOne,
    /// Only its guards: it may crash the server.
    GuardsOnly,
}

impl<'t> Train<'t> {
    pub(super) fn new(session: &'t Session, specs: &'t [TransactionSpec<'t>]) -> Train<'t> {
        let pace = ServerPace { round_trip: session.round_trip(), ends: VecDeque::new() };
        Train { session, pipeline: session.pipeline(), specs, sent: VecDeque::new(), pace }
    }

    /// The transaction that is under way, or comes next.
    pub(super) fn first(&self) -> Option<&'t TransactionSpec<'t>> {
        self.specs.first()
    }

    /// Whether none is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    /// The transaction to send behind those that are on their way, with the rows of these; `None` if
    /// there is none, or if they are enough.
    pub(super) fn next(&self) -> Option<(&'t TransactionSpec<'t>, RowsOnTheirWay<'t>)> {
        let count = self.sent.len();
        let has_room = count < self.pace.on_their_way();
        let last = self.sent.back().filter(|last| has_room && last.mode == SendMode::AtOnce)?;
        Some((self.specs.get(count)?, RowsOnTheirWay { count, last: last.spec.rows.last()? }))
    }

    /// Whether a transaction may be on its way beside the others: it is not too long.
    pub(super) fn has_room_for(&self, transaction: &Transaction<'_>) -> bool {
        let bytes: usize = self.sent.iter().map(|sent| sent.bytes).sum();
        !transaction.waits() && bytes + length(&transaction.messages()) <= MAX_BYTES_ON_THEIR_WAY
    }

    /// Sends a transaction behind the others.
    pub(super) fn send(
        &mut self,
        spec: &'t TransactionSpec<'t>,
        transaction: Transaction<'t>,
        mode: SendMode,
    ) {
        let messages = transaction.messages();
        if mode == SendMode::AtOnce {
            self.pipeline.send(&messages);
        }
        let (bytes, messages) = (length(&messages), messages.len());
        self.sent.push_back(Sent { transaction, spec, mode, messages, bytes });
    }

    /// What becomes of the first one that is on its way, of which `tick` gets the responses meanwhile.
    pub(super) fn receive(
        &mut self,
        deadline: Deadline<'_>,
        tick: &mut dyn FnMut(&Transaction<'_>, &[Response]),
    ) -> Option<TransactionResult> {
        let Sent { transaction, mode, messages, .. } = self.sent.pop_front()?;
        let tick = &mut |responses: &[Response]| tick(&transaction, responses);
        let one_by_one = |messages: &[Message<'_>], tick: &mut dyn FnMut(&[Response])| {
            self.session.send_batch(messages, true, deadline, tick)
        };
        let responses = match mode {
            SendMode::AtOnce => self.pipeline.receive(messages, deadline, tick),
            SendMode::OneByOne => one_by_one(&transaction.messages(), tick),
            SendMode::GuardsOnly => one_by_one(&transaction.guards_only(), tick),
        };
        self.pace.add_end(Instant::now());
        Some(transaction.result(&responses))
    }

    /// The server has committed the first one.
    pub(super) fn pass(&mut self) {
        self.specs = self.specs.get(1..).unwrap_or_default();
    }

    /// The migration of the first one that is on its way.
    pub(super) fn migration(&self) -> Option<&'t str> {
        let step = self.sent.front()?.spec.step?;
        Some(step.migration.name.as_str())
    }

    /// Lets the first one be sent again, now that nothing is on its way.
    pub(super) fn restart(&mut self) {
        self.pipeline = self.session.pipeline();
    }
}

fn length(messages: &[Message<'_>]) -> usize {
    messages.iter().map(|message| message.sql.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_on_their_way_as_the_server_does_in_a_round_trip_and_two_more() {
        let on_their_way = |round_trip, gaps: &[u64]| {
            let round_trip = Duration::from_millis(round_trip);
            let mut pace = ServerPace { round_trip, ends: VecDeque::new() };
            let mut now = Instant::now();
            pace.add_end(now);
            for gap in gaps {
                now += Duration::from_millis(*gap);
                pace.add_end(now);
            }
            pace.on_their_way()
        };
        // Not known yet.
        assert_eq!((on_their_way(0, &[]), on_their_way(50, &[])), (2, 27));
        assert_eq!((on_their_way(1, &[5, 5]), on_their_way(50, &[5, 5])), (2, 12));
        // Replies that come in one packet, and at the same moment.
        assert_eq!(on_their_way(50, &[10, 0, 0, 10]), 12);
        assert_eq!(on_their_way(50, &[0, 0]), MAX_ON_THEIR_WAY);
        // A slow one is soon forgotten.
        assert_eq!(on_their_way(50, &[5, 9000, 5]), 2);
        assert_eq!(on_their_way(50, &[9000, 5, 5, 5, 5, 5, 5, 5, 5]), 12);
    }
}
