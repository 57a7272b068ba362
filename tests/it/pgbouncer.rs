//! The real PgBouncer, mostly in transaction mode, in front of the test server.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Database, Folder, free_port, needs, server_port, unique};

/// Stopped at the end of the test.
pub struct PgBouncer {
    child: Child,
    pub port: u16,
    folder: Folder,
}

impl PgBouncer {
    /// With this many connections to the server for each database.
    pub fn start(pool_size: usize) -> PgBouncer {
        PgBouncer::start_in("transaction", pool_size)
    }

    /// The same, in this mode.
    pub fn start_in(mode: &str, pool_size: usize) -> PgBouncer {
        PgBouncer::with(&format!("pool_mode = {mode}\ndefault_pool_size = {pool_size}"))
    }

    /// Requires TLS, with a self-signed certificate.
    pub fn start_with_tls() -> PgBouncer {
        // Its user may not have access to other folders.
        let folder = std::env::temp_dir().join(unique("tls"));
        std::fs::create_dir(&folder).expect("a folder");
        let [key, cert] = ["key.pem", "cert.pem"].map(|name| folder.join(name));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"])
            .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), cert.as_os_str()])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl").success());
        for path in [&folder, &key] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        let pooler = PgBouncer::with(&format!(
            "pool_mode = transaction\nclient_tls_sslmode = require\nclient_tls_key_file = {}\nclient_tls_cert_file = {}",
            key.display(),
            cert.display()
        ));
        let _ = std::fs::remove_dir_all(folder);
        pooler
    }

    /// With these lines in its configuration.
    pub fn with(settings: &str) -> PgBouncer {
        PgBouncer::before(server_port(), settings)
    }

    /// The same, for the server at this port.
    pub fn before(server: u16, settings: &str) -> PgBouncer {
        needs("PgBouncer");
        let port = free_port();
        let folder = Folder::empty();
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\nmax_client_conn = 500\n{settings}\n"
        );
        folder.write("pgbouncer.ini", ini);
        PgBouncer { child: run(&folder, port), port, folder }
    }

    /// Ends it at once, and starts it again after this time.
    pub fn restart_after(&mut self, time: Duration) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::thread::sleep(time);
        self.child = run(&self.folder, self.port);
    }

    /// The database through this pooler.
    pub fn to(&self, database: &Database) -> Database {
        database.through(self.port)
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Folder, port: u16) -> Child {
    let config = std::fs::File::open(folder.path.join("pgbouncer.ini")).expect("its file");
    let log = std::fs::File::create(folder.path.join("log")).expect("its log");
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("pgbouncer");
    // Through standard input, since its user may not have access to the folder.
    command.env("PATH", path).arg("/dev/stdin").stdin(config).stdout(Stdio::null()).stderr(log);
    let id = Command::new("id").arg("-u").output().expect("id").stdout;
    if id.trim_ascii() == b"0" {
        // PgBouncer refuses to run as root.
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn().expect("pgbouncer, as scripts/setup installs it");
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let status = child.try_wait().expect("its state");
        let log = || std::fs::read_to_string(folder.path.join("log")).unwrap_or_default();
        assert!(status.is_none() && Instant::now() < deadline, "{status:?}: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}
