//! A PostgreSQL server of a test's own: where the shared one cannot be stopped, copied or limited.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Database, eventually, free_port, needs, status_of, unique, with_database};

/// Stopped and removed at the end of the test.
pub struct Server {
    folder: PathBuf,
    pub port: u16,
    has_disk: bool,
}

impl Server {
    /// A new one, with these lines in its configuration.
    pub fn start(settings: &str) -> Server {
        Server::place().begin(settings)
    }

    /// The same, with its data on a disk of its own of this size. Where this user may not mount one, it
    /// has none.
    pub fn start_on_disk(megabytes: usize, settings: &str) -> Server {
        let mut server = Server::place();
        std::fs::create_dir(server.data()).expect("a folder");
        let owner = if is_root() { "uid=postgres,gid=postgres," } else { "" };
        let options = format!("{owner}mode=0700,size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tests"]).arg(server.data());
        server.has_disk = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        server.begin(settings)
    }

    fn begin(self, settings: &str) -> Server {
        self.run(
            "initdb",
            &["-D", "data", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--wal-segsize=4"],
        );
        self.configure(settings);
        self.up();
        self
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
        Server { folder, port: free_port(), has_disk: false }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn configure(&self, settings: &str) {
        let path = self.data().join("postgresql.auto.conf");
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
        if self.is_down() {
            // A process that nobody has waited for would count as a server that runs.
            let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        }
        self.run("pg_ctl", &["-D", "data", "-w", "-t", "60", "-l", "log", "start"]);
    }

    /// Stops it at once, as a crash does.
    pub fn down(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "-m", "immediate", "stop"]);
    }

    /// Kills its first process, and waits until the others have noticed.
    pub fn kill(&self) {
        let pid = self.first_process().expect("a server that runs");
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        kill(pid, Signal::SIGKILL).expect("a signal to it");
        for child in children.unwrap_or_default().split_whitespace() {
            let child = child.parse().expect("a number");
            eventually("the end of the server's processes", || is_gone(child));
        }
    }

    fn first_process(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.parse().ok()?;
        (!is_gone(pid)).then_some(Pid::from_raw(pid))
    }

    /// Whether it has ended, by itself for instance.
    pub fn is_down(&self) -> bool {
        self.first_process().is_none()
    }

    pub fn has_disk(&self) -> bool {
        self.has_disk
    }

    /// Leaves so many kilobytes of its disk, until `empty_disk`.
    pub fn fill_disk(&self, kilobytes: u64) {
        assert!(self.has_disk, "this would fill the disk of the machine");
        let file = std::fs::File::create(self.data().join(BALLAST)).expect("a file");
        let disk = rustix::fs::fstatvfs(&file).expect("its disk");
        let free = disk.f_bavail * disk.f_frsize;
        let length = free.saturating_sub(kilobytes * 1024).max(1);
        let mode = rustix::fs::FallocateFlags::empty();
        // Somebody else may have taken of what was free.
        let _ = rustix::fs::fallocate(&file, mode, 0, length);
    }

    pub fn empty_disk(&self) {
        let _ = std::fs::remove_file(self.data().join(BALLAST));
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.run("pg_ctl", &["-D", "data", "-w", "promote"]);
    }

    /// Its database, which all tests on it share.
    pub fn database(&self) -> Database {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        Database::named("postgres", with_database(&url, "postgres"))
    }

    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new("setpriv");
        if is_root() {
            // It refuses to run as root.
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
        let text = |file| std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let (output, log) = (|| text("output"), || text("log"));
        assert!(status.success(), "{program} {args:?}: {}\n{}", output(), log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_down() {
            self.down();
        }
        if self.has_disk {
            let _ = Command::new("umount").arg("--lazy").arg(self.data()).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program of the server's version.
pub fn program(name: &str) -> Command {
    Command::new(bin().join(name))
}

/// What fills a disk.
const BALLAST: &str = "ballast";

fn is_gone(pid: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.map_or(true, |state| state.contains(") Z "))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Where the server's programs are: those of scripts/with-postgres, or the newest ones, which Debian keeps
/// out of PATH.
fn bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("POSTGRES_BIN") {
        return bin.into();
    }
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
