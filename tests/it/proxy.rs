//! A proxy in front of the server that understands PostgreSQL's messages: it counts round trips,
//! and can cut or stall a connection at any message, in either direction. Without TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Database, server_port};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// A message on its way.
pub struct Message<'a> {
    pub from: From,
    /// How many came before it from this side, in all connections.
    pub number: usize,
    /// Its type; 0 for those of a client that is not let in yet.
    pub tag: u8,
    pub text: &'a str,
}

impl Message<'_> {
    /// Whether it says that a transaction has committed.
    pub fn is_committed(&self) -> bool {
        self.from == From::Server && self.text.starts_with("COMMIT\0")
    }
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// It does not arrive, and the connection is closed.
    Cut,
    /// Neither it nor what follows it from this side arrives.
    Stalled,
    /// This query arrives in its place.
    Becomes(&'static str),
}

pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    fate: Box<dyn Fn(&Message) -> Fate + Send + Sync>,
    client: AtomicUsize,
    server: AtomicUsize,
    connections: AtomicUsize,
    round_trips: AtomicUsize,
}

impl Proxy {
    pub fn start(fate: impl Fn(&Message) -> Fate + Send + Sync + 'static) -> Proxy {
        Proxy::before(server_port(), fate)
    }

    /// Before a server of the test's own.
    pub fn before(server: u16, fate: impl Fn(&Message) -> Fate + Send + Sync + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Proxy::between(listener, server, fate)
    }

    pub fn listening(
        listener: TcpListener,
        fate: impl Fn(&Message) -> Fate + Send + Sync + 'static,
    ) -> Proxy {
        Proxy::between(listener, server_port(), fate)
    }

    fn between(
        listener: TcpListener,
        server: u16,
        fate: impl Fn(&Message) -> Fate + Send + Sync + 'static,
    ) -> Proxy {
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            fate: Box::new(fate),
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

    /// The database through this proxy.
    pub fn to(&self, database: &Database) -> Database {
        let through = database.through(self.port);
        Database { url: format!("{}?sslmode=disable", through.url), ..through }
    }

    pub fn messages(&self, from: From) -> usize {
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
    fn count(&self, from: From) -> &AtomicUsize {
        match from {
            From::Client => &self.client,
            From::Server => &self.server,
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
        [(From::Client, &client, &server), (From::Server, &server, &client)]
    {
        let (reader, writer) = (reader.try_clone().expect("it"), writer.try_clone().expect("it"));
        let (state, open) = (state.clone(), open.clone());
        thread::spawn(move || {
            if pass(from, &reader, &writer, &state, &open) == Fate::Stalled {
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

/// Passes messages on until one side closes, or fate strikes.
fn pass(
    from: From,
    mut reader: &TcpStream,
    mut writer: &TcpStream,
    state: &State,
    open: &Mutex<Open>,
) -> Fate {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    let mut is_first = from == From::Client;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) | Err(_) => return Fate::Passes,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
        }
        let mut passed = 0;
        let mut sent = Vec::new();
        let mut fate = Fate::Passes;
        while fate == Fate::Passes {
            let rest = &buffer[passed..];
            let tagged = usize::from(!is_first);
            let Some(length) = rest.get(tagged..tagged + 4) else { break };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + tagged;
            let Some(bytes) = rest.get(..length) else { break };
            let tag = if is_first { 0 } else { bytes[0] };
            is_first = false;
            let number = state.count(from).fetch_add(1, Ordering::SeqCst);
            let text = String::from_utf8_lossy(&bytes[tagged + 4..]);
            fate = (state.fate)(&Message { from, number, tag, text: &text });
            match fate {
                Fate::Passes => sent.extend_from_slice(bytes),
                Fate::Becomes(query) => {
                    sent.extend(query_message(query));
                    fate = Fate::Passes;
                }
                Fate::Cut | Fate::Stalled => break,
            }
            let mut open = open.lock().expect("the count");
            match (from, tag) {
                (From::Client, b'Q') => {
                    if open.queries == 0 {
                        state.round_trips.fetch_add(1, Ordering::SeqCst);
                    }
                    open.queries += 1;
                }
                (From::Server, b'E') => open.fail(),
                (From::Server, b'Z') => open.end(),
                _ => {}
            }
            passed += length;
        }
        if writer.write_all(&sent).is_err() {
            return Fate::Passes;
        }
        if fate != Fate::Passes {
            return fate;
        }
        buffer.drain(..passed);
    }
}

fn query_message(sql: &str) -> Vec<u8> {
    let length = u32::try_from(4 + sql.len() + 1).expect("a short query");
    [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat()
}
