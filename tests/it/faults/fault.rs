//! Which faults there are, and how a seed chooses one. Pure.

use std::fmt::{Display, Formatter, Result};
use std::time::Duration;

use crate::harness::Random;
use crate::proxy::{Break, Side};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ClientKilled,
    ClientSignalled,
    ClientSignalledTwice,
    ClientFrozen,
    ConnectionClosed,
    ConnectionReset,
    HalfClosed,
    Delayed,
    BlackHole,
    BackendTerminated,
    StatementCancelled,
    BackendKilled,
    ServerStopped,
    ServerKilled,
    FailedOver,
    PoolerRestarted,
    DiskFull,
    /// Something is done twice. It is in no turn: it shows that this is noticed.
    RowDoubled,
}

/// The turns.
pub const KINDS: [Kind; 17] = [
    Kind::ClientKilled,
    Kind::ClientSignalled,
    Kind::ClientSignalledTwice,
    Kind::ClientFrozen,
    Kind::ConnectionClosed,
    Kind::ConnectionReset,
    Kind::HalfClosed,
    Kind::Delayed,
    Kind::BlackHole,
    Kind::BackendTerminated,
    Kind::StatementCancelled,
    Kind::BackendKilled,
    Kind::ServerStopped,
    Kind::ServerKilled,
    Kind::FailedOver,
    Kind::PoolerRestarted,
    Kind::DiskFull,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::ClientKilled => "client killed",
            Kind::ClientSignalled => "client signalled",
            Kind::ClientSignalledTwice => "client signalled twice",
            Kind::ClientFrozen => "client frozen",
            Kind::ConnectionClosed => "connection closed",
            Kind::ConnectionReset => "connection reset",
            Kind::HalfClosed => "connection half closed",
            Kind::Delayed => "connection delayed",
            Kind::BlackHole => "connection silent",
            Kind::BackendTerminated => "backend terminated",
            Kind::StatementCancelled => "statement cancelled",
            Kind::BackendKilled => "backend killed",
            Kind::ServerStopped => "server stopped at once",
            Kind::ServerKilled => "server killed",
            Kind::FailedOver => "failed over to a standby",
            Kind::PoolerRestarted => "pooler restarted",
            Kind::DiskFull => "disk of the server full",
            Kind::RowDoubled => "row doubled",
        }
    }

    /// Whether it strikes the connection at a byte of a message, and not something else meanwhile.
    fn is_of_connection(self) -> bool {
        use Kind::*;
        matches!(self, ConnectionClosed | ConnectionReset | HalfClosed | Delayed | BlackHole)
    }
}

/// How premigrate reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Direct,
    /// Through PgBouncer.
    Transaction,
    Session,
}

impl Route {
    pub fn is_pooled(self) -> bool {
        self != Route::Direct
    }
}

/// A message of an undisturbed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub connection: usize,
    pub from: Side,
    pub place: usize,
    pub length: usize,
}

/// What ends a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfSilence {
    Reset,
    Term,
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub spot: Spot,
    /// How many of the message's bytes arrive first, where the connection breaks.
    pub bytes: usize,
    /// How long after the message it comes; for what is not of the connection. At zero, before it.
    pub later: Duration,
    /// How long it lasts.
    pub time: Duration,
    pub signal: &'static str,
    pub both_ways: bool,
    pub end_of_silence: EndOfSilence,
    /// Which of the server's backends, in their order.
    pub backend: usize,
    /// What is left of the disk.
    pub kilobytes: u64,
    /// A second runner starts when it comes.
    pub is_crowded: bool,
}

/// What a seed stands for: faults in as many runs, one after the other, until one of them has applied
/// everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub seed: u64,
    pub route: Route,
    pub faults: Vec<Fault>,
}

impl Trial {
    /// By turns, each seed the next kind. `spots` has the messages directly and through a pooler.
    pub fn of(seed: u64, kinds: &[Kind], spots: impl Fn(Route) -> Vec<Spot>) -> Trial {
        // The generator's first numbers resemble each other where the seeds do.
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_B00C);
        random.below(2);
        let kind = kinds[(seed % kinds.len() as u64) as usize];
        let route = match (kind, random.below(5)) {
            (Kind::FailedOver, _) => Route::Direct,
            (Kind::PoolerRestarted, even) if even % 2 == 0 => Route::Transaction,
            (Kind::PoolerRestarted, _) => Route::Session,
            (_, 0) => Route::Transaction,
            (_, 1) => Route::Session,
            _ => Route::Direct,
        };
        let spots = spots(route);
        let count = [1, 1, 1, 2, 2, 3][random.below(6)];
        let mut faults = Vec::new();
        for number in 0..count {
            // A failover changes the server, so it is the only fault of its trial.
            let others: Vec<Kind> = kinds
                .iter()
                .copied()
                .filter(|&kind| kind != Kind::FailedOver)
                .filter(|&kind| kind != Kind::PoolerRestarted || route.is_pooled())
                .collect();
            let kind = if number == 0 { kind } else { others[random.below(others.len())] };
            faults.push(Fault::of(kind, &spots, &mut random));
            if kind == Kind::FailedOver {
                break;
            }
        }
        Trial { seed, route, faults }
    }
}

impl Fault {
    fn of(kind: Kind, spots: &[Spot], random: &mut Random) -> Fault {
        // The first connection has nearly all messages, and each answer is many.
        let is_first = random.below(2) == 0;
        let from = [Side::Client, Side::Server][random.below(2)];
        let is_like = |spot: &&Spot| (spot.connection == 0, spot.from) == (is_first, from);
        let like: Vec<Spot> = spots.iter().filter(is_like).copied().collect();
        let spots = if like.is_empty() { spots } else { &like };
        let spot = spots[random.below(spots.len())];
        let bytes = match random.below(3) {
            0 => 0,
            1 => spot.length,
            _ => random.below(spot.length + 1),
        };
        let millis = |count: usize| Duration::from_millis(count as u64);
        let later = match random.below(3) {
            0 => Duration::ZERO,
            _ => millis(1 + random.below(60)),
        };
        let time = match kind {
            Kind::ClientSignalledTwice => millis(900 + random.below(600)),
            Kind::ClientFrozen | Kind::Delayed => millis(10 + random.below(5000)),
            _ => millis(10 + random.below(2000)),
        };
        use EndOfSilence::*;
        Fault {
            kind,
            spot,
            bytes,
            later,
            time,
            signal: ["TERM", "INT", "HUP", "QUIT"][random.below(4)],
            both_ways: random.below(2) == 0,
            end_of_silence: [Reset, Reset, Term, Kill][random.below(4)],
            backend: random.below(4),
            kilobytes: [0, 8, 64, 512, 4096][random.below(5)],
            is_crowded: random.below(5) == 0,
        }
    }

    /// What the connection does at the spot, if it is that which breaks.
    pub fn of_connection(&self) -> Option<Break> {
        Some(match self.kind {
            Kind::ConnectionClosed => Break::Close,
            Kind::ConnectionReset => Break::Reset,
            Kind::HalfClosed => Break::HalfClose,
            Kind::Delayed => Break::Delay(self.time),
            Kind::BlackHole => {
                // Where a signal is to come, it comes first.
                let longer = Duration::from_secs(60);
                let is_reset = self.end_of_silence == EndOfSilence::Reset;
                let time = if is_reset { self.time } else { longer };
                Break::Hole { both_ways: self.both_ways, time }
            }
            _ => return None,
        })
    }

    /// Whether a run may end so, apart from success and from what asks a person.
    pub fn explains(&self, end: &End) -> bool {
        use EndOfSilence::*;
        use Kind::*;
        let signal = match (self.kind, self.end_of_silence) {
            (ClientSignalled | ClientSignalledTwice, _) => self.signal,
            (ClientKilled, _) | (BlackHole, Kill) => "KILL",
            (BlackHole, Term) => "TERM",
            _ => "",
        };
        match signal {
            "HUP" => end.code == 129,
            "INT" => end.code == 130,
            "QUIT" => end.code == 131,
            "TERM" => end.code == 143,
            "KILL" => end.code == -9,
            _ => self.explains_of_server(end),
        }
    }

    /// The same, of a run that was not struck itself.
    pub fn explains_of_server(&self, end: &End) -> bool {
        matches!(self.kind, Kind::StatementCancelled | Kind::DiskFull)
            && end.code == 70
            && end.error == "failed"
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub code: i32,
    /// The error's name in JSON; empty if there was none.
    pub error: String,
}

impl Display for End {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match (self.code, self.error.as_str()) {
            (-9, _) => formatter.write_str("killed"),
            (code, "") => write!(formatter, "{code}"),
            (code, error) => write!(formatter, "{code} {error}"),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let Spot { connection, from, place, length } = self.spot;
        let from = if from == Side::Client { "client" } else { "server" };
        formatter.write_str(self.kind.name())?;
        match self.kind {
            Kind::ClientSignalled | Kind::ClientSignalledTwice => {
                write!(formatter, " (SIG{})", self.signal)?;
            }
            Kind::BlackHole => {
                let ways = if self.both_ways { "both ways" } else { "one way" };
                write!(formatter, " ({ways}, until {:?})", self.end_of_silence)?;
            }
            Kind::DiskFull => write!(formatter, " ({} KB left)", self.kilobytes)?,
            _ => {}
        }
        let bytes = self.bytes;
        match (self.kind.is_of_connection(), self.later.as_millis()) {
            (true, _) => write!(formatter, " after byte {bytes} of {length} of")?,
            (false, 0) => write!(formatter, " before")?,
            (false, later) => write!(formatter, " {later} ms after")?,
        }
        write!(formatter, " message {place} of the {from} in connection {connection}")?;
        if self.is_crowded {
            write!(formatter, ", beside a second runner")?;
        }
        Ok(())
    }
}
