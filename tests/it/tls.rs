//! TLS and all methods of authentication: each gives the same result as with libpq.

mod authority;
mod server;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use authority::{Authority, Pair, Wanted, rsa_key, self_signed, write};
use openssl::ssl::{NameType, SslAcceptor, SslMethod};
use server::Server;

use crate::harness::{Folder, Run, bare, output_of, unique};

const HOST: &str = "db.test";
const GOOD: Wanted = Wanted { subject: HOST, names: &[HOST], valid: (-9, 90) };

const TIMEOUT: Duration = Duration::from_secs(20);

/// The result of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Rejected,
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

    /// A connection string with a mark, by which the connection is found in the server's log.
    /// Parameters in `more` replace others.
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
        let mut psql = Command::new("psql");
        psql.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .args(["--no-psqlrc", "--no-password", "--command", "select 1"])
            .arg(self.conninfo(role, more, &mark));
        let output = output_of(&mut psql);
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
            _ => Outcome::Rejected,
        }
    }

    /// Compares the results of both. Where they are expected to differ, they have to.
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
        assert!(
            different.is_none_or(|different| different != theirs),
            "{role} {more}: no difference any more"
        );
        if ours == Outcome::Rejected {
            assert_eq!(run.code, 77, "{role} {more}: {}", run.stderr);
        }
        ours
    }

    /// Every mode, with roles for any connection, only with TLS, only without, and only with a client
    /// certificate.
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
            // The only difference: where the root does not match, libpq falls back to no encryption,
            // or fails. These modes do not require verification, and unverified TLS is no worse than
            // none; a note says that sslrootcert is ignored.
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
fn with_a_valid_certificate_every_mode_works_as_in_libpq() {
    let (_authority, scene) = Scene::good();
    scene.matrix(true);
}

#[test]
fn with_an_expired_certificate_every_mode_works_as_in_libpq() {
    let authority = Authority::new("Tests");
    let scene = Scene::new(&authority, Some(&authority.signs(&Wanted { valid: (-9, -2), ..GOOD })));
    scene.matrix(false);
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77).says(&["the server's certificate expired on ", "renew it on the server"]);
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_rejected_with_its_first_day() {
    let authority = Authority::new("Tests");
    let scene = Scene::new(&authority, Some(&authority.signs(&Wanted { valid: (2, 90), ..GOOD })));
    for mode in ["require", "verify-ca", "verify-full"] {
        let more = format!("sslmode={mode} sslrootcert={}", scene.root.display());
        scene.compare("either", &more, None);
    }
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77)
        .says(&["the server's certificate is not valid yet, only from ", "check the clock"]);
}

#[test]
fn with_a_certificate_for_another_host_every_mode_works_as_in_libpq() {
    let authority = Authority::new("Tests");
    let names = ["other.test", "*.db.test", "10.1.2.3", "fd00::1"];
    let wanted = Wanted { subject: HOST, names: &names, ..GOOD };
    let scene = Scene::new(&authority, Some(&authority.signs(&wanted)));
    scene.matrix(true);
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77).says(&[
        "not valid for db.test, only for other.test, *.db.test, 10.1.2.3, fd00::1",
        "verify-ca",
    ]);
}

/// The name of the host, or its address, in each field of a certificate.
#[test]
fn a_certificate_is_compared_with_the_host_as_libpq_compares_it() {
    let (authority, scene) = Scene::good();
    // The last column: for which hosts we reject what libpq accepts. OpenSSL, like browsers, requires
    // an address to be an address and not a name, and accepts no star for a whole top-level domain or
    // in an address.
    let (name, address) = ("db.test", "127.0.0.1");
    for (subject, names, stricter) in [
        (name, &[][..], &[][..]),
        (address, &[], &[address]),
        ("other", &[address], &[]),
        (address, &["10.0.0.1"], &[]),
        (address, &[name], &[address]),
        (name, &[address], &[]),
        (name, &["other.test"], &[]),
        ("other", &["DNS:127.0.0.1"], &[address]),
        ("other", &["DNS:127.0.0.1", "10.0.0.1"], &[address]),
        ("other", &["*.db.test", "d*.test", "*"], &[]),
        ("other", &["DB.TEST"], &[]),
        ("127.0.0.*", &["DNS:*.0.0.1", "*.test"], &[name, address]),
    ] {
        scene.server.present(&authority.signs(&Wanted { subject, names, ..GOOD }));
        for host in [name, address] {
            let root = scene.root.display();
            let more = format!("host={host} sslmode=verify-full sslrootcert={root}");
            let different = stricter.contains(&host).then_some(Outcome::Rejected);
            scene.compare("either", &more, different);
        }
    }
    scene.server.present(&authority.signs(&Wanted { names: &["DNS:127.0.0.1"], ..GOOD }));
    let more = format!("host={address} sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77).says(&["only for 127.0.0.1 (as a name, not as an address)"]);
}

#[test]
fn with_an_unknown_authority_every_mode_works_as_in_libpq() {
    let (authority, stranger) = (Authority::new("Tests"), Authority::new("Stranger"));
    let scene = Scene::new(&authority, Some(&stranger.signs(&GOOD)));
    scene.matrix(false);
    let more = format!("sslmode=verify-ca sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    let root = format!("premigrate trusts the roots in {}", scene.root.display());
    run.exits(77).says(&["an untrusted authority CN=Stranger; ", &root]);
}

#[test]
fn with_a_self_signed_certificate_every_mode_works_as_in_libpq() {
    let (authority, pair) = (Authority::new("Tests"), self_signed(&GOOD));
    let scene = Scene::new(&authority, Some(&pair));
    scene.matrix(false);
    let more = format!("sslmode=verify-full sslrootcert={}", scene.root.display());
    let (_, run) = scene.premigrate("either", &more, &[]);
    run.exits(77).says(&["the server's certificate CN=db.test is self-signed", "PGSSLROOTCERT"]);
    // With it as the root, the connection succeeds.
    let env = [("PGSSLROOTCERT", &*pair.cert_pem())];
    let (outcome, run) = scene.premigrate("either", "sslmode=verify-full", &env);
    assert_eq!(outcome, Outcome::Encrypted, "{}", run.stderr);
}

#[test]
fn without_tls_every_mode_works_as_in_libpq() {
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
fn every_authentication_method_works_as_in_libpq() {
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
    run.exits(77).says(&["requires a client certificate", "sslcert and sslkey", "PGSSLCERT"]);

    // Keys in formats that native-tls does not read.
    let ec = client.key.ec_key().unwrap().private_key_to_pem().unwrap();
    let der = client.key.private_key_to_der().unwrap();
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let sealed = client.key.private_key_to_pem_pkcs8_passphrase(cipher, b"open").unwrap();
    for (name, text, more) in
        [("ec.key", ec, ""), ("der.key", der, ""), ("sealed.key", sealed, "sslpassword=open")]
    {
        let key = write(&scene.folder, name, text);
        let own = format!("sslcert={} sslkey={} {more}", cert.display(), key.display());
        assert_eq!(scene.compare("only_cert", &own, None), Outcome::Encrypted, "{name}");
    }
    let wanted = Wanted { subject: "only_cert", names: &[], valid: (-9, 90) };
    let rsa = authority.signs_for(rsa_key(), &wanted);
    let pkcs1 = rsa.key.rsa().unwrap().private_key_to_pem().unwrap();
    assert!(pkcs1.starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    let (rsa, pkcs1) =
        (write(&scene.folder, "rsa.crt", rsa.cert_pem()), write(&scene.folder, "rsa.key", pkcs1));
    let own = format!("sslcert={} sslkey={}", rsa.display(), pkcs1.display());
    assert_eq!(scene.compare("only_cert", &own, None), Outcome::Encrypted);

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
fn an_unusable_client_key_is_reported_with_the_reason() {
    let (authority, scene) = Scene::good();
    let wanted = Wanted { subject: "only_cert", names: &[], valid: (-9, 90) };
    let client = authority.signs(&wanted);
    let weak = openssl::rsa::Rsa::generate(1024).unwrap();
    let weak = authority.signs_for(openssl::pkey::PKey::from_rsa(weak).unwrap(), &wanted);
    let another = authority::ec_key().private_key_to_pem_pkcs8().unwrap();
    let cert = write(&scene.folder, "client.crt", client.cert_pem());
    let key = write(&scene.folder, "another.key", another);
    let own = format!("sslmode=require sslcert={} sslkey={}", cert.display(), key.display());
    let (_, run) = scene.premigrate("only_cert", &own, &[]);
    let words = format!("sslkey ({}) does not belong to the certificate", key.display());
    run.exits(78).says(&[&words]);

    let cert = write(&scene.folder, "weak.crt", weak.cert_pem());
    let key = write(&scene.folder, "weak.key", weak.key_pem());
    let own = format!("sslmode=require sslcert={} sslkey={}", cert.display(), key.display());
    let (_, run) = scene.premigrate("only_cert", &own, &[]);
    let words = format!("sslcert ({}) is not accepted (", cert.display());
    run.exits(78).says(&[&words, "key too small"]).does_not_say("does not belong");
}

/// Under TLS 1.3 the server's alert comes after the handshake, under 1.2 within it.
#[test]
fn a_client_certificate_that_the_server_rejects_ends_as_in_libpq() {
    let (authority, scene) = Scene::good();
    let wanted = Wanted { subject: "only_cert", names: &[], valid: (-9, 90) };
    let expired = authority.signs(&Wanted { valid: (-9, -2), ..wanted });
    let stranger = Authority::new("Stranger").signs(&wanted);
    let given = [(expired, "expired"), (stranger, "unknown ca")].map(|(client, words)| {
        let cert = write(&scene.folder, &format!("{words}.crt"), client.cert_pem());
        let key = write(&scene.folder, &format!("{words}.key"), client.key_pem());
        (format!("sslcert='{}' sslkey='{}'", cert.display(), key.display()), words)
    });
    for version in ["TLSv1.3", "TLSv1.2"] {
        scene.server.speak_at_most(version);
        for (own, words) in &given {
            for role in ["either", "only_tls", "only_cert"] {
                for mode in ["prefer", "require"] {
                    scene.compare(role, &format!("{own} sslmode={mode}"), None);
                }
            }
            let (_, run) = scene.premigrate("only_cert", &format!("{own} sslmode=require"), &[]);
            let sentence = "the server rejected the client certificate in sslcert (";
            run.exits(77).says(&[sentence, words]);
        }
    }
}

#[test]
fn a_unix_socket_is_never_encrypted_as_in_libpq() {
    let (_authority, scene) = Scene::good();
    let socket = scene.server.folder.display();
    for mode in ["prefer", "require", "verify-full"] {
        let more = format!("host={socket} hostaddr='' sslmode={mode}");
        assert_eq!(scene.compare("only_tls", &more, None), Outcome::Plain, "{mode}");
    }
}

/// Server name indication.
#[test]
fn the_host_name_is_sent_and_an_address_is_not_as_in_libpq() {
    let pair = self_signed(&GOOD);
    let (sender, names) = std::sync::mpsc::channel();
    let port = crate::waiting::server(move |mut client, _| {
        let mut request = [0; 8];
        client.read_exact(&mut request).unwrap();
        client.write_all(b"S").unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        acceptor.set_certificate(&pair.cert).unwrap();
        acceptor.set_private_key(&pair.key).unwrap();
        let sender = sender.clone();
        acceptor.set_servername_callback(move |ssl, _| {
            sender.send(ssl.servername(NameType::HOST_NAME).map(str::to_owned)).unwrap();
            Ok(())
        });
        let _ = acceptor.build().accept(client);
    });
    let folder = Folder::drizzle0(&[]);
    for (host, name) in [("db.test", Some("db.test")), ("127.0.0.1", None), ("::1", None)] {
        let url = format!("host={host} hostaddr=127.0.0.1 port={port} user=u sslmode=require");
        let run = bare().env("DATABASE_URL", &url).args(&["status", "--wait", "0", "--dir"]);
        run.arg(&folder.path).run();
        assert_eq!(names.recv_timeout(TIMEOUT).unwrap().as_deref(), name, "{host}: ours");
        let mut libpq = Command::new("psql");
        libpq.args(["--no-psqlrc", "--no-password", "--command", "select 1", &url]);
        output_of(&mut libpq);
        assert_eq!(names.recv_timeout(TIMEOUT).unwrap().as_deref(), name, "{host}: libpq");
    }
}

#[test]
fn roots_that_are_given_are_used_and_must_exist() {
    let (_authority, scene) = Scene::good();
    let root = scene.root.display().to_string();
    let system = "sslmode=verify-full sslrootcert=system";
    let (outcome, run) = scene.premigrate("either", system, &[("SSL_CERT_FILE", &root)]);
    assert_eq!(outcome, Outcome::Encrypted, "{}", run.stderr);
    let (_, run) = scene.premigrate("either", system, &[]);
    run.exits(77).says(&["an untrusted authority CN=Tests; premigrate trusts "]);
    let (_, run) = scene.premigrate("either", system, &[("SSL_CERT_FILE", "/no/such")]);
    run.exits(78).says(&["SSL_CERT_FILE (/no/such) does not exist"]);
    let (folder, hashed) = (scene.folder.path.display(), scene.folder.path.join("hashed"));
    std::fs::create_dir(&hashed).unwrap();
    let name = output_of(Command::new("openssl").args(["x509", "-noout", "-hash", "-in", &root]));
    let name = String::from_utf8(name.stdout).unwrap();
    std::fs::copy(&root, hashed.join(format!("{}.0", name.trim()))).unwrap();
    for folders in [format!("{folder}/hashed"), format!("/no/such:{folder}/hashed")] {
        let (outcome, run) = scene.premigrate("either", system, &[("SSL_CERT_DIR", &folders)]);
        assert_eq!(outcome, Outcome::Encrypted, "{}", run.stderr);
    }
    let (_, run) = scene.premigrate("either", system, &[("SSL_CERT_DIR", "/no/such:/nor/this")]);
    run.exits(78).says(&["SSL_CERT_DIR (/no/such:/nor/this) does not exist"]);
    let missing = "sslmode=verify-ca sslrootcert=/no/such";
    let (_, run) = scene.premigrate("either", missing, &[]);
    run.exits(78).says(&["sslrootcert (/no/such) could not be read"]);
}

/// Even if the system trusts others.
#[test]
fn roots_that_are_given_are_the_only_ones() {
    let (_authority, scene) = Scene::good();
    let (trusted, stranger) = (scene.root.display().to_string(), Authority::new("Stranger").pem());
    let other = write(&scene.folder, "other.crt", &stranger).display().to_string();
    for mode in ["require", "verify-ca", "verify-full"] {
        for named in [&other, &stranger] {
            let env = [("SSL_CERT_FILE", &*trusted), ("PGSSLROOTCERT", named)];
            let (_, run) = scene.premigrate("either", &format!("sslmode={mode}"), &env);
            run.exits(77).says(&["an untrusted authority CN=Tests; premigrate trusts the roots "]);
        }
    }
    // Without it, the connection succeeds.
    let env = [("SSL_CERT_FILE", &*trusted)];
    let (outcome, run) = scene.premigrate("either", "sslmode=verify-full", &env);
    assert_eq!(outcome, Outcome::Encrypted, "{}", run.stderr);
}

#[test]
fn libpqs_default_files_are_used() {
    let (authority, scene) = Scene::good();
    let client = authority.signs(&Wanted { subject: "only_cert", names: &[], valid: (-9, 90) });
    let home = scene.folder.path.display().to_string();
    let put = |name: &str, text: String| write(&scene.folder, &format!(".postgresql/{name}"), text);
    put("postgresql.crt", client.cert_pem());
    put("postgresql.key", client.key_pem());
    let env = [("HOME", home.as_str())];
    for (root, is_trusted) in [(authority.pem(), true), (Authority::new("Stranger").pem(), false)] {
        put("root.crt", root);
        for mode in ["require", "verify-ca", "verify-full"] {
            let more = format!("sslmode={mode}");
            let (ours, run) = scene.premigrate("only_cert", &more, &env);
            let (theirs, words) = scene.libpq("only_cert", &more, &env);
            assert_eq!(ours, theirs, "{mode}\nlibpq: {words}\nours: {}", run.stderr);
            assert_eq!(ours == Outcome::Encrypted, is_trusted, "{mode}: {}", run.stderr);
        }
    }
}
