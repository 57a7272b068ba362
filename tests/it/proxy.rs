//! A proxy in front of the server that understands PostgreSQL's messages: it counts round trips,
//! and can cut or stall a connection at any message, in either direction. Without TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

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
    /// Its type; 0 for those of a client that is not let in yet.
    pub tag: u8,
    pub text: &'a str,
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
}

pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    action: Box<dyn Fn(&Message) -> Action + Send + Sync>,
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
            client: AtomicUsize::new(0),
            server: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            round_trips: AtomicUsize::new(0),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect(("127.0.0.1", server));
                join(client.expect("a client"), server.expect("the server"), &shared);
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
        Database { url: format!("{}?sslmode=disable", through.url), ..through }
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

fn join(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    state.connections.fetch_add(1, Ordering::SeqCst);
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let open = Arc::new(Mutex::new(Open::default()));
    for (from, reader, writer) in
        [(Side::Client, &client, &server), (Side::Server, &server, &client)]
    {
        let (reader, writer) = (reader.try_clone().expect("it"), writer.try_clone().expect("it"));
        let (state, open) = (state.clone(), open.clone());
        thread::spawn(move || {
            if pass(from, &reader, &writer, &state, &open) == Action::Stall {
                // Both sockets stay open until the test is over.
                loop {
                    thread::park();
                }
            }
            let _ = writer.shutdown(Shutdown::Both);
            let _ = reader.shutdown(Shutdown::Both);
        });
    }
}

/// Passes messages on until one side closes, or one of them is not to pass.
fn pass(
    from: Side,
    mut reader: &TcpStream,
    mut writer: &TcpStream,
    state: &State,
    open: &Mutex<Open>,
) -> Action {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    let mut is_first = from == Side::Client;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) | Err(_) => return Action::Pass,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
        }
        let mut passed = 0;
        let mut sent = Vec::new();
        let mut action = Action::Pass;
        while action == Action::Pass {
            let rest = &buffer[passed..];
            let tagged = usize::from(!is_first);
            let Some(length) = rest.get(tagged..tagged + 4) else { break };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + tagged;
            let Some(bytes) = rest.get(..length) else { break };
            let tag = if is_first { 0 } else { bytes[0] };
            is_first = false;
            let number = state.count(from).fetch_add(1, Ordering::SeqCst);
            let text = String::from_utf8_lossy(&bytes[tagged + 4..]);
            action = (state.action)(&Message { from, number, tag, text: &text });
            match action {
                Action::Pass => sent.extend_from_slice(bytes),
                Action::ReplaceWith(query) => {
                    sent.extend(query_message(query));
                    action = Action::Pass;
                }
                Action::Cut | Action::Stall => break,
            }
            let mut open = open.lock().expect("the count");
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
            passed += length;
        }
        if writer.write_all(&sent).is_err() {
            return Action::Pass;
        }
        if action != Action::Pass {
            return action;
        }
        buffer.drain(..passed);
    }
}

fn query_message(sql: &str) -> Vec<u8> {
    let length = u32::try_from(4 + sql.len() + 1).expect("a short query");
    [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat()
}
