//! A PostgreSQL server for one test, with or without TLS, with a role for each authentication method.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::authority::Pair;
use crate::harness::{LIMIT, eventually, needs, output_of, output_within, status_of, unique};

const HBA: &str = "\
local     all all                 trust
host      all either          all trust
hostssl   all only_tls        all trust
hostnossl all only_plain      all trust
hostssl   all only_cert       all cert
host      all by_password     all password
host      all by_md5          all md5
host      all by_scram        all scram-sha-256
";

const ROLES: &str = "\
create role either login;
create role only_tls login;
create role only_plain login;
create role only_cert login;
create role by_password login password 'sesame';
create role by_scram login password 'sesame';
set password_encryption = 'md5';
create role by_md5 login password 'sesame';
";

/// Stopped at the end of the test.
pub struct Server {
    /// With the Unix socket.
    pub folder: PathBuf,
    pub port: u16,
}

/// The server does not run as root.
fn as_server(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == 0
    });
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
    command
}

/// A program of the newest installed server.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

fn done(command: &mut Command) {
    let output = output_of(command.current_dir("/"));
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&text));
}

impl Server {
    /// With this certificate, and these authorities for client certificates.
    pub fn start(tls: Option<(&Pair, &str)>) -> Server {
        needs("a server of its own");
        // Not in a folder of ours, which its user may not be able to reach.
        let folder = std::env::temp_dir().join(unique("tls-server"));
        done(as_server(Path::new("mkdir")).arg(&folder));
        let mut server = Server { folder, port: 0 };
        let data = server.folder.join("data");
        let initdb = ["--no-sync", "--auth=trust", "--username=postgres", "--locale=C.UTF-8"];
        done(as_server(&program("initdb")).args(initdb).arg("--pgdata").arg(&data));
        server.write("pg_hba.conf", HBA);
        let mut settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             log_connections = on\n",
            server.folder.display()
        );
        if let Some((pair, authority)) = tls {
            server.write("server.crt", &pair.cert_pem());
            server.write("server.key", &pair.key_pem());
            server.write("clients.crt", authority);
            settings += "ssl = on\nssl_ca_file = 'clients.crt'\n";
        }
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            server.port = free.local_addr().expect("an address").port();
            drop(free);
            server.write("postgresql.conf", &format!("{settings}port = {}\n", server.port));
            let mut start = as_server(&program("pg_ctl"));
            start.args(["start", "--wait", "--silent", "--pgdata"]).arg(&data);
            start.arg("--log").arg(server.folder.join("log")).current_dir("/");
            // The server would inherit the pipes, which then would never close.
            start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if status_of(&mut start).success() {
                server.execute(ROLES);
                return server;
            }
        }
        panic!("the server does not start:\n{}", server.log());
    }

    /// Runs SQL as the superuser.
    pub fn execute(&self, sql: &str) {
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "-U", "postgres"]);
        psql.arg("-h").arg(&self.folder).args(["-p", &self.port.to_string()]);
        done(psql.args(["-d", "postgres", "-c", sql]));
    }

    /// Sets the newest TLS version for new connections.
    pub fn speak_at_most(&self, version: &str) {
        self.execute(&format!("alter system set ssl_max_protocol_version = '{version}'"));
        let data = self.folder.join("data");
        done(as_server(&program("pg_ctl")).args(["reload", "--silent", "--pgdata"]).arg(data));
        let heard = format!("parameter \"ssl_max_protocol_version\" changed to \"{version}\"");
        eventually("the server to have read it", || self.log().contains(&heard));
    }

    /// Replaces the certificate for new connections.
    pub fn present(&self, pair: &Pair) {
        self.write("server.crt", &pair.cert_pem());
        self.write("server.key", &pair.key_pem());
        let mut restart = as_server(&program("pg_ctl"));
        restart.args(["restart", "--wait", "--silent", "--mode", "immediate", "--pgdata"]);
        restart.arg(self.folder.join("data")).arg("--log").arg(self.folder.join("log"));
        restart.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(status_of(&mut restart).success(), "{}", self.log());
    }

    /// Writes a file in the data directory, as the server's user.
    fn write(&self, name: &str, content: &str) {
        let path = self.folder.join("data").join(name);
        let mut tee = as_server(Path::new("tee"));
        tee.arg(&path).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut tee = tee.spawn().expect("tee");
        tee.stdin.take().expect("stdin").write_all(content.as_bytes()).expect("its content");
        assert!(output_within(LIMIT, tee).status.success());
        if name.ends_with(".key") {
            done(as_server(Path::new("chmod")).arg("600").arg(&path));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = as_server(&program("pg_ctl"));
        stop.args(["stop", "--silent", "--mode", "immediate", "--pgdata"]);
        stop.arg(self.folder.join("data")).current_dir("/");
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
