//! Connection strings and what they resolve to.

use super::*;

fn with(text: Option<&str>, env: &[(&str, &str)]) -> Result<Target, ConninfoError> {
    resolve(text, "DATABASE_URL", &|name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

/// With an empty environment.
#[track_caller]
fn target(text: &str) -> Target {
    with(Some(text), &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[track_caller]
fn from_env(env: &[(&str, &str)]) -> Target {
    with(None, env).unwrap_or_else(|error| panic!("{env:?}: {error}"))
}

/// Of all hosts.
fn strongest_sslmode(target: &Target) -> SslMode {
    target.hosts.iter().map(|host| target.sslmode_for(host)).max().unwrap()
}

#[track_caller]
fn error(text: &str) -> String {
    match with(Some(text), &[]) {
        Ok(target) => panic!("{text} was accepted: {target:?}"),
        Err(error) => error.to_string(),
    }
}

/// `user:password@host:port,.../dbname`, sockets and addresses marked.
fn summary(target: &Target) -> String {
    let password = target.password.as_ref().map(|secret| format!(":{}", secret.expose()));
    let host = |host: &Host| {
        let addr = host.addr.map(|addr| format!("={addr}")).unwrap_or_default();
        let kind = if matches!(host.name, HostName::Socket(_)) { "socket " } else { "" };
        format!("{kind}{}{addr}:{}", host.name, host.port)
    };
    let hosts: Vec<_> = target.hosts.iter().map(host).collect();
    format!("{}{}@{}/{}", target.user, password.unwrap_or_default(), hosts.join(","), target.dbname)
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(summary(&target(text)), *expected, "{text}");
    }
}

/// Each text is rejected with an error that contains the words.
#[track_caller]
fn check_errors(cases: &[(&str, &str)]) {
    for (text, words) in cases {
        let error = error(text);
        assert!(error.starts_with("DATABASE_URL: "), "{text}: {error}");
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_url_is_parsed_as_in_libpq() {
    check(&[
        ("postgres://u:p@h:5433/d", "u:p@h:5433/d"),
        ("postgresql://u@h/d", "u@h:5432/d"),
        ("POSTGRES://u@h/d", "u@h:5432/d"),
        ("PostgreSQL://u@h/d", "u@h:5432/d"),
        ("postgres://u@h", "u@h:5432/u"),
        ("postgres://u@h/", "u@h:5432/u"),
        ("postgres://u@h?dbname=d", "u@h:5432/d"),
        ("postgres://h/d?user=u&password=p", "u:p@h:5432/d"),
        ("postgres://u:@h:/d", "u@h:5432/d"),
        ("postgres://u%40corp:p%3Aq%2Fr%25@h/a%20b", "u@corp:p:q/r%@h:5432/a b"),
        ("postgres://u:p+q@h/d", "u:p+q@h:5432/d"),
        ("postgres://u:%C3%A9@h/d", "u:é@h:5432/d"),
        ("postgres://u@h/d?%75ser=w", "w@h:5432/d"),
        ("postgres://u@h/d?&sslmode=disable&", "u@h:5432/d"),
        ("postgres://u@h/d?", "u@h:5432/d"),
    ]);
    assert_eq!(settings("postgres://u@h?options=-c a=b"), ["a=b (a in DATABASE_URL)"]);
}

#[test]
fn spaces_and_quotes_around_the_text_are_trimmed() {
    for text in [" postgres://u@h/d\n", "\"postgres://u@h/d\"", " ' postgres://u@h/d ' "] {
        check(&[(text, "u@h:5432/d")]);
    }
    check(&[("'host=h user=u'", "u@h:5432/u")]);
}

#[test]
fn several_hosts_have_their_own_ports_or_share_one() {
    check(&[
        ("postgres://u@a,b/d", "u@a:5432,b:5432/d"),
        ("postgres://u@a:1,b:2/d", "u@a:1,b:2/d"),
        ("postgres://u@a,b:2/d", "u@a:5432,b:2/d"),
        ("postgres://u@a,[::1]:2,c/d", "u@a:5432,::1:2,c:5432/d"),
        ("postgres://u@/d?host=a,b&port=1,2", "u@a:1,b:2/d"),
        ("postgres://u@/d?host=a,b&port=7", "u@a:7,b:7/d"),
        ("host=a,/run/pg port=1,2 user=u", "u@a:1,socket /run/pg:2/u"),
        ("host='a, b' user=u", "u@a:5432,b:5432/u"),
    ]);
    check_errors(&[
        (
            "postgres://u@/d?host=a,b,c&port=1,2",
            "the number of entries in port (2) must match the number of hosts (3)",
        ),
        (
            "postgres://u@a,b/d?hostaddr=127.0.0.1",
            "the number of entries in hostaddr (1) must match the number of hosts (2)",
        ),
        ("postgres://u@a,,b/d", "empty host in the list; remove the extra comma"),
    ]);
}

#[test]
fn ipv6_addresses_are_in_brackets_and_may_have_a_zone() {
    check(&[
        ("postgres://u@[::1]/d", "u@::1:5432/d"),
        ("postgres://u@[2001:db8::1]:5433/d", "u@2001:db8::1:5433/d"),
        ("postgres://u@[fe80::1%25eth0]/d", "u@fe80::1%eth0:5432/d"),
        ("host=::1 user=u", "u@::1:5432/u"),
    ]);
    check_errors(&[
        ("postgres://u@[::1/d", "brackets"),
        ("postgres://u@[]/d", "brackets"),
        ("postgres://u@[::1]5432/d", "brackets"),
        ("postgres://u@[::1]]/d", "brackets"),
        ("postgres://u@fe80::1/d", "put an IPv6 address in brackets"),
    ]);
}

#[test]
fn a_socket_is_a_directory_and_never_uses_tls() {
    for text in [
        "postgres://u@%2Frun%2Fpg/d",
        "postgres:///d?host=/run/pg&user=u",
        "postgres://u@/d?host=%2Frun%2Fpg&sslmode=verify-full",
        "host=/run/pg user=u dbname=d sslmode=require",
    ] {
        check(&[(text, "u@socket /run/pg:5432/d")]);
        assert_eq!(strongest_sslmode(&target(text)), SslMode::Disable, "{text}");
    }
    let mixed = target("host=/run/pg,h user=u sslmode=require");
    let modes: Vec<_> = mixed.hosts.iter().map(|host| mixed.sslmode_for(host)).collect();
    assert_eq!(modes, [SslMode::Disable, SslMode::Require]);
}

#[test]
fn a_host_with_an_address_is_not_looked_up() {
    check(&[
        ("host=h hostaddr=10.0.0.1 user=u", "u@h=10.0.0.1:5432/u"),
        ("hostaddr=10.0.0.1 user=u", "u@10.0.0.1=10.0.0.1:5432/u"),
        ("host=a,b hostaddr=10.0.0.1,::1 user=u", "u@a=10.0.0.1:5432,b=::1:5432/u"),
        ("host=a,b hostaddr=,::1 user=u", "u@a:5432,b=::1:5432/u"),
        ("host=/run/pg hostaddr=::1 user=u", "u@::1=::1:5432/u"),
    ]);
    check_errors(&[
        ("hostaddr=db user=u", "hostaddr must be a numeric IP address"),
        ("hostaddr=fe80::1%eth0 user=u", "with a zone, in host"),
    ]);
}

#[test]
fn the_query_replaces_what_comes_before_it() {
    check(&[
        ("postgres://u:p@localhost/d?host=/cloudsql/x", "u:p@socket /cloudsql/x:5432/d"),
        ("postgres://u:p@h:1/d?port=2", "u:p@h:2/d"),
        ("postgres://u:p@h/d?user=v&password=q&dbname=e", "v:q@h:5432/e"),
        ("postgres://u@h/d?host=a&host=b", "u@b:5432/d"),
    ]);
}

#[test]
fn an_at_sign_in_the_query_is_part_of_a_value() {
    check(&[
        ("postgresql:///d?host=/s/x&user=sa@proj.iam", "sa@proj.iam@socket /s/x:5432/d"),
        ("postgresql://h?user=sa@proj.iam", "sa@proj.iam@h:5432/sa@proj.iam"),
        ("postgres://u:p@h/d?user=a@b", "a@b:p@h:5432/d"),
        ("postgres://u:p?q@h/d?user=a@b", "a@b:p?q@h:5432/d"),
    ]);
}

#[test]
fn a_password_that_is_not_encoded_is_parsed_as_people_mean_it() {
    check(&[
        ("postgres://u:p@ss@h/d", "u:p@ss@h:5432/d"),
        ("postgres://u@corp:p@h/d", "u@corp:p@h:5432/d"),
        ("postgres://u:a/b@h:1/d", "u:a/b@h:1/d"),
        ("postgres://u:a/b/c@h:1/d?sslmode=disable", "u:a/b/c@h:1/d"),
        ("postgres://u:99999/b@h/d", "u:99999/b@h:5432/d"),
        ("postgres://u:a/b@h/d/e", "u:a/b@h:5432/d/e"),
        ("postgres://u:1:2/w@h/d", "u:1:2/w@h:5432/d"),
        ("postgres://u:a?b@h/d", "u:a?b@h:5432/d"),
        ("postgres://u:a?b=c@h/d?sslmode=disable", "u:a?b=c@h:5432/d"),
        ("postgres://u:a#b@h/d", "u:a#b@h:5432/d"),
        ("postgres://u:a:b@h/d", "u:a:b@h:5432/d"),
        ("postgres://u:a b@h/d", "u:a b@h:5432/d"),
        ("postgres://u:100%@h/d", "u:100%@h:5432/d"),
        ("postgres://u:p%ss%2@h/d", "u:p%ss%2@h:5432/d"),
        ("postgres://u:$&=!*'();[]@h/d", "u:$&=!*'();[]@h:5432/d"),
    ]);
    assert_eq!(target("postgres://u:a:b@h/d").user, "u");
}

#[test]
fn an_ambiguous_url_is_rejected() {
    check_errors(&[
        ("postgres://u:p@ss/w@h/d", "write %40 for @ and %2F for /"),
        ("postgres://u:1234/w@h/d", "write %40 for @"),
        ("postgres://u:/w@h/d", "write %40 for @"),
        ("postgres://u:a/b@h/d@e", "write %40 for @"),
        ("postgres://u/x@h/d", "write %40 for @"),
        ("postgres:///u:p@h/d", "write %40 for @"),
        ("postgres://h1:1,h2:2/d@e", "write %40 for @"),
        ("postgres://[::1]:x/d@e", "write %40 for @"),
    ]);
}

#[test]
fn a_part_of_a_password_is_not_taken_for_a_host_or_port() {
    check_errors(&[
        ("postgres://u:p", "a port must be a number from 1 to 65535"),
        ("postgres://u:p/w", "%2F for /"),
        ("postgres://u:p@h:65536/d", "a port must be a number"),
        ("postgres://u:p@h:0/d", "a port must be a number"),
        ("postgres://u:p@h:-1/d", "a port must be a number"),
        ("postgres://u:p@h:${PORT}/d", "a port must be a number"),
        ("postgres://u:p@${HOST}/d", "a host name contains an invalid character"),
        ("postgres://u:p@a b/d", "a host name contains an invalid character"),
        ("postgres://u:p@%zz/d", "a host name contains an invalid character"),
        ("host=user=u", "a host name contains an invalid character"),
    ]);
}

#[test]
fn what_postgresql_does_not_accept_is_rejected() {
    check_errors(&[
        ("postgres://u:p%00@h/d", "NUL"),
        ("host=h\0 user=u", "NUL"),
        ("postgres://u:%ff@h/d", "UTF-8"),
    ]);
}

#[test]
fn key_value_pairs_are_parsed_as_in_libpq() {
    check(&[
        ("host=h port=5433 user=u password=p dbname=d", "u:p@h:5433/d"),
        ("  host = h\tuser\n=\nu  ", "u@h:5432/u"),
        ("host=h user=u password='a b'", "u:a b@h:5432/u"),
        (r"host=h user=u password='it\'s \\'", r"u:it's \@h:5432/u"),
        (r"host=h user=u password=a\ b\\", r"u:a b\@h:5432/u"),
        ("host=h user=u password=a'b=c", "u:a'b=c@h:5432/u"),
        ("host=h user=u password=100%25", "u:100%25@h:5432/u"),
        ("host=h user=u dbname='' password=''", "u@h:5432/u"),
        ("host='h'user=u", "u@h:5432/u"),
        ("user=u host=h user=v", "v@h:5432/v"),
        ("host=h user=u dbname=é", "u@h:5432/é"),
        (r"host=h user=u password=x\", "u:x@h:5432/u"),
    ]);
    check_errors(&[
        ("host=h user=u password='x", "no closing '"),
        ("host=h user", "user has no value; write user=VALUE"),
        ("host=h user=u hidden", "a parameter has no =VALUE"),
        ("postgres://u@h/d?sslmode", "sslmode has no value; write sslmode=VALUE"),
    ]);
}

#[test]
fn libpqs_variables_complete_the_text() {
    let env = [
        ("PGHOST", "eh"),
        ("PGPORT", "6000"),
        ("PGUSER", "eu"),
        ("PGPASSWORD", "ep"),
        ("PGDATABASE", "ed"),
        ("PGAPPNAME", "ea"),
        ("PGOPTIONS", "-c x=y"),
        ("PGSSLMODE", "require"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGTARGETSESSIONATTRS", "primary"),
        ("PGCHANNELBINDING", "require"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGSSLCERT", "/c.pem"),
        ("PGSSLKEY", "/k.pem"),
    ];
    let alone = from_env(&env);
    assert_eq!(summary(&alone), "eu:ep@eh:6000/ed");
    assert_eq!(alone.application_name, "ea");
    let settings: Vec<_> = alone.settings.of_connection_string().map(described).collect();
    assert_eq!(settings, ["x=y (x in PGOPTIONS)"]);
    assert_eq!(alone.sslmode, SslMode::VerifyCa);
    assert_eq!(alone.root_cert, Some(RootCert::File("/ca.pem".into())));
    let client =
        ClientCert { cert: "/c.pem".into(), key: "/k.pem".into(), password: None, if_there: false };
    assert_eq!(alone.client_cert, Some(client));
    assert_eq!(alone.connect_timeout, Some(Duration::from_secs(7)));
    assert_eq!(alone.target_session_attrs, SessionAttrs::Primary);
    assert_eq!(alone.channel_binding, ChannelBinding::Require);

    for (text, expected) in [
        ("postgres://u:p@h:1/d", "u:p@h:1/d"),
        ("postgres://u@h", "u:ep@h:6000/ed"),
        ("postgres://", "eu:ep@eh:6000/ed"),
        ("postgres:///d", "eu:ep@eh:6000/d"),
        ("host='' user=u", "u:ep@eh:6000/ed"),
    ] {
        assert_eq!(summary(&with(Some(text), &env).unwrap()), expected, "{text}");
    }
    let addr = [("PGHOSTADDR", "10.0.0.1")];
    assert_eq!(summary(&with(Some("host=h user=u"), &addr).unwrap()), "u@h=10.0.0.1:5432/u");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let env = [("PGHOST", "h"), ("PGUSER", "u"), ("PGDATABASE", ""), ("PGSSLMODE", "")];
    assert_eq!(summary(&from_env(&env)), "u@h:5432/u");
}

#[test]
fn an_error_in_a_variable_names_the_variable() {
    for (variable, value, words) in [
        ("PGPORT", "x", "PGPORT: a port must be a number"),
        ("PGSSLMODE", "on", "PGSSLMODE: sslmode must be one of disable, allow, prefer"),
        ("PGCONNECT_TIMEOUT", "10s", "PGCONNECT_TIMEOUT: connect_timeout must be a whole number"),
        ("PGHOSTADDR", "x", "PGHOSTADDR: hostaddr must be a numeric"),
        ("PGSERVICE", "x", "PGSERVICE: service is not supported"),
        ("PGSSLCERT", "/c", "PGSSLCERT: sslcert and sslkey must be set together"),
        ("PGSSLKEY", "/k", "PGSSLKEY: sslcert and sslkey must be set together"),
        ("PGREQUIREAUTH", "scram-sha-256", "PGREQUIREAUTH: require_auth is not supported"),
    ] {
        let error = with(Some("postgres://u@h/d"), &[(variable, value)]).unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
    }
    let error = with(Some("postgres://u@h:x/d"), &[("PGPORT", "1")]).unwrap_err();
    assert!(error.to_string().starts_with("DATABASE_URL: a port"), "{error}");
}

#[test]
fn a_keyword_without_a_variable_has_no_default() {
    assert_eq!(with(Some("host=h user=u"), &[("", "0")]), with(Some("host=h user=u"), &[]));
}

#[test]
fn a_missing_user_or_host_is_an_error_with_a_hint() {
    check_errors(&[
        (
            "postgres://h/d",
            "no user is given; write postgres://USER:PASSWORD@HOST/DATABASE or set PGUSER",
        ),
        (
            "postgres://u@/d",
            "no host is given; write postgres://USER:PASSWORD@HOST/DATABASE or set PGHOST",
        ),
        ("user=u dbname=d", "or set PGHOST"),
    ]);
    assert!(with(None, &[("PGUSER", "u")]).unwrap_err().to_string().contains("set PGHOST"));
}

#[test]
fn urls_of_hosted_services_are_parsed() {
    let cases = [
        (
            "postgresql://o:p@ep-x-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            "o:p@ep-x-1-pooler.eu-central-1.aws.neon.tech:5432/neondb",
            SslMode::Require,
        ),
        (
            "postgresql://o:p@ep-x.aws.neon.tech/neondb?sslmode=verify-full&sslrootcert=system&options=endpoint%3Dep-x",
            "o:p@ep-x.aws.neon.tech:5432/neondb",
            SslMode::VerifyFull,
        ),
        (
            "postgresql://postgres:p@db.ref.supabase.co:5432/postgres",
            "postgres:p@db.ref.supabase.co:5432/postgres",
            SslMode::Prefer,
        ),
        (
            "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
            "postgres.ref:p@aws-0-eu.pooler.supabase.com:6543/postgres",
            SslMode::Prefer,
        ),
        (
            "postgresql://postgres.ref:p@aws-0-eu.pooler.supabase.com:5432/postgres?sslmode=require&supa=base-pooler.x",
            "postgres.ref:p@aws-0-eu.pooler.supabase.com:5432/postgres",
            SslMode::Require,
        ),
        (
            "postgres://u:p@db.eu.rds.amazonaws.com:5432/app?sslmode=verify-full&sslrootcert=/certs/global-bundle.pem",
            "u:p@db.eu.rds.amazonaws.com:5432/app",
            SslMode::VerifyFull,
        ),
        (
            "postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d?sslmode=no-verify",
            "u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d",
            SslMode::NoVerify,
        ),
        (
            "postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d?ssl=true",
            "u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d",
            SslMode::Require,
        ),
        ("postgresql://u:p@dpg-x-a/db", "u:p@dpg-x-a:5432/db", SslMode::Prefer),
        (
            "postgresql://u:p@dpg-x-a.frankfurt-postgres.render.com/db",
            "u:p@dpg-x-a.frankfurt-postgres.render.com:5432/db",
            SslMode::Prefer,
        ),
        (
            "postgresql://postgres:p@postgres.railway.internal:5432/railway",
            "postgres:p@postgres.railway.internal:5432/railway",
            SslMode::Prefer,
        ),
        (
            "postgresql://postgres:p@x.proxy.rlwy.net:41234/railway",
            "postgres:p@x.proxy.rlwy.net:41234/railway",
            SslMode::Prefer,
        ),
        (
            "postgres://u:p@my-db.flycast:5432/d?sslmode=disable",
            "u:p@my-db.flycast:5432/d",
            SslMode::Disable,
        ),
        (
            "postgres://u:p@my-db.internal:5432/d?sslmode=disable",
            "u:p@my-db.internal:5432/d",
            SslMode::Disable,
        ),
        (
            "postgresql://fly-user:p@pgbouncer.x.flympg.net/fly-db",
            "fly-user:p@pgbouncer.x.flympg.net:5432/fly-db",
            SslMode::Prefer,
        ),
        (
            "postgresql://doadmin:p@x.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
            "doadmin:p@x.b.db.ondigitalocean.com:25060/defaultdb",
            SslMode::Require,
        ),
        (
            "postgresql://doadmin:p@x.b.db.ondigitalocean.com:25061/pool?sslmode=verify-full&sslrootcert=/ca.crt",
            "doadmin:p@x.b.db.ondigitalocean.com:25061/pool",
            SslMode::VerifyFull,
        ),
        (
            "postgres://u:p@srv.postgres.database.azure.com:6432/d?sslmode=require",
            "u:p@srv.postgres.database.azure.com:6432/d",
            SslMode::Require,
        ),
        (
            "postgres://user%40server:p@srv.postgres.database.azure.com/postgres?sslmode=require",
            "user@server:p@srv.postgres.database.azure.com:5432/postgres",
            SslMode::Require,
        ),
        (
            "postgres://u:p@/d?host=/cloudsql/proj:region:inst",
            "u:p@socket /cloudsql/proj:region:inst:5432/d",
            SslMode::Disable,
        ),
        (
            "postgresql://u:p@localhost/d?host=/cloudsql/proj:region:inst",
            "u:p@socket /cloudsql/proj:region:inst:5432/d",
            SslMode::Disable,
        ),
        (
            "postgresql:///d?host=/cloudsql/proj:region:inst&user=sa@proj.iam",
            "sa@proj.iam@socket /cloudsql/proj:region:inst:5432/d",
            SslMode::Disable,
        ),
        ("postgres://postgres:p@db:5432/app", "postgres:p@db:5432/app", SslMode::Prefer),
        (
            "postgres://postgres:p@a1b2c3d4e5f6g7h8:5432/postgres",
            "postgres:p@a1b2c3d4e5f6g7h8:5432/postgres",
            SslMode::Prefer,
        ),
        (
            "postgresql://u:p@h:5432/d?schema=public&connection_limit=5&pool_timeout=2&sslaccept=strict",
            "u:p@h:5432/d",
            SslMode::VerifyFull,
        ),
        (
            "postgres://user:sk_x@db.prisma.io:5432/?sslmode=require",
            "user:sk_x@db.prisma.io:5432/user",
            SslMode::Require,
        ),
        (
            "postgres://u:p@h/d?uselibpqcompat=true&sslmode=require",
            "u:p@h:5432/d",
            SslMode::Require,
        ),
    ];
    for (text, expected, sslmode) in cases {
        let target = target(text);
        assert_eq!(summary(&target), expected, "{text}");
        assert_eq!(strongest_sslmode(&target), sslmode, "{text}");
    }
}

#[test]
fn sslmode_is_as_in_libpq_also_in_the_spellings_of_node_and_jdbc() {
    use SslMode::*;
    for (query, sslmode, root) in [
        ("", Prefer, None),
        ("sslmode=disable", Disable, None),
        ("sslmode=allow", Allow, None),
        ("sslmode=verify-ca", VerifyCa, None),
        ("sslmode=verify-full", VerifyFull, None),
        ("sslmode=verify-full&sslrootcert=system", VerifyFull, Some(RootCert::System)),
        ("sslrootcert=system", VerifyFull, Some(RootCert::System)),
        ("sslmode=verify-ca&sslrootcert=/ca", VerifyCa, Some(RootCert::File("/ca".into()))),
        ("sslmode=require&sslrootcert=/ca", VerifyCa, Some(RootCert::File("/ca".into()))),
        ("ssl=true&sslrootcert=/ca", VerifyCa, Some(RootCert::File("/ca".into()))),
        ("sslmode=no-verify&sslrootcert=/ca", NoVerify, None),
        ("sslmode=prefer&sslrootcert=/ca", Prefer, None),
        ("ssl=true", Require, None),
        ("ssl=1", Require, None),
        ("ssl=require", Require, None),
        ("ssl=no-verify", NoVerify, None),
        ("ssl=false", Disable, None),
        ("ssl=0", Disable, None),
        ("ssl=disable", Disable, None),
        ("sslmode=verify-full&ssl=true", VerifyFull, None),
        ("ssl=false&sslmode=require", Require, None),
        ("sslmode=prefer&ssl=true", Require, None),
        ("sslmode=require&sslaccept=strict", VerifyFull, None),
        ("sslmode=require&sslaccept=accept_invalid_certs", Require, None),
        ("sslmode=disable&sslaccept=strict", Disable, None),
    ] {
        let target = target(&format!("postgres://u@h/d?{query}"));
        assert_eq!((target.sslmode, target.root_cert), (sslmode, root), "{query}");
    }
    let unused = target("postgres://u@h/d?sslrootcert=/ca").notes;
    assert_eq!(
        unused,
        ["DATABASE_URL: ignoring sslrootcert; to verify the server, add sslmode=verify-full"]
    );
    assert_eq!(target("postgres://u@h?sslmode=no-verify&sslrootcert=/ca").notes, unused);
    assert_eq!(target("postgres://u@h?sslmode=require&sslrootcert=/ca").notes, [] as [String; 0]);
    check_errors(&[
        ("postgres://u@h/d?sslmode=", "sslmode must be one of disable, allow, prefer, require"),
        ("postgres://u@h/d?sslmode=on", "sslmode must be one of"),
        ("postgres://u@h/d?ssl=yes", "ssl must be one of"),
        ("postgres://u@h/d?sslmode=require&sslrootcert=system", "requires sslmode=verify-full"),
        ("postgres://u@h/d?sslmode=no-verify&sslrootcert=system", "requires sslmode=verify-full"),
    ]);
}

#[test]
fn tls_parameters_in_the_text_win_over_variables() {
    let mode = |text, env: &[(&str, &str)]| with(Some(text), env).unwrap().sslmode;
    let require = [("PGSSLMODE", "require")];
    assert_eq!(mode("postgres://u@h", &require), SslMode::Require);
    assert_eq!(mode("postgres://u@h?ssl=false", &require), SslMode::Disable);
    assert_eq!(mode("postgres://u@h?sslmode=disable", &require), SslMode::Disable);
    assert_eq!(mode("postgres://u@h", &[("PGREQUIRESSL", "1")]), SslMode::Require);
    assert_eq!(mode("postgres://u@h", &[("PGREQUIRESSL", "0")]), SslMode::Prefer);
    assert_eq!(mode("postgres://u@h?sslmode=disable", &[("PGREQUIRESSL", "1")]), SslMode::Disable);
}

#[test]
fn a_client_certificate_needs_its_key() {
    let given = target("postgres://u@h/d?sslcert=/c&sslkey=/k").client_cert;
    assert_eq!(
        given,
        Some(ClientCert { cert: "/c".into(), key: "/k".into(), password: None, if_there: false })
    );
    assert_eq!(target("host=h user=u sslcert=/c sslkey=/k sslcertmode=disable").client_cert, None);
    check_errors(&[
        ("postgres://u@h/d?sslcert=/c", "sslcert and sslkey must be set together"),
        ("postgres://u@h/d?sslkey=/k", "sslcert and sslkey must be set together"),
    ]);
}

#[test]
fn certificates_and_keys_may_be_given_as_text() {
    let text = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n";
    let one_line = text.trim_end().replace('\n', "\\n");
    let quoted = format!("'{one_line}'");
    for given in [text, &one_line, &quoted] {
        let env = [("PGSSLROOTCERT", given), ("PGSSLCERT", given), ("PGSSLKEY", given)];
        let target = with(Some("postgres://u@h/d?sslmode=verify-full"), &env).unwrap();
        let Some(RootCert::File(Pem::Text(root))) = &target.root_cert else {
            panic!("{target:?}");
        };
        assert_eq!(root.expose().trim_end(), text.trim_end());
        assert!(matches!(target.client_cert, Some(ClientCert { key: Pem::Text(_), .. })));
        assert!(!format!("{target:?}").contains("MII"));
    }
}

#[test]
fn certificates_and_keys_may_be_in_libpqs_default_files() {
    let home = [("HOME", "/home/app")];
    let root = |text| with(Some(text), &home).unwrap().root_cert;
    let own = Some(RootCert::DefaultFile("/home/app/.postgresql/root.crt".into()));
    assert_eq!(root("postgres://u@h?sslmode=require"), own);
    assert_eq!(root("postgres://u@h?sslmode=verify-full"), own);
    assert_eq!(root("postgres://u@h?sslmode=no-verify"), None);
    assert_eq!(root("postgres://u@h?sslmode=prefer"), None);
    let given = with(Some("postgres://u@h"), &home).unwrap().client_cert.unwrap();
    assert_eq!(given.key, "/home/app/.postgresql/postgresql.key".into());
    assert!(given.if_there);
}

#[test]
fn timeouts_have_libpqs_units_and_our_defaults() {
    let seconds = |n| Some(Duration::from_secs(n));
    let ours = Keepalives { idle: seconds(3), interval: seconds(1), count: Some(3) };
    let plain = target("postgres://u@h");
    assert_eq!(
        (plain.connect_timeout, plain.tcp.keepalives, plain.tcp.user_timeout),
        (None, Some(ours), seconds(10))
    );
    let limits = |query: &str| target(&format!("postgres://u@h?{query}"));
    assert_eq!(limits("connect_timeout=1").connect_timeout, seconds(1));
    assert_eq!(limits("connect_timeout=%2010%20").connect_timeout, seconds(10));
    assert_eq!(limits("connect_timeout=0").connect_timeout, None);
    assert_eq!(limits("connect_timeout=-1").connect_timeout, None);
    assert_eq!(limits("tcp_user_timeout=1500").tcp.user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(limits("tcp_user_timeout=0").tcp.user_timeout, None);
    assert_eq!(limits("keepalives=0").tcp.keepalives, None);
    assert_eq!(limits("keepalives=1").tcp.keepalives, Some(ours));
    assert_eq!(
        limits("keepalives_idle=30&keepalives_interval=5&keepalives_count=4").tcp.keepalives,
        Some(Keepalives { idle: seconds(30), interval: seconds(5), count: Some(4) })
    );
    assert_eq!(
        limits("keepalives_idle=0&keepalives_interval=-1&keepalives_count=0").tcp.keepalives,
        Some(Keepalives { idle: None, interval: None, count: None })
    );
    let retries = limits("keepalives_retries=9").tcp.keepalives.unwrap();
    assert_eq!(retries.count, Some(9));
    check_errors(&[
        ("postgres://u@h?connect_timeout=10s", "connect_timeout must be a whole number"),
        ("postgres://u@h?connect_timeout=", "connect_timeout must be a whole number"),
        ("postgres://u@h?tcp_user_timeout=1.5", "tcp_user_timeout must be a whole number"),
        ("postgres://u@h?keepalives=yes", "keepalives must be a whole number"),
        ("postgres://u@h?keepalives_count=99999999999", "keepalives_count must be a whole number"),
    ]);
}

#[test]
fn target_session_attrs_must_allow_writing() {
    let attrs = |value| target(&format!("host=h user=u {value}")).target_session_attrs;
    assert_eq!(attrs(""), SessionAttrs::Any);
    assert_eq!(attrs("target_session_attrs=any"), SessionAttrs::Any);
    assert_eq!(attrs("target_session_attrs=read-write"), SessionAttrs::ReadWrite);
    assert_eq!(attrs("target_session_attrs=primary"), SessionAttrs::Primary);
    for refused in ["standby", "prefer-standby", "read-only", "x"] {
        let error = error(&format!("host=h user=u target_session_attrs={refused}"));
        assert!(error.contains("must be any, read-write or primary"), "{error}");
    }
}

#[test]
fn channel_binding_is_as_in_libpq() {
    let binding = |value| target(&format!("host=h user=u {value}")).channel_binding;
    assert_eq!(binding(""), ChannelBinding::Prefer);
    assert_eq!(binding("channel_binding=disable"), ChannelBinding::Disable);
    assert_eq!(binding("channel_binding=require"), ChannelBinding::Require);
    check_errors(&[("host=h user=u channel_binding=x", "channel_binding must be one of disable")]);
}

#[test]
fn the_application_name_is_premigrate_by_default() {
    let name = |value| target(&format!("host=h user=u {value}")).application_name;
    assert_eq!(name(""), "premigrate");
    assert_eq!(name("fallback_application_name=f"), "f");
    assert_eq!(name("fallback_application_name=f application_name=a"), "a");
}

#[test]
fn without_a_password_there_is_a_password_file() {
    let home = ("HOME", "/home/app");
    let passfile = |text, env: &[(&str, &str)]| with(Some(text), env).unwrap().passfile;
    let bare = "postgres://u@h";
    assert_eq!(passfile(bare, &[home]), Some("/home/app/.pgpass".into()));
    assert_eq!(passfile(bare, &[home, ("PGPASSFILE", "/p")]), Some("/p".into()));
    assert_eq!(
        passfile("postgres://u@h?passfile=/q", &[home, ("PGPASSFILE", "/p")]),
        Some("/q".into())
    );
    assert_eq!(passfile(bare, &[]), None);
    assert_eq!(passfile("postgres://u:p@h", &[home]), None);
    assert_eq!(passfile(bare, &[home, ("PGPASSWORD", "p")]), None);
}

#[test]
fn parameters_of_other_programs_are_ignored_with_a_note() {
    let query = "connection_limit=5&pgbouncer=true&pool_max_conns=3&supa=z";
    assert_eq!(
        target(&format!("postgresql+asyncpg://u:p@h/d?{query}")).notes,
        [
            "DATABASE_URL: ignoring the driver in the URL's scheme",
            "DATABASE_URL: ignoring connection_limit, a parameter of Prisma",
            "DATABASE_URL: ignoring pgbouncer, a parameter of Prisma",
            "DATABASE_URL: ignoring pool_max_conns, a parameter of connection pools",
            "DATABASE_URL: ignoring supa, a parameter of connection pools",
        ]
    );
    for key in
        ["pool_timeout", "socket_timeout", "statement_cache_size", "sslidentity", "sslpassword"]
    {
        let notes = target(&format!("postgres://u@h?{key}=1")).notes;
        assert!(notes.len() == 1 && notes[0].contains(key), "{notes:?}");
    }
    assert_eq!(target("host=h user=u supa=app").notes.len(), 1);
}

fn described(setting: &ServerSetting) -> String {
    format!("{}={} ({})", setting.name, setting.value, setting.origin)
}

/// The settings of the server that a text asks for.
fn settings(text: &str) -> Vec<String> {
    target(text).settings.of_connection_string().map(described).collect()
}

#[test]
fn settings_of_the_server_are_keys_of_their_own_or_in_options() {
    for (query, expected) in [
        ("search_path=a,b", &["search_path=a,b (search_path in DATABASE_URL)"][..]),
        ("schema=my%20app", &[r#"search_path="my app" (schema in DATABASE_URL)"#]),
        ("currentSchema=a,b", &["search_path=a,b (currentSchema in DATABASE_URL)"]),
        ("TimeZone=UTC", &["timezone=UTC (TimeZone in DATABASE_URL)"]),
        (
            "role=owner&lock_timeout=2s",
            &[
                "role=owner (role in DATABASE_URL)",
                "lock_timeout=2s (lock_timeout in DATABASE_URL)",
            ],
        ),
        (
            "standard_conforming_strings=on&default_transaction_isolation=Read%20Committed",
            &[
                "default_transaction_isolation=Read Committed (default_transaction_isolation in DATABASE_URL)",
            ],
        ),
        (
            "options=-csearch_path%3Da%5C%20b%20--work-mem=1MB%20-c%20App.x%3D",
            &[
                "search_path=a b (search_path in DATABASE_URL)",
                "work_mem=1MB (work_mem in DATABASE_URL)",
                "app.x= (app.x in DATABASE_URL)",
            ],
        ),
        ("work_mem=2MB&options=-c work_mem=1MB", &["work_mem=2MB (work_mem in DATABASE_URL)"]),
        ("search_path=a&search_path=b", &["search_path=b (search_path in DATABASE_URL)"]),
    ] {
        assert_eq!(settings(&format!("postgres://u@h?{query}")), expected);
    }
    let zone = [("PGHOST", "h"), ("PGUSER", "u"), ("PGTZ", "UTC"), ("PGOPTIONS", "-c timezone=x")];
    let zones = |env: &[(&'static str, &'static str)]| {
        from_env(env).settings.of_connection_string().map(described).collect::<Vec<_>>()
    };
    assert_eq!(zones(&zone[..3]), ["timezone=UTC (PGTZ)"]);
    assert_eq!(zones(&zone), ["timezone=x (timezone in PGOPTIONS)"]);
}

#[test]
fn what_a_proxy_takes_out_of_options_stays_in_the_startup_packet() {
    let neon = target("postgres://u@h?options=endpoint%3Dep-x -c work_mem=1MB project%3Dy");
    assert_eq!(neon.options.as_deref(), Some("endpoint=ep-x project=y"));
    assert_eq!(target("postgres://u@h?options=-c a=b").options, None);
}

#[test]
fn settings_that_premigrate_itself_decides_about_are_refused() {
    for (query, words) in [
        ("standard_conforming_strings=off", "standard_conforming_strings is supported only as on"),
        ("options=-c standard_conforming_strings=0", "is supported only as on or true"),
        ("options=-c client_encoding=latin1", "client_encoding is supported only as utf8"),
        ("options=--session-authorization=x", "session_authorization is not supported; use role"),
        ("default_transaction_isolation=serializable", "SET TRANSACTION ISOLATION LEVEL"),
        ("default_transaction_read_only=on", "is supported only as off"),
        ("options=-S 1", "each as -c NAME=VALUE"),
        ("options=-c", "each as -c NAME=VALUE"),
        ("options=-c search_path", "each as -c NAME=VALUE"),
        ("options=x", "each as -c NAME=VALUE"),
        ("options=-c a;b=c", "each as -c NAME=VALUE"),
        ("app.x=1", "it is part of the password"),
        ("enable_seqscan=off", "write options=-c%20enable_seqscan%3DVALUE"),
    ] {
        let text = format!("postgres://u@h?{query}");
        let error = error(&text);
        assert!(error.contains(words), "{query}: {error}");
    }
}

#[test]
fn parameters_of_libpq_that_change_nothing_are_ignored_silently() {
    let text = "host=h user=u gssencmode=prefer krbsrvname=x gsslib=gssapi gssdelegation=0 \
                client_encoding=UTF8 encoding=utf-8 sslcompression=1 sslsni=1 sslcertmode=allow \
                sslnegotiation=postgres ssl_min_protocol_version=TLSv1.2 replication=off \
                ssl_max_protocol_version=tlsv1.3 min_protocol_version=3.0 \
                max_protocol_version=latest load_balance_hosts=random sslcrl='' uselibpqcompat=true";
    assert_eq!(target(text).notes, [] as [String; 0]);
}

#[test]
fn parameters_of_libpq_that_are_not_supported_are_rejected() {
    for (param, words) in [
        ("client_encoding=latin1", "client_encoding is supported only as utf8"),
        ("gssencmode=require", "gssencmode is supported only as disable or prefer"),
        ("min_protocol_version=3.2", "min_protocol_version is supported only as 3.0"),
        ("oauth_issuer=x", "oauth_issuer is not supported; remove it"),
        ("replication=database", "replication is supported only as false"),
        ("require_auth=scram-sha-256", "require_auth is not supported; remove it"),
        ("requirepeer=postgres", "requirepeer is not supported"),
        ("scram_client_key=x", "scram_client_key is not supported"),
        ("service=x", "service is not supported"),
        (
            "ssl_max_protocol_version=TLSv1.2",
            "ssl_max_protocol_version is supported only as TLSv1.3",
        ),
        ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version is supported only as TLSv1"),
        ("sslcertmode=require", "sslcertmode is supported only as allow or disable"),
        ("sslcrl=/x", "sslcrl is not supported"),
        ("sslcrldir=/x", "sslcrldir is not supported"),
        ("sslnegotiation=direct", "sslnegotiation is supported only as postgres"),
        ("sslsni=0", "sslsni is supported only as 1"),
    ] {
        check_errors(&[
            (&format!("host=h user=u {param}"), words),
            (&format!("postgres://u@h/d?{param}"), words),
        ]);
    }
}

#[test]
fn an_unknown_parameter_is_named_unless_it_may_be_part_of_a_password() {
    check_errors(&[
        ("postgres://u:p@h/d?sslmod=require", "sslmod is not a connection parameter"),
        ("postgres://h/d?sslmod=require", "sslmod is not a connection parameter"),
        ("host=h sslmod=require", "sslmod is not a connection parameter"),
        ("host=h password='p' sslmod=require", "sslmod is not a connection parameter"),
        ("host=h password=a b=c", "unknown connection parameter"),
        ("postgres://h/d?password=a&b=c", "unknown connection parameter"),
        ("postgres://u:p?b=c", "unknown connection parameter"),
        ("postgres://u@h/d?ssl-mode=require", "unknown connection parameter"),
    ]);
}

#[test]
fn connection_strings_of_other_systems_get_a_hint() {
    check_errors(&[
        ("", "is empty"),
        (" '' ", "is empty"),
        ("jdbc:postgresql://h/d?user=u", "remove the leading `jdbc:`"),
        ("prisma://accelerate.prisma-data.net/?api_key=x", "Prisma's proxy"),
        ("prisma+postgres://localhost:51213/?api_key=x", "Prisma's proxy"),
        ("mysql://u:p@h/d", "another database system"),
        ("mysql+pymysql://u:p@h/d", "another database system"),
        ("file:./dev.db", "another database system"),
        ("https://ref.supabase.co", "web address"),
        ("psql://u:p@h/d", "use postgres://"),
        ("postgres+ssl://u:p@h/d", "use postgres:// and add sslmode=require"),
        ("PostgreSQL+TLS://u:p@h/d", "use postgres:// and add sslmode=require"),
        ("postgres:u:p@h/d", "must be followed by `://`"),
        ("u:p@h/d", "neither a URL"),
        ("h:5432/d", "neither a URL"),
        ("app", "neither a URL"),
        ("Host=h;Username=u;Password=p", "ADO.NET"),
        ("Host = h ; Username = u", "ADO.NET"),
        ("Server=h; Port=5432; User Id=u", "ADO.NET"),
        ("host=h;database=d", "ADO.NET"),
        ("psql 'postgresql://u:p@h/d?sslmode=require'", "there is text before postgres://"),
        ("DATABASE_URL=postgres://u:p@h/d", "there is text before postgres://"),
    ]);
    check(&[("host=h user=u password=a;b=c", "u:a;b=c@h:5432/u")]);
}

#[test]
fn no_error_and_no_debug_output_contains_a_password() {
    let broken = [
        "S3CR3T",
        "S3CR3T==",
        "S3CR3T=x",
        "u:S3CR3T@h/d",
        "S3CR3T:x@h",
        "//u:S3CR3T@h/d",
        "://u:S3CR3T@h/d",
        "psql postgres://u:S3CR3T@h/d",
        "DATABASE_URL=postgres://u:S3CR3T@h/d",
        "mysql://u:S3CR3T@h/d",
        "S3CR3T://h/d",
        "jdbc:postgresql://h/d?user=u&password=S3CR3T",
        "prisma://x/?api_key=S3CR3T",
        "postgres:u:S3CR3T@h/d",
        "postgres://u:S3CR3T",
        "postgres://u:S3CR3T/d",
        "postgres://u:S3CR3T/x/d",
        "postgres://u:x/S3CR3T",
        "postgres://u:x?S3CR3T=y",
        "postgres://u:x?S3CR3T",
        "postgres://u:12?S3CR3T=1",
        "postgres://u:x?user=S3CR3T@h/d",
        "postgres://u:x@S3CR3T/y@h/d",
        "postgres://u:12/S3CR3T@h/d",
        "postgres:///u:S3CR3T@h/d",
        "postgres://u:x[S3CR3T",
        "postgres://[S3CR3T]x@h/d/@",
        "postgres://u:S3CR3T%00@h/d",
        "postgres://u:S3CR3T%ff@h/d",
        "postgres://u:S3CR3T@/d",
        "postgres://:S3CR3T@h/d",
        "postgres://u:S3CR3T@h:x/d",
        "postgres://u:x@h:S3CR3T/d",
        "postgres://u:S3CR3T@h/d?sslmode=on",
        "postgres://u:x@h/d?sslmode=S3CR3T",
        "postgres://u:x@h/d?port=S3CR3T",
        "postgres://u:x@h/d?hostaddr=S3CR3T",
        "postgres://u:x@h/d?connect_timeout=S3CR3T",
        "postgres://u:x@h/d?require_auth=S3CR3T",
        "postgres://u@h/d?password=x&S3CR3T=y",
        "postgres://u@h/d?password=x&S3CR3T",
        "postgres://u@h/d?password=S3CR3T&foo=bar",
        "postgres://u@h/d?foo=x@y&S3CR3T=z",
        "host=h user=u password=S3CR3T foo=bar",
        "host=h user=u password=x S3CR3T=y",
        "host=h user=u password=x S3CR3T",
        "host=h user=u password= S3CR3T x",
        "host=h user=u password='S3CR3T",
        "host=h user=u password='x'S3CR3T'",
        "host=h password=x user=u S3CR3T=y",
        "host=h user=u S3CR3T",
        "host=h password=S3CR3T",
        "user=u password=S3CR3T",
        "host=h port=S3CR3T user=u",
        "host=x@S3CR3T user=u",
        "Host=h;Username=u;Password=S3CR3T",
        "Password=S3CR3T;Host=h",
    ];
    for text in broken {
        let error = with(Some(text), &[("PGPASSWORD", "S3CR3T")]).expect_err(text);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("S3CR3T"), "{text}: {shown}");
    }
    let read = [
        "postgres://u:S3CR3T@h/d",
        "postgres://u:a@S3CR3T@h/d",
        "postgres://u:a/S3CR3T@h/d",
        "postgres://u:x@[S3CR3T@h/d",
        "postgres://u:a?S3CR3T@h/d",
        "postgres://u:a#S3CR3T@h/d",
        "postgres://u:a?S3CR3T=b@h/d",
        "postgres://h/d?user=u&password=S3CR3T&schema=x",
        "postgres://u@h/d?sslpassword=S3CR3T",
        "postgres://u@h/d?sslcert=/c&sslkey=/k&sslpassword=S3CR3T",
        "postgres://u@h/d?sslidentity=S3CR3T",
        "host=h user=u password='a S3CR3T'",
    ];
    for text in read {
        let target = with(Some(text), &[]).expect(text);
        assert!(!format!("{target:?}").contains("S3CR3T"), "{text}: {target:?}");
    }
    let secret = Secret::new("S3CR3T".to_owned());
    assert_eq!(format!("{secret} {secret:?}"), "*** ***");
}
