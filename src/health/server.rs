//! The listener: one thread, which answers all clients at once.
//!
//! A client can hold nothing up. Each has a few seconds and a few kilobytes, and where too many are
//! connected, the one that came first is sent away. No call waits for one client: `poll` waits for all.
//!
//! The side that closes a connection first keeps its port in TIME_WAIT, and then an app gets the port only
//! with SO_REUSEADDR. So clients close first, as they do; what is open at the end is reset.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use socket2::{Domain, SockRef, Socket, Type};

use crate::apply::event::Event;
use crate::cli::health::HealthAddress;

use super::page::{self, MAX_REQUEST};
use super::state::State;

/// How many clients may be connected at once.
const MAX_CLIENTS: usize = 64;
/// How long a client may be connected.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client that has its answer may take to close the connection. Then we do.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);
/// The pause where the system has no descriptor or memory left for a connection.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 128;
const THREAD_STACK: usize = 256 << 10;

/// A listener that tells what the run is doing.
pub struct Health {
    state: Arc<Mutex<State>>,
    /// Closed to end the thread.
    end: PipeWriter,
    thread: JoinHandle<()>,
}

impl Health {
    pub fn listen(address: HealthAddress) -> io::Result<Health> {
        let listener = bind(address)?;
        listener.set_nonblocking(true)?;
        let state = Arc::new(Mutex::new(State::new(Instant::now())));
        let (ended, end) = io::pipe()?;
        let server = Server { listener, ended, state: state.clone(), clients: VecDeque::new() };
        let serve = move || {
            // Signals are for the thread that migrates.
            let _ = SigSet::all().thread_block();
            server.run();
        };
        let thread = thread::Builder::new().stack_size(THREAD_STACK).spawn(serve)?;
        Ok(Health { state, end, thread })
    }

    /// Takes in what has happened.
    pub fn report(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.update(event, Instant::now());
    }

    /// Closes the listener and all connections. The port is free when it returns.
    pub fn close(self) {
        drop(self.end);
        let _ = self.thread.join();
    }
}

fn bind(address: HealthAddress) -> io::Result<TcpListener> {
    match address {
        HealthAddress::One(address) => listen(address),
        HealthAddress::Every(port) => match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
            // Without IPv6.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                listen((Ipv4Addr::UNSPECIFIED, port).into())
            }
            result => result,
        },
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct Server {
    listener: TcpListener,
    /// Readable at the end of the run.
    ended: PipeReader,
    state: Arc<Mutex<State>>,
    clients: VecDeque<Client>,
}

impl Server {
    /// Answers until the run ends. Then the listener and all connections are closed.
    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(_) => {
                    thread::sleep(SHORTAGE_PAUSE);
                    continue;
                }
            };
            if ready.has_ended {
                return;
            }
            let now = Instant::now();
            let mut is_ready = ready.clients.into_iter();
            self.clients.retain_mut(|client| {
                let goes_on = !is_ready.next().unwrap_or_default()
                    || client.proceed(&self.state, now).unwrap_or_else(|error| is_retried(&error));
                goes_on && client.keeps_time(now)
            });
            if ready.has_new {
                self.accept(now);
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&self) -> io::Result<ReadySockets> {
        let own = [self.ended.as_fd(), self.listener.as_fd()];
        let own = own.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        let clients = self
            .clients
            .iter()
            .map(|client| PollFd::new(client.stream.as_fd(), client.waits_for()));
        let mut descriptors: Vec<PollFd<'_>> = own.into_iter().chain(clients).collect();
        let now = Instant::now();
        let next = self.clients.iter().map(|client| client.deadline()).min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            // Rounded up, so as not to wake too early.
            let left = next.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        poll(&mut descriptors, timeout)?;
        let mut ready = descriptors.iter().map(|descriptor| descriptor.any().unwrap_or_default());
        Ok(ReadySockets {
            has_ended: ready.next().unwrap_or_default(),
            has_new: ready.next().unwrap_or_default(),
            clients: ready.collect(),
        })
    }

    /// Takes in those who have connected, at most as many as may be connected at once.
    fn accept(&mut self, now: Instant) {
        for _ in 0..MAX_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if self.clients.len() >= MAX_CLIENTS {
                        self.clients.pop_front();
                    }
                    self.clients.extend(Client::new(stream, now));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It was closed before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    thread::sleep(SHORTAGE_PAUSE);
                    return;
                }
            }
        }
    }
}

/// What can be done.
struct ReadySockets {
    has_ended: bool,
    has_new: bool,
    /// For each client, in order.
    clients: Vec<bool>,
}

/// Whether a call would only have had to wait.
fn is_retried(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

struct Client {
    stream: TcpStream,
    /// When it is sent away.
    until: Instant,
    exchange: Exchange,
}

/// How far a client is: it sends one request, gets the answer, and closes the connection.
enum Exchange {
    /// What it has sent.
    Request(Vec<u8>),
    /// What is still to be sent.
    Answer(Vec<u8>),
    /// It has the answer. `ours` is when we close the connection, unless we have.
    Close { ours: Option<Instant> },
}

impl Client {
    /// `None` if it is gone already.
    fn new(stream: TcpStream, now: Instant) -> Option<Client> {
        stream.set_nonblocking(true).ok()?;
        // Until it is closed as it should be: then nothing of it lives on in the kernel.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
        Some(Client {
            stream,
            until: now + CLIENT_TIMEOUT,
            exchange: Exchange::Request(Vec::new()),
        })
    }

    fn waits_for(&self) -> PollFlags {
        match self.exchange {
            Exchange::Answer(_) => PollFlags::POLLOUT,
            Exchange::Request(_) | Exchange::Close { .. } => PollFlags::POLLIN,
        }
    }

    /// When something is to be done, whatever it does.
    fn deadline(&self) -> Instant {
        match self.exchange {
            Exchange::Close { ours: Some(ours) } => ours.min(self.until),
            _ => self.until,
        }
    }

    /// Does what can be done without waiting. Returns whether the client stays.
    fn proceed(&mut self, state: &Mutex<State>, now: Instant) -> io::Result<bool> {
        let mut part = [0; MAX_REQUEST];
        match &mut self.exchange {
            Exchange::Request(request) => {
                let room = part.len().saturating_sub(request.len());
                let count = self.stream.read(part.get_mut(..room).unwrap_or_default())?;
                request.extend_from_slice(part.get(..count).unwrap_or_default());
                if let Some(received) = page::received(request) {
                    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    let answer = page::answer(received, &state, now);
                    self.exchange = Exchange::Answer(answer.into_bytes());
                }
                Ok(count > 0)
            }
            Exchange::Answer(answer) => {
                let count = self.stream.write(answer)?;
                answer.drain(..count.min(answer.len()));
                if answer.is_empty() {
                    self.exchange = Exchange::Close { ours: Some(now + CLOSE_TIMEOUT) };
                }
                Ok(true)
            }
            // What else it sends is read: closing a connection with unread data loses the answer.
            Exchange::Close { .. } => {
                let has_closed = self.stream.read(&mut part)? == 0;
                if has_closed {
                    SockRef::from(&self.stream).set_linger(None)?;
                }
                Ok(!has_closed)
            }
        }
    }

    /// Closes the connection in time, and returns whether the client may stay.
    fn keeps_time(&mut self, now: Instant) -> bool {
        if let Exchange::Close { ours } = &mut self.exchange
            && ours.is_some_and(|ours| ours <= now)
        {
            *ours = None;
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
        }
        now < self.until
    }
}
