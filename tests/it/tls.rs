//! TLS, and every way to log in: what comes of each is what comes of it with libpq, run beside it.

mod authority;
mod server;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use authority::{Authority, Pair, Wanted, self_signed, write};
use server::Server;

use crate::harness::{Folder, Run, bare, unique};

const HOST: &str = "db.test";
const GOOD: Wanted = Wanted { subject: HOST, names: &[HOST], valid: (-9, 90) };

/// What came of an attempt to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused,
    Plain,
    Encrypted,
}

/// A server, the authority that the tests trust, and a folder for files.
struct Scene {
    server: Server,
    folder: Folder,
    root: PathBuf,
}

impl Scene {
    fn new(authority: &Authority, pair: Option<&Pair>) -> Scene {
        let folder = Folder::drizzle0(&[]);
        let root = write(&folder, "root.crt", authority.pem());
        let clients = authority.pem();
        Scene { server: Server::start(pair.map(|pair| (pair, clients.as_str()))), folder, root }
    }

    fn good() -> (Authority, Scene) {
        let authority = Authority::new("Tests");
        let pair = authority.signs(&GOOD);
        let scene = Scene::new(&authority, Some(&pair));
        (authority, scene)
    }

    /// A key=value connection string, with a mark to find it by in the server's log.
    fn conninfo(&self, role: &str, more: &str, mark: &str) -> String {
        format!(
            "host={HOST} hostaddr=127.0.0.1 port={} dbname=postgres user={role} \
             application_name={mark} {more}",
            self.server.port
        )
    }

    fn premigrate(&self, role: &str, more: &str, env: &[(&str, &str)]) -> (Outcome, Run) {
        let mark = unique("ours");
        let mut run = bare().env("DATABASE_URL", self.conninfo(role, more, &mark));
        for (name, value) in env {
            run = run.env(name, value);
        }
        let run = run.args(&["status", "--wait", "0", "--dir"]).arg(&self.folder.path).run();
        (self.outcome(run.code == 0, &mark), run)
    }

    fn libpq(&self, role: &str, more: &str, env: &[(&str, &str)]) -> (Outcome, String) {
        let mark = unique("libpq");
        let output = Command::new("psql")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .args(["--no-psqlrc", "--no-password", "--command", "select 1"])
            .arg(self.conninfo(role, more, &mark))
            .stdin(Stdio::null())
            .output()
            .expect("psql");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (self.outcome(output.status.success(), &mark), words)
    }

    fn outcome(&self, success: bool, mark: &str) -> Outcome {
        let (log, mark) = (self.server.log(), format!("application_name={mark}"));
        let authorized =
            |line: &&str| line.contains("connection authorized") && line.contains(&mark);
        match log.lines().rfind(authorized) {
            Some(line) if success && line.contains("SSL enabled") => Outcome::Encrypted,
            Some(_) if success => Outcome::Plain,
            _ => Outcome::Refused,
        }
    }

    /// Both, side by side; a difference has to be expected, and then has to be there.
    #[track_caller]
    fn compare(&self, role: &str, more: &str, different: Option<Outcome>) -> Outcome {
        let (ours, run) = self.premigrate(role, more, &[]);
        let (theirs, words) = self.libpq(role, more, &[]);
        let expected = different.unwrap_or(theirs);
        assert_eq!(
            ours, expected,
            "{role} {more}\nlibpq: {theirs:?} {words}\nours: {}",
            run.stderr
        );
        assert!(different.is_none_or(|it| it != theirs), "{role} {more}: no difference any more");
        if ours == Outcome::Refused {
            assert_eq!(run.code, 77, "{role} {more}: {}", run.stderr);
        }
        ours
    }

    /// Every mode, on a server that takes both, TLS only, plain only, client certificates only.
    #[track_caller]
    fn matrix(&self, is_trusted: bool) {
        let root = self.root.display();
        for role in ["either", "only_tls", "only_plain", "only_cert"] {
            for mode in ["disable", "allow", "prefer", "require"] {
                self.compare(role, &format!("sslmode={mode}"), None);
            }
            for mode in ["disable", "require", "verify-ca", "verify-full"] {
                self.compare(role, &format!("sslmode={mode} sslrootcert={root}"), None);
            }
            // The one difference. Where the root file does not fit, libpq gives up encryption,
            // or the connection; TLS that nobody verified, which is what these modes ask for, is
            // no worse than none, and sslrootcert is said to be of no use with them.
            let different = match role {
                "either" | "only_tls" if !is_trusted => Some(Outcome::Encrypted),
                _ => None,
            };
            let prefer = format!("sslmode=prefer sslrootcert={root}");
            self.compare(role, &prefer, different);
            let allow = format!("sslmode=allow sslrootcert={root}");
            let different = different.filter(|_| role == "only_tls");
            self.compare(role, &allow, different);
        }
    }
}

#[test]
fn with_a_good_certificate_every_mode_ends_as_with_libpq() {
    let (_authority, scene) = Scene::good();
    scene.matrix(true);
}

#[test]
fn with_an_expired_certificate_every_mode_ends_as_with_libpq() {
    let authority = Authority::new("Tests");
    let scene = Scene::new(&authority, Some(&authority.signs(&Wanted { valid: (-9, -2), ..GOOD })));
    scene.matrix(false);
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77).says(&["the server's certificate has expired, on ", "renewed"]);
}

#[test]
fn with_a_certificate_for_another_host_every_mode_ends_as_with_libpq() {
    let authority = Authority::new("Tests");
    let names = ["other.test", "*.db.test", "10.1.2.3", "fd00::1"];
    let wanted = Wanted { subject: HOST, names: &names, ..GOOD };
    let scene = Scene::new(&authority, Some(&authority.signs(&wanted)));
    scene.matrix(true);
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77)
        .says(&["not for db.test, but for other.test, *.db.test, 10.1.2.3, fd00::1", "verify-ca"]);
}

#[test]
fn with_an_unknown_authority_every_mode_ends_as_with_libpq() {
    let (authority, stranger) = (Authority::new("Tests"), Authority::new("Stranger"));
    let scene = Scene::new(&authority, Some(&stranger.signs(&GOOD)));
    scene.matrix(false);
    let more = format!("sslmode=verify-ca sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    let root = format!("trusted are the roots in {}", scene.root.display());
    run.exits(77).says(&["an authority CN=Stranger that is not trusted here", &root]);
}

#[test]
fn with_a_self_signed_certificate_every_mode_ends_as_with_libpq() {
    let authority = Authority::new("Tests");
    let scene = Scene::new(&authority, Some(&self_signed(&GOOD)));
    scene.matrix(false);
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77).says(&["the server's certificate CN=db.test is self-signed", "PGSSLROOTCERT"]);
}

#[test]
fn without_tls_every_mode_ends_as_with_libpq() {
    let scene = Scene::new(&Authority::new("Tests"), None);
    for role in ["either", "only_tls", "only_plain"] {
        for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
            let root = scene.root.display();
            scene.compare(role, &format!("sslmode={mode} sslrootcert={root}"), None);
        }
    }
    let (_, run) = scene.premigrate("either", "sslmode=require", &[]);
    run.exits(77).says(&["the server does not support TLS"]);
}

#[test]
fn every_way_to_log_in_ends_as_with_libpq() {
    let (authority, scene) = Scene::good();
    let client = authority.signs(&Wanted { subject: "only_cert", names: &[], valid: (-9, 90) });
    let (cert, key) = (
        write(&scene.folder, "client.crt", client.cert_pem()),
        write(&scene.folder, "client.key", client.key_pem()),
    );
    let sesame = "password=sesame";
    for role in ["either", "by_password", "by_md5", "by_scram"] {
        for sslmode in ["disable", "require"] {
            for binding in ["disable", "prefer", "require"] {
                for password in [sesame, "password=wrong"] {
                    let more = format!("sslmode={sslmode} channel_binding={binding} {password}");
                    let outcome = scene.compare(role, &more, None);
                    if binding == "require" && role == "by_scram" && password == sesame {
                        assert_eq!(outcome == Outcome::Encrypted, sslmode == "require", "{more}");
                    }
                }
            }
        }
    }
    let own = format!("sslcert={} sslkey={}", cert.display(), key.display());
    assert_eq!(scene.compare("only_cert", &own, None), Outcome::Encrypted);
    let (_, run) = scene.premigrate("only_cert", "sslmode=require", &[]);
    run.exits(77).says(&["wants a client certificate", "sslcert and sslkey", "PGSSLCERT"]);

    // Keys that native-tls does not read by itself.
    let ec = client.key.ec_key().unwrap().private_key_to_pem().unwrap();
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let sealed = client.key.private_key_to_pem_pkcs8_passphrase(cipher, b"open").unwrap();
    for (name, text, more) in [("ec.key", ec, ""), ("sealed.key", sealed, "sslpassword=open")] {
        let key = write(&scene.folder, name, text);
        let own = format!("sslcert={} sslkey={} {more}", cert.display(), key.display());
        assert_eq!(scene.compare("only_cert", &own, None), Outcome::Encrypted, "{name}");
    }
    let sealed = scene.folder.path.join("sealed.key");
    let own = format!("sslmode=require sslcert={} sslkey={}", cert.display(), sealed.display());
    let (_, run) = scene.premigrate("only_cert", &own, &[]);
    run.exits(78).says(&["sslkey", "sealed.key", "passphrase"]).does_not_say("BEGIN");

    // The same without files.
    let (cert, key, root) = (client.cert_pem(), client.key_pem(), authority.pem());
    let env = [("PGSSLCERT", &*cert), ("PGSSLKEY", &*key), ("PGSSLROOTCERT", &*root)];
    let (outcome, run) = scene.premigrate("only_cert", "sslmode=verify-full", &env);
    assert_eq!(outcome, Outcome::Encrypted, "{}", run.stderr);
}

#[test]
fn roots_that_are_named_are_used_and_must_be_there() {
    let (_authority, scene) = Scene::good();
    let root = scene.root.display().to_string();
    let system = "sslmode=verify-full sslrootcert=system";
    let (outcome, run) = scene.premigrate("either", system, &[("SSL_CERT_FILE", &root)]);
    assert_eq!(outcome, Outcome::Encrypted, "{}", run.stderr);
    let (_, run) = scene.premigrate("either", system, &[]);
    run.exits(77).says(&["an authority CN=Tests that is not trusted here; trusted are "]);
    let (_, run) = scene.premigrate("either", system, &[("SSL_CERT_FILE", "/no/such")]);
    run.exits(78).says(&["SSL_CERT_FILE (/no/such) is not there"]);
    let missing = "sslmode=verify-ca sslrootcert=/no/such";
    let (_, run) = scene.premigrate("either", missing, &[]);
    run.exits(78).says(&["sslrootcert (/no/such) cannot be read"]);
}
