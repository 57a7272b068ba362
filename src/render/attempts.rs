//! Failed attempts to connect.

use serde::{Serialize, Serializer};

use crate::postgres::conninfo::Host;
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Stage};
use crate::postgres::socket::Address;

use super::hints;

pub fn attempt_text(attempt: &Attempt) -> String {
    let mut place = match attempt.stage {
        Stage::Login => String::new(),
        Stage::SecondLogin => "second connection: ".to_owned(),
        Stage::CreateDatabase => "to create the database: ".to_owned(),
        Stage::Query => "after login: ".to_owned(),
    };
    if let Some(host) = &attempt.host {
        place += &server_text(host, attempt.address.as_ref());
        place += match attempt.tls {
            Some(true) => ", with TLS: ",
            Some(false) => ", without TLS: ",
            None => ": ",
        };
    }
    place + &attempt.cause.to_string()
}

/// `name:port (address)`, or the socket's path.
fn server_text(host: &Host, address: Option<&Address>) -> String {
    let name = host.name.to_string();
    match address {
        Some(Address::Unix(path)) => path.display().to_string(),
        Some(Address::Tcp(address)) if address.ip().to_string() != name => {
            format!("{name}:{} ({})", host.port, address.ip())
        }
        _ => format!("{name}:{}", host.port),
    }
}

impl Serialize for Attempt {
    /// With the message and the hint, which the value itself does not have.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            stage: Stage,
            host: Option<String>,
            port: Option<u16>,
            address: Option<String>,
            tls: Option<bool>,
            message: String,
            sqlstate: Option<&'a str>,
            hint: Option<&'static str>,
        }
        let fields = Fields {
            stage: self.stage,
            host: self.host.as_ref().map(|host| host.name.to_string()),
            port: self.host.as_ref().map(|host| host.port),
            address: self.address.as_ref().map(|address| match address {
                Address::Tcp(address) => address.ip().to_string(),
                Address::Unix(path) => path.display().to_string(),
            }),
            tls: self.tls,
            message: self.cause.to_string(),
            sqlstate: match &self.cause {
                QueryError::Server(error)
                | QueryError::Client(ConnectionError::Setting { error, .. }) => Some(&error.code),
                QueryError::Client(_) | QueryError::Stopped(_) => None,
            },
            hint: hints::hint(self),
        };
        fields.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::postgres::conninfo::HostName;

    fn attempt(name: &str, address: Option<&str>) -> Attempt {
        let host = Host { name: HostName::Tcp(name.to_owned()), addr: None, port: 5432 };
        let address = address.map(|address| (address.parse::<IpAddr>().unwrap(), 5432).into());
        let address = address.map(Address::Tcp);
        let cause = QueryError::Client(ConnectionError::TimedOut);
        Attempt::at_login(&host, address.as_ref(), cause)
    }

    #[test]
    fn an_attempt_names_the_host_and_the_address_once() {
        for (attempt, text) in [
            (attempt("db", None), "db:5432: timed out"),
            (attempt("db", Some("10.0.0.1")), "db:5432 (10.0.0.1): timed out"),
            (attempt("10.0.0.1", Some("10.0.0.1")), "10.0.0.1:5432: timed out"),
            (
                Attempt { tls: Some(true), ..attempt("db", Some("::1")) },
                "db:5432 (::1), with TLS: timed out",
            ),
            (
                Attempt { stage: Stage::SecondLogin, ..attempt("db", None) },
                "second connection: db:5432: timed out",
            ),
            (
                Attempt { stage: Stage::CreateDatabase, ..attempt("db", None) },
                "to create the database: db:5432: timed out",
            ),
            (
                Attempt::at_query(QueryError::Client(ConnectionError::TimedOut)),
                "after login: timed out",
            ),
        ] {
            assert_eq!(attempt_text(&attempt), text);
        }
    }

    #[test]
    fn an_attempt_in_json_has_a_field_for_each_fact() {
        let attempt = Attempt { tls: Some(false), ..attempt("db", Some("10.0.0.1")) };
        assert_eq!(
            serde_json::to_value(&attempt).unwrap(),
            serde_json::json!({
                "stage": "login",
                "host": "db",
                "port": 5432,
                "address": "10.0.0.1",
                "tls": false,
                "message": "timed out",
                "sqlstate": null,
                "hint": hints::hint(&attempt),
            })
        );
    }
}
