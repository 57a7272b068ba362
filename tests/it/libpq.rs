//! Compares the parsing of connection strings with libpq 17 and 18, from Python wheels that
//! `scripts/setup` puts into `target/tools`. Differences are listed in `libpq.txt`, with the reason.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use premigrate::postgres::conninfo::{
    self, HostName, Keepalives, RootCert, SessionAttrs, SslMode, Target,
};

use crate::harness::{LIMIT, needs, output_within};

struct Case {
    text: String,
    /// The version of libpq that differs, and the reason; an empty version stands for both.
    differs: Option<(String, String)>,
}

fn cases() -> Vec<Case> {
    let mut differs = None;
    let mut cases = Vec::new();
    for line in include_str!("libpq.txt").lines() {
        if let Some(note) = line.strip_prefix('~') {
            let (version, reason) = note.split_once(' ').expect("a reason");
            differs = Some((version.to_owned(), reason.to_owned()));
        } else if !line.is_empty() && !line.starts_with('#') {
            let text = match line.starts_with('"') {
                true => serde_json::from_str(line).expect("JSON"),
                false => line.to_owned(),
            };
            cases.push(Case { text, differs: differs.take() });
        }
    }
    cases
}

type Params = BTreeMap<String, String>;

fn libpq(version: &str, cases: &[Case]) -> Vec<Option<Params>> {
    needs("Python's libpq");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join(format!("target/tools/libpq{version}/bin/python"));
    let script = here.join("tests/it/libpq.py");
    let mut child = Command::new(&python)
        .args([script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup python", python.display()));
    let questions: String =
        cases.iter().map(|case| serde_json::json!(case.text).to_string() + "\n").collect();
    child.stdin.take().unwrap().write_all(questions.as_bytes()).unwrap();
    let output = output_within(LIMIT, child);
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    let mut answers = answers.lines();
    let head: Params = serde_json::from_str(answers.next().unwrap()).unwrap();
    assert_eq!(head["version"], version);
    answers.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The defaults, so that neither asks the system for the user.
fn env(name: &str) -> Option<String> {
    match name {
        "PGHOST" => Some("envhost".to_owned()),
        "PGUSER" => Some("envuser".to_owned()),
        _ => None,
    }
}

/// What libpq's parameters resolve to: by its documented defaults, or by ours where it has none that
/// a container could use.
fn resolved_by_libpq(params: &Params) -> Vec<String> {
    let get = |key: &str| params.get(key).filter(|value| !value.is_empty()).cloned();
    let list = |key| -> Vec<String> {
        let text: Option<String> = get(key);
        text.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (mut names, addrs, ports) = (list("host"), list("hostaddr"), list("port"));
    if names.is_empty() && addrs.is_empty() {
        names.push("envhost".to_owned());
    } else if names.is_empty() && !addrs.is_empty() {
        // By the address alone: PGHOST would only name it for the certificate.
        names = vec!["envhost".to_owned(); addrs.len()];
    }
    let nth = |list: &[String], at: usize| list.get(at).cloned().unwrap_or_default();
    let hosts: Vec<_> = (0..names.len())
        .map(|at| {
            let port = if ports.len() == 1 { nth(&ports, 0) } else { nth(&ports, at) };
            let port = if port.is_empty() { "5432".to_owned() } else { port };
            format!("{}={}:{port}", nth(&names, at), nth(&addrs, at))
        })
        .collect();
    let all_sockets = names.iter().all(|name| name.starts_with('/')) && addrs.is_empty();
    let root = get("sslrootcert");
    let mode = match (get("sslmode"), root.as_deref()) {
        _ if all_sockets => "disable".to_owned(),
        (Some(mode), Some(file)) if mode == "require" && file != "system" => "verify-ca".to_owned(),
        (None, Some("system")) => "verify-full".to_owned(),
        (mode, _) => mode.unwrap_or_else(|| "prefer".to_owned()),
    };
    let user = get("user").unwrap_or_else(|| "envuser".to_owned());
    // Zero or less is the system's default; a missing value is ours.
    let positive =
        |key: &str, missing: &str| match params.get(key).map(|value| value.parse::<i64>()) {
            Some(Ok(number)) if number > 0 => number.to_string(),
            Some(Ok(_)) => "system".to_owned(),
            Some(Err(_)) => "invalid".to_owned(),
            None => missing.to_owned(),
        };
    let keepalives = match params.get("keepalives").map(String::as_str) {
        Some("0") => "off".to_owned(),
        _ => ["keepalives_idle", "keepalives_interval", "keepalives_count"]
            .map(|key| positive(key, if key.ends_with("interval") { "1" } else { "3" }))
            .join(" "),
    };
    vec![
        format!("user {user}"),
        format!("password {:?}", get("password")),
        format!("dbname {}", get("dbname").unwrap_or(user)),
        format!("hosts {}", hosts.join(",")),
        format!("sslmode {mode}"),
        format!("sslrootcert {:?}", root.filter(|_| mode.starts_with("verify"))),
        format!("sslcert {:?}", get("sslcert").zip(get("sslkey"))),
        format!("options {:?}", get("options")),
        format!(
            "application_name {}",
            get("application_name")
                .or_else(|| get("fallback_application_name"))
                .unwrap_or_else(|| "premigrate".to_owned())
        ),
        format!("channel_binding {}", get("channel_binding").unwrap_or("prefer".to_owned())),
        format!("attrs {}", get("target_session_attrs").unwrap_or("any".to_owned())),
        format!("connect_timeout {}", positive("connect_timeout", "system")),
        format!("tcp_user_timeout {}", positive("tcp_user_timeout", "10000")),
        format!("keepalives {keepalives}"),
    ]
}

fn resolved_by_us(target: &Target) -> Vec<String> {
    let hosts: Vec<_> = target
        .hosts
        .iter()
        .map(|host| {
            let addr = host.addr.map(|addr| addr.to_string()).unwrap_or_default();
            format!("{}={addr}:{}", host.name, host.port)
        })
        .collect();
    let modes = target.hosts.iter().map(|host| target.sslmode_for(host));
    let mode = match modes.max().unwrap() {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::NoVerify | SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    };
    let root = target.root_cert.as_ref().and_then(|root| match root {
        RootCert::File(pem) => Some(pem.to_string()),
        RootCert::System => Some("system".to_owned()),
        // libpq's default too, which it does not name.
        RootCert::DefaultFile(_) => None,
    });
    let cert = target.client_cert.as_ref();
    let cert = cert.map(|cert| (cert.cert.to_string(), cert.key.to_string()));
    let binding = format!("{:?}", target.channel_binding).to_lowercase();
    let attrs = match target.target_session_attrs {
        SessionAttrs::Any => "any",
        SessionAttrs::ReadWrite => "read-write",
        SessionAttrs::Primary => "primary",
    };
    let settings = target.settings.of_connection_string();
    let settings = settings.map(|setting| format!("-c {}={}", setting.name, setting.value));
    let options: Vec<String> = target.options.clone().into_iter().chain(settings).collect();
    let options = Some(options.join(" ")).filter(|options| !options.is_empty());
    let number = |number: Option<u128>| number.map_or("system".to_owned(), |n| n.to_string());
    let seconds = |time: Option<Duration>| number(time.map(|time| u128::from(time.as_secs())));
    let keepalives = match target.tcp.keepalives {
        None => "off".to_owned(),
        Some(Keepalives { idle, interval, count }) => {
            let count = number(count.map(u128::from));
            format!("{} {} {count}", seconds(idle), seconds(interval))
        }
    };
    vec![
        format!("user {}", target.user),
        format!("password {:?}", target.password.as_ref().map(|secret| secret.expose())),
        format!("dbname {}", target.dbname),
        format!("hosts {}", hosts.join(",")),
        format!("sslmode {mode}"),
        format!("sslrootcert {root:?}"),
        format!("sslcert {cert:?}"),
        format!("options {options:?}"),
        format!("application_name {}", target.application_name),
        format!("channel_binding {binding}"),
        format!("attrs {attrs}"),
        format!("connect_timeout {}", seconds(target.connect_timeout)),
        format!(
            "tcp_user_timeout {}",
            number(target.tcp.user_timeout.map(|time| time.as_millis()))
        ),
        format!("keepalives {keepalives}"),
    ]
}

#[test]
fn connection_strings_are_parsed_as_in_libpq_17_and_18_except_for_the_listed_differences() {
    let cases = cases();
    assert!(cases.len() >= 150, "{} strings", cases.len());
    let mut faults = Vec::new();
    for version in ["17", "18"] {
        let answers = libpq(version, &cases);
        assert_eq!(answers.len(), cases.len());
        for (case, answer) in cases.iter().zip(answers) {
            let theirs = answer.as_ref().map(resolved_by_libpq);
            let read = conninfo::resolve(Some(&case.text), "DATABASE_URL", &env);
            // Parameters that are ignored with a note are errors in libpq.
            let ours = read.as_ref().ok().map(resolved_by_us);
            let listed = case
                .differs
                .as_ref()
                .is_some_and(|(only, _)| only.is_empty() || only.as_str() == version);
            if (ours == theirs) == listed {
                let what = if listed { "listed, and the same" } else { "not the same" };
                faults.push(format!(
                    "{what}: {:?}\n  libpq {version}: {theirs:?}\n  ours: {ours:?}\n  {}",
                    case.text,
                    read.err().map(|invalid| invalid.to_string()).unwrap_or_default()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// The comparison above depends on it.
#[test]
fn a_host_is_displayed_as_in_libpq() {
    assert_eq!(HostName::Socket("/run/pg".into()).to_string(), "/run/pg");
}
