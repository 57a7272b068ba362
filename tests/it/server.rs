//! A PostgreSQL server of a test's own: where the shared one cannot be stopped, copied or limited.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Database, needs, status_of, unique, with_database};

/// Stopped and removed at the end of the test.
pub struct Server {
    folder: PathBuf,
    pub port: u16,
}

impl Server {
    /// A new one, with these lines in its configuration.
    pub fn start(settings: &str) -> Server {
        let server = Server::place();
        server.run("initdb", &["-D", "data", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8"]);
        server.configure(settings);
        server.up();
        server
    }

    /// A standby that follows this one.
    pub fn standby(&self) -> Server {
        let server = Server::place();
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        server
            .run("pg_basebackup", &["-D", "data", "-R", "-X", "stream", "-c", "fast", "-d", &url]);
        server.configure("");
        server.up();
        server
    }

    fn place() -> Server {
        needs("a server of its own");
        // Not in a folder of ours, which its user may not be able to reach.
        let folder = std::env::temp_dir().join(unique("server"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("its mode");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        Server { folder, port }
    }

    fn configure(&self, settings: &str) {
        let path = self.folder.join("data/postgresql.auto.conf");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let ours = format!(
            "{old}\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
             fsync = off\n{settings}\n",
            self.port
        );
        std::fs::write(path, ours).expect("its configuration");
    }

    /// Starts it again.
    pub fn up(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-t", "60", "-l", "log", "start"]);
    }

    /// Stops it at once, as a crash does.
    pub fn down(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-m", "immediate", "stop"]);
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "promote"]);
    }

    /// Its database, which all tests on it share.
    pub fn database(&self) -> Database {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        Database { name: "postgres".to_owned(), url: with_database(&url, "postgres") }
    }

    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new("setpriv");
        // It refuses to run as root.
        let id = Command::new("id").arg("-u").output().expect("id").stdout;
        if id.trim_ascii() == b"0" {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("output"))
            .expect("a log");
        command
            .arg(bin().join(program))
            .args(args)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let status = status_of(&mut command);
        let output = || std::fs::read_to_string(self.folder.join("output")).unwrap_or_default();
        assert!(status.success(), "{program} {args:?}: {}", output());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.folder.join("data/postmaster.pid").exists() {
            self.down();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Where the newest server's programs are; Debian keeps them out of PATH.
fn bin() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let bin = entry.path().join("bin");
        if let Some(version) = version.filter(|_| bin.join("initdb").exists()) {
            found.push((version, bin));
        }
    }
    found.into_iter().max().map_or_else(|| Path::new("").to_owned(), |(_, bin)| bin)
}
