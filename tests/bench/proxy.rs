//! A network of a given round-trip time in front of a server. Bytes pass unchanged, each half of that
//! time later than they came, and as many at once as come; to open a connection takes the whole time.
//!
//! It prints its port, serves until its standard input ends, and then prints how many round trips each
//! connection has waited for, and how many connections there were.
//!
//! What the client is given can depend on what it sent, and what it sends on what it was given. So what
//! it sends is one round trip further than what it has been given by then, and the answer as far as
//! what the server had been given: the number is that of the furthest answer. Whoever sends without
//! waiting is counted a round trip for each such time that passes, and no more.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How much can be on its way in each direction. It bounds the memory, not the speed: at 100 ms, this
/// many buffers are some gigabytes a second.
const BUFFERS: usize = 4096;
const BUFFER: usize = 64 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [milliseconds, server] = arguments.as_slice() else {
        Err("usage: proxy MILLISECONDS HOST:PORT")?
    };
    let proxy = Proxy::start(Duration::from_millis(milliseconds.parse()?), server.clone())?;
    writeln!(io::stdout(), "{}", proxy.port)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let round_trips = proxy.round_trips();
    let sum: usize = round_trips.iter().sum();
    writeln!(io::stdout(), "{{\"round_trips\":{sum},\"connections\":{}}}", round_trips.len())?;
    Ok(())
}

struct Proxy {
    port: u16,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
}

/// How far each side has been given what the other sent, in round trips.
#[derive(Default)]
struct Connection {
    client: AtomicUsize,
    server: AtomicUsize,
}

/// Some bytes on their way.
struct Chunk {
    bytes: Vec<u8>,
    due: Instant,
    round_trips: usize,
}

impl Proxy {
    fn start(round_trip: Duration, server: String) -> io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&connections);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Without a server, the client finds its connection closed.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let connection = Arc::<Connection>::default();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&connection));
                let _ = connect(&client, &server, round_trip, &connection);
            }
        });
        Ok(Proxy { port, connections })
    }

    fn round_trips(&self) -> Vec<usize> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|it| it.client.load(Ordering::SeqCst)).collect()
    }
}

/// Starts the four threads of a connection: one reads and one writes, in each direction.
fn connect(
    client: &TcpStream,
    server: &TcpStream,
    round_trip: Duration,
    connection: &Arc<Connection>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    // The kernel has let the client in at once. To wait for that would have taken a round trip.
    let opened = Instant::now() + round_trip;
    for is_from_client in [true, false] {
        let (from, to) = if is_from_client { (client, server) } else { (server, client) };
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (sender, receiver) = sync_channel(BUFFERS);
        let (asks, answers) = (Arc::clone(connection), Arc::clone(connection));
        thread::spawn(move || {
            read(from, &sender, |bytes| Chunk {
                bytes,
                due: Instant::now().max(opened) + round_trip / 2,
                round_trips: if is_from_client {
                    asks.client.load(Ordering::SeqCst) + 1
                } else {
                    asks.server.load(Ordering::SeqCst)
                },
            });
        });
        thread::spawn(move || {
            let given = if is_from_client { &answers.server } else { &answers.client };
            write(to, &receiver, given);
        });
    }
    Ok(())
}

/// Reads until the end, or until nobody takes it any more.
fn read(mut from: TcpStream, sender: &SyncSender<Chunk>, chunk: impl Fn(Vec<u8>) -> Chunk) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = from.read(&mut buffer) {
        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
        if sender.send(chunk(bytes)).is_err() || length == 0 {
            break;
        }
    }
}

/// Writes each chunk when it is due. An empty one is the end.
fn write(mut to: TcpStream, receiver: &Receiver<Chunk>, given: &AtomicUsize) {
    for chunk in receiver {
        thread::sleep(chunk.due.saturating_duration_since(Instant::now()));
        if chunk.bytes.is_empty() {
            break;
        }
        given.fetch_max(chunk.round_trips, Ordering::SeqCst);
        if to.write_all(&chunk.bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server for one connection, and a client that is connected to it over this round-trip time.
    fn connected(
        round_trip: u64,
        serve: impl FnOnce(TcpStream) + Send + 'static,
    ) -> (TcpStream, Proxy) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        let proxy = Proxy::start(Duration::from_millis(round_trip), server).unwrap();
        (TcpStream::connect(("127.0.0.1", proxy.port)).unwrap(), proxy)
    }

    /// Answers each byte by one, but for a farewell.
    fn answer(mut server: TcpStream) {
        let mut byte = [0];
        while server.read_exact(&mut byte).is_ok() && byte != *b"!" {
            server.write_all(&byte).unwrap();
        }
    }

    fn ask(client: &mut TcpStream) {
        client.write_all(b"?").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn an_answer_takes_a_round_trip_and_so_does_the_opening_of_the_connection() {
        let started = Instant::now();
        let (mut client, _proxy) = connected(60, answer);
        ask(&mut client);
        assert!(started.elapsed() >= Duration::from_millis(120), "{:?}", started.elapsed());
        let started = Instant::now();
        ask(&mut client);
        assert!(started.elapsed() >= Duration::from_millis(60), "{:?}", started.elapsed());
    }

    #[test]
    fn much_passes_at_once_unchanged_and_in_order() {
        const LENGTH: usize = 32 << 20;
        let (client, _proxy) = connected(200, |mut server| {
            let mut everything = Vec::new();
            server.read_to_end(&mut everything).unwrap();
            server.write_all(&everything).unwrap();
        });
        let sent: Vec<u8> = (0..LENGTH).map(|at| (at * at / 7) as u8).collect();
        let started = Instant::now();
        let (mut writer, expected) = (client.try_clone().unwrap(), sent.clone());
        thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&client).read_to_end(&mut received).unwrap();
        assert!(received == expected);
        // With a pause for each of 512 buffers, in each direction, it would be 100 seconds.
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }

    #[test]
    fn what_was_waited_for_is_counted_and_what_is_only_sent_is_not() {
        let (mut client, proxy) = connected(20, answer);
        for _ in 0..3 {
            ask(&mut client);
        }
        assert_eq!(proxy.round_trips(), [3]);
        // Two at once, and a farewell.
        client.write_all(b"??").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        client.write_all(b"!").unwrap();
        assert_eq!(proxy.round_trips(), [4]);
    }

    #[test]
    fn many_without_waiting_are_counted_by_the_time_that_passes() {
        let (mut client, proxy) = connected(400, answer);
        let mut reader = client.try_clone().unwrap();
        let read = thread::spawn(move || reader.read_exact(&mut [0; 60]).unwrap());
        // For less than a round trip, while the first answers are on their way.
        for _ in 0..60 {
            client.write_all(b"?").unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        read.join().unwrap();
        let [round_trips] = proxy.round_trips()[..] else { panic!("one connection") };
        assert!(round_trips <= 3, "{round_trips}");
    }
}
