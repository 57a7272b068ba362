//! The listener: one thread, which answers all clients at once.
//!
//! A client can hold nothing up. Each has a few seconds and a few kilobytes, and where too many are
//! connected, the one that came first is sent away.
//!
//! The side that closes a connection first keeps its port in TIME_WAIT, and then an app gets the port only
//! with SO_REUSEADDR. So clients close first, as they do; what is open at the end is reset.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot::{self, Sender};
use tokio::task::{self, AbortHandle};
use tokio::time::{sleep, timeout};

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
/// The pause after a connection could not be accepted, since no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 128;
const THREAD_STACK: usize = 256 << 10;

/// A listener that tells what the run is doing.
pub struct Health {
    state: Arc<Mutex<State>>,
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Health {
    pub fn listen(address: HealthAddress) -> io::Result<Health> {
        let listener = bind(address)?;
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let state = Arc::new(Mutex::new(State::new(Instant::now())));
        let (end, ended) = oneshot::channel();
        let shared = state.clone();
        let serve = move || {
            // Signals are for the thread that migrates.
            let _ = SigSet::all().thread_block();
            runtime.spawn(accept(listener, shared));
            // Then the runtime is dropped, and with it the listener and all connections.
            let _ = runtime.block_on(ended);
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

fn bind(address: HealthAddress) -> io::Result<StdListener> {
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

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut clients: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                clients.retain(|client| !client.is_finished());
                if clients.len() >= MAX_CLIENTS
                    && let Some(first) = clients.pop_front()
                {
                    first.abort();
                }
                clients.push_back(task::spawn(serve(stream, state.clone())).abort_handle());
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
        // Lets those go first that are connected.
        task::yield_now().await;
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    // Until it is closed as it should be: then nothing of it lives on in the kernel.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    let _ = timeout(CLIENT_TIMEOUT, exchange(&mut stream, &state)).await;
}

/// Reads one request, answers it, and waits for the client to close.
async fn exchange(stream: &mut TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut request = Vec::new();
    let answer = loop {
        if stream.take(MAX_REQUEST as u64 - request.len() as u64).read_buf(&mut request).await? == 0
        {
            return Ok(());
        }
        if let Some(received) = page::received(&request) {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            break page::answer(received, &state, Instant::now());
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    if timeout(CLOSE_TIMEOUT, read_to_end(stream)).await.is_err() {
        stream.shutdown().await?;
        read_to_end(stream).await?;
    }
    SockRef::from(&*stream).set_linger(None)
}

/// Passes over what else the client sends: closing a connection with unread data loses the answer.
async fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
