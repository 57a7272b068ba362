//! What every test needs: a fresh database, a migrations folder, and the real executable.

use std::ffi::OsStr;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::{Client, NoTls};

/// The server's URL. Tests fail without one: a green run means that they ran.
pub fn server() -> String {
    std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL names the server to test against: use scripts/with-postgres")
}

/// The URL of another database on a server, or of the same through another port.
pub fn with_database(url: &str, database: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let authority = base.find("://").expect("a URL") + 3;
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{database}{query}", &base[..end])
}

/// The server's port; it listens on 127.0.0.1.
pub fn server_port() -> u16 {
    let url = server();
    let authority = url.split('/').nth(2).expect("a URL");
    authority.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// Whether the server has what this version brought. If not, the test leaves it out, and says so.
#[allow(clippy::print_stdout, reason = "the test shows it if it fails")]
pub fn has_since(version: u32, what: &str) -> bool {
    let mut client = Client::connect(&server(), NoTls).expect("the test server answers");
    let number = rows(&mut client, "show server_version_num").concat();
    let found = number.parse::<u32>().expect("a number") / 10_000;
    if found < version {
        println!("left out: PostgreSQL {found} has no {what}");
    }
    found >= version
}

/// Says that a test needs this besides one PostgreSQL server: `scripts/test --quick` leaves such
/// tests out by their names, and has to know the name.
pub fn needs(what: &str) {
    assert!(
        std::env::var_os("QUICK_TEST").is_none(),
        "this needs {what}: scripts/test --quick has to leave it out by its name"
    );
}

/// The sessions of a database that wait for a lock. Others share the server.
pub const WAITING_FOR_LOCK: &str = "select from pg_stat_activity \
    where datname = current_database() and wait_event_type = 'Lock'";

/// How many bytes a pipe takes before somebody reads: sixteen pages, which only whole pages leave.
pub const PIPE: usize = 16 * PAGE;
pub const PAGE: usize = 4096;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A name that no other test of this run, or of another run on the same server, has.
pub fn unique(prefix: &str) -> String {
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let nanos = std::time::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos();
    format!("{prefix}_{}_{nanos}_{count}", std::process::id())
}

/// A free port, not of those that outgoing connections get: one of these may take it while its server is
/// down.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<usize> = 10_000..20_000;
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    // Each run begins elsewhere.
    static FIRST: LazyLock<usize> = LazyLock::new(|| {
        std::time::UNIX_EPOCH.elapsed().expect("a clock").subsec_micros() as usize
    });
    for _ in PORTS {
        let count = *FIRST + COUNT.fetch_add(1, Ordering::SeqCst);
        let port = PORTS.start + count % PORTS.len();
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// A database of a test's own.
pub struct Database {
    pub name: String,
    pub url: String,
    /// Other values for the same database do not drop it.
    _end: Option<DatabaseEnd>,
}

/// Drops the database when the test is over, so that thousands of them do not fill the disk. Nobody
/// waits for that.
struct DatabaseEnd(String);

impl Drop for DatabaseEnd {
    fn drop(&mut self) {
        static TO_DROP: LazyLock<Mutex<Sender<String>>> = LazyLock::new(|| {
            let (to_drop, names) = channel::<String>();
            thread::spawn(move || {
                for name in names {
                    // A failure leaves one database more.
                    if let Ok(mut client) = Client::connect(&server(), NoTls) {
                        let sql = format!("drop database if exists {name} with (force)");
                        let _ = client.batch_execute(&sql);
                    }
                }
            });
            Mutex::new(to_drop)
        });
        let name = std::mem::take(&mut self.0);
        let _ = TO_DROP.lock().unwrap_or_else(PoisonError::into_inner).send(name);
    }
}

impl Database {
    pub fn fresh() -> Database {
        let name = unique("it");
        let mut client = Client::connect(&server(), NoTls).expect("the test server answers");
        client.batch_execute(&format!("create database {name}")).expect("create database");
        let url = with_database(&server(), &name);
        let end = Some(DatabaseEnd(name.clone()));
        Database { name, url, _end: end }
    }

    /// The same database, past every proxy and pooler, as the superuser.
    pub fn direct(&self) -> Database {
        self.at(with_database(&server(), &self.name))
    }

    /// The same database by another port, of a proxy or a pooler.
    pub fn through(&self, port: u16) -> Database {
        let (server, rest) = self.url.rsplit_once('/').expect("a name");
        let (host, _) = server.rsplit_once(':').expect("a port");
        self.at(format!("{host}:{port}/{rest}"))
    }

    /// The same database by another URL.
    pub fn at(&self, url: String) -> Database {
        Database::named(&self.name, url)
    }

    /// A database that is not dropped by this, if there is one.
    pub fn named(name: &str, url: String) -> Database {
        Database { name: name.to_owned(), url, _end: None }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.url, NoTls).expect("the test database answers")
    }

    pub fn execute(&self, sql: &str) {
        self.client().batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// A session whose transaction has done this, and stays open.
    pub fn holding(&self, sql: &str) -> Client {
        let mut client = self.client();
        let done = client.batch_execute(&format!("begin; {sql}"));
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        client
    }

    /// The rows of queries, each with its columns joined by `|`; NULL is empty.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        rows(&mut self.client(), sql)
    }

    /// The only value of a query's only row.
    pub fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].clone()
    }

    /// A login role of this database's own, without any privilege, and the URL to connect as it.
    pub fn role(&self) -> (String, String) {
        let name = unique("role");
        self.execute(&format!("create role {name} login"));
        let (scheme, rest) = self.url.split_once("://").expect("a URL");
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let url = format!("{scheme}://{name}@{host}");
        (name, url)
    }

    /// The names of the tables in `public`.
    pub fn tables(&self) -> Vec<String> {
        self.rows("select tablename from pg_tables where schemaname = 'public' order by 1")
    }

    /// The hashes of the history, in order.
    pub fn history(&self) -> Vec<String> {
        self.rows("select hash from drizzle.__drizzle_migrations order by id")
    }

    /// Waits until a query gives a row.
    #[track_caller]
    pub fn wait_for(&self, what: &str, sql: &str) {
        eventually(what, || !self.rows(sql).is_empty());
    }

    /// Waits until a query gives no row.
    #[track_caller]
    pub fn wait_for_no(&self, what: &str, sql: &str) {
        eventually(&format!("no {what}"), || self.rows(sql).is_empty());
    }

    /// Sessions of premigrate's on this database, and advisory locks: there must be none after a
    /// run.
    pub fn leftovers(&self) -> Vec<String> {
        let sql = "select 'session ' || pid || ' ' || state || ' ' || query from pg_stat_activity \
             where datname = current_database() and application_name = 'premigrate' \
             union all select 'advisory lock of ' || pid from pg_locks where locktype = 'advisory' \
             and database = (select oid from pg_database where datname = current_database())";
        // The server needs a moment to see a client off.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut client = self.client();
        loop {
            let rows = rows(&mut client, sql);
            if rows.is_empty() || Instant::now() > deadline {
                return rows;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The rows of queries, each with its columns joined by `|`; NULL is empty.
pub fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql);
    messages
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .iter()
        .filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
                    .join("|"),
            ),
            _ => None,
        })
        .collect()
}

/// A folder that is gone when the test is.
pub struct Folder {
    pub path: PathBuf,
    entries: AtomicI64,
}

impl Folder {
    pub fn empty() -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("folder"));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder { path, entries: AtomicI64::new(0) }
    }

    /// In Drizzle 0.x's layout: tags with their SQL, generated a second apart.
    pub fn drizzle0(migrations: &[(&str, &str)]) -> Folder {
        let folder = Folder::empty();
        folder
            .write("meta/_journal.json", r#"{"version":"7","dialect":"postgresql","entries":[]}"#);
        for (tag, sql) in migrations {
            folder.add(tag, sql);
        }
        folder
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    /// Adds a migration as drizzle-kit 0.x would, a second after the last.
    pub fn add(&self, tag: &str, sql: &str) {
        let count = self.entries.load(Ordering::SeqCst);
        self.add_at(tag, sql, 1_700_000_000_000 + count * 1000);
    }

    /// Adds a migration with this time stamp.
    pub fn add_at(&self, tag: &str, sql: &str, when: i64) {
        self.write(&format!("{tag}.sql"), sql);
        let count = self.entries.fetch_add(1, Ordering::SeqCst);
        self.edit_journal(|entries| {
            entries.push(serde_json::json!({
                "idx": count, "version": "7", "when": when, "tag": tag, "breakpoints": true
            }));
        });
    }

    pub fn edit_journal(&self, edit: impl FnOnce(&mut Vec<serde_json::Value>)) {
        let path = self.path.join("meta/_journal.json");
        let text = std::fs::read_to_string(&path).expect("a journal");
        let mut journal: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        edit(journal["entries"].as_array_mut().expect("entries"));
        std::fs::write(path, journal.to_string()).expect("a journal");
    }

    pub fn hash(&self, file: &str) -> String {
        let bytes = std::fs::read(self.path.join(file)).expect("a file");
        premigrate::migrations::migration::Hash::of(&bytes).to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Run {
    pub fn from_output(output: Output, took: Duration) -> Run {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Run {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(999)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took,
        }
    }

    /// Fails the test, with everything that was printed, unless the exit code is this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, code, "\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless stderr says each of these.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Run {
        for word in words {
            assert!(self.stderr.contains(word), "does not say {word:?}:\n{}", self.stderr);
        }
        self
    }

    /// Fails the test if stderr says this.
    #[track_caller]
    pub fn does_not_say(self, word: &str) -> Run {
        assert!(!self.stderr.contains(word), "says {word:?}:\n{}", self.stderr);
        self
    }

    /// The JSON objects on stderr.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let lines = self.stderr.lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

/// The executable, with an environment of its own: nothing but `PATH` is passed on.
pub struct Premigrate {
    pub command: Command,
}

/// Runs the executable on a database and a folder.
pub fn premigrate(database: &Database, folder: &Folder) -> Premigrate {
    bare().env("DATABASE_URL", &database.url).arg("--dir").arg(&folder.path)
}

/// Runs the executable without anything. TEST_EXECUTABLE names another one, such as that for another machine.
pub fn bare() -> Premigrate {
    let ours = || env!("CARGO_BIN_EXE_premigrate").into();
    let mut command = Command::new(std::env::var_os("TEST_EXECUTABLE").unwrap_or_else(ours));
    command.env_clear().stdin(Stdio::null()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    Premigrate { command }
}

impl Premigrate {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Premigrate {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: &[&str]) -> Premigrate {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Premigrate {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, folder: &Path) -> Premigrate {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Run {
        self.start().finish()
    }

    /// Starts it.
    pub fn start(self) -> Running {
        Running::start(self.command)
    }
}

/// A run that goes on.
pub struct Running {
    pub child: Child,
    streams: [Option<Printed>; 2],
    started: Instant,
}

impl Running {
    /// Starts something, and keeps what it prints.
    pub fn start(mut command: Command) -> Running {
        let started = Instant::now();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the executable starts");
        let streams = Printed::of(&mut child);
        Running { child, streams, started }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let killed = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(killed.expect("kill").success());
    }

    /// Waits until it has printed this on stderr.
    #[track_caller]
    pub fn wait_to_say(&self, words: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let stderr = self.streams[1].as_ref().map(Printed::text).unwrap_or_default();
            if stderr.contains(words) {
                return;
            }
            assert!(Instant::now() < until, "does not say {words:?} in {PATIENCE:?}:\n{stderr}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, and reads what it printed.
    #[track_caller]
    pub fn finish(self) -> Run {
        self.finish_within(LIMIT)
    }

    /// The same, where it may well take longer than `LIMIT`, or must not take as long.
    #[track_caller]
    pub fn finish_within(self, limit: Duration) -> Run {
        let started = self.started;
        Run::from_output(self.output_within(limit), started.elapsed())
    }

    /// The same, with the most memory that it took, in bytes. One that takes too much is killed.
    #[track_caller]
    pub fn finish_with_peak(mut self, limit: Duration) -> (Run, usize) {
        let until = Instant::now() + limit;
        let status = format!("/proc/{}/status", self.pid());
        let mut peak = 0;
        while self.child.try_wait().expect("its state").is_none() && Instant::now() < until {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes = kilobytes.and_then(|line| line.trim().strip_suffix(" kB"));
            peak = peak.max(kilobytes.map_or(0, |number| number.parse().expect("a number")) * 1024);
            if peak > FAR_TOO_MUCH {
                kill_with_children(self.pid());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let left = until.saturating_duration_since(Instant::now());
        (self.finish_within(left.max(IN_TIME)), peak)
    }

    /// The same, byte for byte.
    #[track_caller]
    pub fn output_within(self, limit: Duration) -> Output {
        finish(limit, self.child, self.streams)
    }

    /// Sends a signal, which has to end it in time.
    #[track_caller]
    pub fn end_by(self, signal: &str) -> Run {
        self.signal(signal);
        self.finish_within(IN_TIME)
    }
}

/// How long a signal may take to end a run: Docker kills after ten seconds.
pub const IN_TIME: Duration = Duration::from_secs(9);

/// The memory, in bytes, that no run of ours may take, lest the machine have none left.
const FAR_TOO_MUCH: usize = 1 << 30;

/// How long a condition is waited for that is to come soon, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test waits for a program by default. What has to end, and does not, fails the test
/// instead of holding it up for ever.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end, with nothing on its standard input.
#[track_caller]
pub fn output_of(command: &mut Command) -> Output {
    output_of_within(LIMIT, command)
}

/// The same, where it may well take longer.
#[track_caller]
pub fn output_of_within(limit: Duration, command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let program = command.get_program().display();
    output_within(limit, child.unwrap_or_else(|error| panic!("{program} does not start: {error}")))
}

/// Runs a command to its end, with the streams that it was given.
#[track_caller]
pub fn status_of(command: &mut Command) -> ExitStatus {
    let child = command.spawn();
    let program = command.get_program().display();
    let child = child.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    output_within(LIMIT, child).status
}

/// Waits for a program's end, and reads what it prints on the streams that are pipes. If it goes on
/// for longer than this, it is killed with all its children, and the test fails with what it printed.
#[track_caller]
pub fn output_within(limit: Duration, mut child: Child) -> Output {
    let streams = Printed::of(&mut child);
    finish(limit, child, streams)
}

/// The same, for a stream that leads to a pipe of the test's own making; its output is stdout.
#[track_caller]
pub fn read_within(limit: Duration, child: Child, reader: PipeReader) -> Output {
    finish(limit, child, [Some(Printed::read(reader)), None])
}

#[track_caller]
fn finish(limit: Duration, mut child: Child, streams: [Option<Printed>; 2]) -> Output {
    let until = Instant::now() + limit;
    let is_over = streams.iter().flatten().all(|printed| printed.is_complete(until));
    let status = is_over.then(|| ended_until(&mut child, until)).flatten();
    if status.is_none() {
        kill_with_children(child.id());
        let _ = child.wait();
    }
    let [stdout, stderr] = streams.map(|printed| printed.map(Printed::take).unwrap_or_default());
    let Some(status) = status else {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&stdout), text(&stderr));
        panic!("it did not end within {limit:?}\nstdout:\n{stdout}\nstderr:\n{stderr}");
    };
    Output { status, stdout, stderr }
}

/// Waits for a program that is about to end; kills it if it does not.
pub fn kill_and_reap(child: &mut Child) {
    if ended_until(child, Instant::now() + LIMIT).is_none() {
        kill_with_children(child.id());
        let _ = child.wait();
    }
}

/// What a thread has read so far of a stream.
struct Printed {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Disconnected once there is nothing more to read.
    end: Receiver<()>,
}

impl Printed {
    /// Those of a child's streams that are pipes.
    fn of(child: &mut Child) -> [Option<Printed>; 2] {
        [child.stdout.take().map(Printed::read), child.stderr.take().map(Printed::read)]
    }

    fn read(mut stream: impl Read + Send + 'static) -> Printed {
        let (sender, end) = channel();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        thread::spawn(move || {
            let mut chunk = vec![0; PIPE];
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                shared.lock().expect("what was read").extend_from_slice(&chunk[..length]);
            }
            drop(sender);
        });
        Printed { bytes, end }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("what was read")).into_owned()
    }

    fn is_complete(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        self.end.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }

    fn take(self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().expect("what was read"))
    }
}

fn ended_until(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        let status = child.try_wait().expect("its state");
        if status.is_some() || Instant::now() > until {
            return status;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn kill_with_children(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    for child in children.unwrap_or_default().split_whitespace() {
        kill_with_children(child.parse().expect("a number"));
    }
}

#[test]
fn a_program_that_does_not_end_is_killed_and_what_it_printed_is_shown() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo one; echo two >&2; sleep 100 & echo child $!; wait"]);
    let running = Running::start(command);
    let pid = running.pid();
    let limit = Duration::from_secs(2);
    let failure = std::panic::catch_unwind(|| running.finish_within(limit));
    let message = *failure.expect_err("a panic").downcast::<String>().expect("its text");
    let (stdout, stderr) = message.split_once("\nstderr:\n").expect(&message);
    let child = stdout.strip_prefix("it did not end within 2s\nstdout:\none\nchild ");
    assert_eq!(stderr, "two\n");
    for pid in [&pid.to_string(), child.expect(&message).trim()] {
        // A child whose parent is gone is a zombie until somebody asks after it.
        eventually("its end", || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        });
    }
}

/// A pipe in which so many bytes are.
pub fn pipe_with(bytes: usize) -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&vec![b'.'; bytes]).expect("room in the pipe");
    (reader, writer)
}

/// Whether the process waits for room in what it writes to.
pub fn waits_for_room(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split(' ');
    // poll on x86-64, ppoll elsewhere; of one descriptor, as nothing else of ours does.
    let (number, _, count) = (words.next(), words.next(), words.next());
    matches!(number, Some("7" | "73")) && count == Some("0x1")
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same sequence in every run (a linear congruential generator, Knuth's constants).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
