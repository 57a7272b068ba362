//! What a server says of itself at the login, and whether migrations can run on it.

/// The oldest version that has what premigrate needs.
const OLDEST: u32 = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerKind {
    /// The major version; 0 if unknown.
    pub(super) version: u32,
    /// Whether it is CockroachDB, which claims to be PostgreSQL 13, and whose advisory locks lock
    /// nothing.
    is_cockroach: bool,
}

impl ServerKind {
    /// From the parameters that the server reports.
    pub(super) fn new<'a>(parameter: &dyn Fn(&str) -> Option<&'a str>) -> ServerKind {
        let version = parameter("server_version")
            .and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|major| major.parse().ok())
            .unwrap_or_default();
        ServerKind { version, is_cockroach: parameter("crdb_version").is_some() }
    }

    /// What it is, if migrations cannot run on it.
    pub(super) fn unsupported(&self) -> Option<String> {
        match self.version {
            _ if self.is_cockroach => Some("CockroachDB".to_owned()),
            version @ 1..OLDEST => Some(format!("PostgreSQL {version}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_before_13_and_servers_without_real_locks_are_unsupported() {
        let unsupported = |version: Option<&'static str>, cockroach: Option<&'static str>| {
            let parameter = |name: &str| if name == "crdb_version" { cockroach } else { version };
            ServerKind::new(&parameter).unsupported()
        };
        assert_eq!(unsupported(Some("12.22 (Debian 12.22-1)"), None), Some("PostgreSQL 12".into()));
        assert_eq!(unsupported(Some("9.6.24"), None), Some("PostgreSQL 9".into()));
        // Redshift.
        assert_eq!(unsupported(Some("8.0.2"), None), Some("PostgreSQL 8".into()));
        assert_eq!(unsupported(Some("13.0.0"), Some("v24.1")), Some("CockroachDB".into()));
        for supported in [Some("13.23"), Some("18beta1"), Some("19devel"), Some("?"), None] {
            assert_eq!(unsupported(supported, None), None, "{supported:?}");
        }
    }
}
