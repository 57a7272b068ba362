//! What every test needs: a fresh database, a migrations folder, and the real executable.

use std::ffi::OsStr;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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

/// A database of a test's own. It is left behind: dropping takes a second, the server is thrown
/// away.
pub struct Database {
    pub name: String,
    pub url: String,
}

impl Database {
    pub fn fresh() -> Database {
        let name = unique("it");
        let mut client = Client::connect(&server(), NoTls).expect("the test server answers");
        client.batch_execute(&format!("create database {name}")).expect("create database");
        let url = with_database(&server(), &name);
        Database { name, url }
    }

    /// The same database, past every proxy and pooler, as the superuser.
    pub fn direct(&self) -> Database {
        Database { name: self.name.clone(), url: with_database(&server(), &self.name) }
    }

    /// The same database by another port, of a proxy or a pooler.
    pub fn through(&self, port: u16) -> Database {
        let (server, rest) = self.url.rsplit_once('/').expect("a name");
        let (host, _) = server.rsplit_once(':').expect("a port");
        Database { name: self.name.clone(), url: format!("{host}:{port}/{rest}") }
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
    pub fn wait_for(&self, what: &str, sql: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.rows(sql).is_empty() {
            assert!(Instant::now() < deadline, "waited 20 s for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
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

/// Runs the executable without anything.
pub fn bare() -> Premigrate {
    let mut command = Command::new(env!("CARGO_BIN_EXE_premigrate"));
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
    started: Instant,
}

impl Running {
    /// Starts something, and keeps what it prints.
    pub fn start(mut command: Command) -> Running {
        let started = Instant::now();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("the executable starts"), started }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let killed = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(killed.expect("kill").success());
    }

    /// Waits for its end, and reads what it printed.
    pub fn finish(self) -> Run {
        use std::os::unix::process::ExitStatusExt;
        let output = self.child.wait_with_output().expect("its output");
        let status = output.status;
        Run {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(999)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: self.started.elapsed(),
        }
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
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "waited 20 s for {what}");
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
