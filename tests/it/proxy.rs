//! A proxy in front of the server that understands PostgreSQL's messages: it counts round trips,
//! and can break a connection at any byte of any message, in either direction. Without TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::{Database, server_port};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// A message on its way.
pub struct Message<'a> {
    pub from: Side,
    /// How many came before it from this side, in all connections.
    pub number: usize,
    /// How many connections were made before its own.
    pub connection: usize,
    /// How many came before it from this side in its connection.
    pub place: usize,
    /// In bytes.
    pub length: usize,
    /// Its type; 0 for those of a client that is not let in yet.
    pub tag: u8,
    pub text: &'a str,
    /// All of it, with its type and its length.
    pub bytes: &'a [u8],
}

impl Message<'_> {
    /// Whether it says that a transaction has committed.
    pub fn is_committed(&self) -> bool {
        self.from == Side::Server && self.text.starts_with("COMMIT\0")
    }
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    /// It does not arrive, and the connection is closed.
    Cut,
    /// Neither it nor what follows it from this side arrives.
    Stall,
    /// This query arrives in its place.
    ReplaceWith(&'static str),
    /// These bytes arrive in its place.
    Become(&'static [u8]),
    /// These bytes arrive in its place again and again, as long as the receiver reads.
    Flood(&'static [u8]),
    /// So many of its bytes arrive, and then this happens.
    Break(usize, Break),
}

/// What happens to a connection in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// It is closed.
    Close,
    /// It is reset, as by a firewall or a machine that has started again.
    Reset,
    /// The receiver sees the end, and the other direction goes on.
    HalfClose,
    /// Everything else arrives so much later.
    Delay(Duration),
    /// Nothing else arrives; after this time, or once `end_holes` is called, the connection is reset.
    Hole { both_ways: bool, time: Duration },
}

pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    action: Box<dyn Fn(&Message) -> Action + Send + Sync>,
    /// The server's port.
    leads_to: AtomicU16,
    holes_end: AtomicBool,
    client: AtomicUsize,
    server: AtomicUsize,
    connections: AtomicUsize,
    round_trips: AtomicUsize,
}

impl Proxy {
    pub fn start(action: impl Fn(&Message) -> Action + Send + Sync + 'static) -> Proxy {
        Proxy::before(server_port(), action)
    }

    /// Before a server of the test's own.
    pub fn before(
        server: u16,
        action: impl Fn(&Message) -> Action + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Proxy::between(listener, server, action)
    }

    pub fn listening(
        listener: TcpListener,
        action: impl Fn(&Message) -> Action + Send + Sync + 'static,
    ) -> Proxy {
        Proxy::between(listener, server_port(), action)
    }

    fn between(
        listener: TcpListener,
        server: u16,
        action: impl Fn(&Message) -> Action + Send + Sync + 'static,
    ) -> Proxy {
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            action: Box::new(action),
            leads_to: AtomicU16::new(server),
            holes_end: AtomicBool::new(false),
            client: AtomicUsize::new(0),
            server: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            round_trips: AtomicUsize::new(0),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a client");
                let server = shared.leads_to.load(Ordering::SeqCst);
                // Where there is none, the client's connection ends at once.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                    join(client, server, &shared);
                }
            }
        });
        Proxy { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database through this proxy.
    pub fn to(&self, database: &Database) -> Database {
        let through = database.through(self.port);
        through.at(format!("{}?sslmode=disable", through.url))
    }

    /// New connections are led to the server at this port.
    pub fn lead_to(&self, port: u16) {
        self.state.leads_to.store(port, Ordering::SeqCst);
    }

    /// Ends the holes that there are, or lets there be new ones.
    pub fn end_holes(&self, end: bool) {
        self.state.holes_end.store(end, Ordering::SeqCst);
    }

    pub fn messages(&self, from: Side) -> usize {
        self.state.count(from).load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How often a client sent something after all that it had asked was answered; the handshakes
    /// not counted.
    pub fn round_trips(&self) -> usize {
        self.state.round_trips.load(Ordering::SeqCst)
    }
}

/// The port of a proxy to the server that delivers what it gets so much later.
pub fn far_away(delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let carry = move |mut from: TcpStream, mut to: TcpStream| {
        let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            for (due, bytes) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        thread::spawn(move || {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                let _ = sender.send((Instant::now() + delay, chunk[..length].to_vec()));
            }
        });
    };
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(("127.0.0.1", server_port())).unwrap();
            carry(client.try_clone().unwrap(), server.try_clone().unwrap());
            carry(server, client);
        }
    });
    port
}

impl State {
    fn count(&self, from: Side) -> &AtomicUsize {
        match from {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

/// The queries of a connection that have no answer yet. An error is an answer: the client may ask
/// again before it has seen that the server is ready, which can come in a packet of its own.
#[derive(Default)]
struct Open {
    queries: usize,
    failed: bool,
}

impl Open {
    fn fail(&mut self) {
        self.queries = self.queries.saturating_sub(1);
        self.failed = true;
    }

    fn end(&mut self) {
        if !std::mem::take(&mut self.failed) {
            self.queries = self.queries.saturating_sub(1);
        }
    }
}

struct Connection {
    number: usize,
    client: TcpStream,
    server: TcpStream,
    open: Mutex<Open>,
    /// Nothing passes any more.
    is_silent: AtomicBool,
}

impl Connection {
    /// Each end gets a reset once both threads have let go of the sockets.
    fn reset(&self) {
        for socket in [&self.client, &self.server] {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            // Wakes the thread that reads, and sends nothing.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    fn close(&self) {
        for socket in [&self.client, &self.server] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn join(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let open = Mutex::new(Open::default());
    let is_silent = AtomicBool::new(false);
    let connection = Arc::new(Connection { number, client, server, open, is_silent });
    for from in [Side::Client, Side::Server] {
        let (state, connection) = (state.clone(), connection.clone());
        thread::spawn(move || match pass(from, &connection, &state) {
            End::Closed => connection.close(),
            End::Reset => connection.reset(),
            // Both sockets stay open until the test is over.
            End::Stalled => loop {
                thread::park();
            },
        });
    }
}

/// How a direction of a connection ends.
enum End {
    Closed,
    Reset,
    Stalled,
}

/// Passes messages on until one side closes, or one of them is not to pass.
fn pass(from: Side, connection: &Connection, state: &State) -> End {
    let (mut reader, mut writer) = match from {
        Side::Client => (&connection.client, &connection.server),
        Side::Server => (&connection.server, &connection.client),
    };
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    let mut is_first = from == Side::Client;
    let mut place = 0;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) | Err(_) => return End::Closed,
            _ if connection.is_silent.load(Ordering::SeqCst) => continue,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
        }
        let mut passed = 0;
        let mut sent = Vec::new();
        loop {
            let rest = &buffer[passed..];
            let tagged = usize::from(!is_first);
            let Some(length) = rest.get(tagged..tagged + 4) else { break };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + tagged;
            let Some(bytes) = rest.get(..length) else { break };
            let tag = if is_first { 0 } else { bytes[0] };
            is_first = false;
            let number = state.count(from).fetch_add(1, Ordering::SeqCst);
            let text = &String::from_utf8_lossy(&bytes[tagged + 4..]);
            let passing = Message {
                from,
                number,
                connection: connection.number,
                place,
                length,
                tag,
                text,
                bytes,
            };
            let action = (state.action)(&passing);
            place += 1;
            match action {
                Action::Pass => sent.extend_from_slice(bytes),
                Action::ReplaceWith(query) => sent.extend(message(b'Q', query_body(query))),
                Action::Become(bytes) => sent.extend_from_slice(bytes),
                Action::Flood(bytes) => {
                    let _ = writer.write_all(&sent);
                    while writer.write_all(bytes).is_ok() {}
                    return End::Closed;
                }
                Action::Cut | Action::Stall => {
                    let _ = writer.write_all(&sent);
                    return if action == Action::Cut { End::Closed } else { End::Stalled };
                }
                Action::Break(after, how) => {
                    let (before, behind) = bytes.split_at(after.min(length));
                    sent.extend_from_slice(before);
                    let _ = writer.write_all(&sent);
                    if let Some(end) = broken(how, reader, writer, connection, state) {
                        return end;
                    }
                    sent = behind.to_vec();
                }
            }
            let mut open = connection.open.lock().expect("the count");
            match (from, tag) {
                (Side::Client, b'Q') => {
                    if open.queries == 0 {
                        state.round_trips.fetch_add(1, Ordering::SeqCst);
                    }
                    open.queries += 1;
                }
                (Side::Server, b'E') => open.fail(),
                (Side::Server, b'Z') => open.end(),
                _ => {}
            }
            drop(open);
            // Each at once: what comes next may have to wait for what the server does with it.
            if writer.write_all(&sent).is_err() {
                return End::Closed;
            }
            sent.clear();
            passed += length;
        }
        buffer.drain(..passed);
    }
}

/// Breaks a connection. Returns how it ends, unless it goes on.
fn broken(
    how: Break,
    mut reader: &TcpStream,
    writer: &TcpStream,
    connection: &Connection,
    state: &State,
) -> Option<End> {
    match how {
        Break::Close => Some(End::Closed),
        Break::Reset => Some(End::Reset),
        Break::HalfClose => {
            let _ = writer.shutdown(Shutdown::Write);
            let mut lost = [0; 4096];
            while let Ok(1..) = reader.read(&mut lost) {}
            Some(End::Closed)
        }
        Break::Delay(time) => {
            thread::sleep(time);
            None
        }
        Break::Hole { both_ways, time } => {
            connection.is_silent.store(both_ways, Ordering::SeqCst);
            let until = Instant::now() + time;
            while Instant::now() < until && !state.holes_end.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            Some(End::Reset)
        }
    }
}

fn query_body(sql: &str) -> Vec<u8> {
    [sql.as_bytes(), b"\0"].concat()
}

/// A message of this type.
pub fn message(tag: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = u32::try_from(4 + body.len()).expect("a short message");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}
