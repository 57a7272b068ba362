//! What a run is told to do: flags, environment, defaults, in this order; checked, once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs, io};

use crate::cli::args::{Invocation, OPTIONS};
use crate::cli::dotenv;
use crate::history::plan::Policy;
use crate::history::table::Table;
use crate::migrations::source::Origin;
use crate::postgres::conninfo::{self, Secret, Target};

/// The process's environment, as it was at the start.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// From these variables.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
        Environment(variables.into_iter().collect())
    }

    /// A variable's value; an empty one counts as none, as Compose's `${NAME:-}` leaves it.
    fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|name| name.to_str())
    }
}

/// How to say things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What every command needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the migrations are.
    pub origin: Origin,
    /// How to say things.
    pub format: Format,
    /// `PREMIGRATE_SKIP`: become the app, and nothing else.
    pub skip: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--exit-code`.
    pub exit_code: bool,
    /// `--all`.
    pub all: bool,
    /// `--accept`, by name.
    pub accept: Vec<String>,
    /// `--through`, by name.
    pub through: Option<String>,
    /// `--schema` and `--table`.
    pub table: Table,
    given: RawOptions,
}

/// The variables that name a database: one of them, and no `.env` is read.
const DATABASE: [&str; 8] = [
    "MIGRATION_DATABASE_URL",
    "MIGRATION_DATABASE_URL_FILE",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "PGHOST",
    "PGHOSTADDR",
    "PGDATABASE",
    "PGSERVICE",
];

/// What may be given as a file too, by `NAME_FILE`.
const SECRETS: [&str; 3] = ["MIGRATION_DATABASE_URL", "DATABASE_URL", "PGPASSWORD"];

/// What a run against a database needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database.
    pub target: Target,
    /// Where the history is kept.
    pub table: Table,
    /// How long to wait for the database; zero is one try.
    pub wait: Duration,
    /// How long to wait for another runner; zero is one try.
    pub runner_wait: Duration,
    /// How long a statement may queue for a table lock; zero is for ever.
    pub lock_timeout: Duration,
    /// How often to try again after that.
    pub lock_retries: u32,
    /// How long a statement may run, if not as the server has it; zero is for ever.
    pub statement_timeout: Option<Duration>,
    /// What the history's rules are bent to.
    pub policy: Policy,
}

/// What is wrong with the configuration: where it stands, and what to do.
#[derive(Debug)]
pub enum ConfigError {
    /// A `PREMIGRATE_*` that is none.
    UnknownVariable(String),
    /// `PREMIGRATE_MIGRATIONS`, which is for building.
    BuildVariable,
    /// A value that is none of its kind.
    Value {
        /// The flag or variable.
        name: String,
        /// What it must be.
        must_be: &'static str,
    },
    /// Both a variable and its `_FILE`.
    Both(String),
    /// A file that cannot be read.
    File {
        /// The flag or variable that names it.
        name: String,
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file that a `NAME_FILE` names cannot be read. What the variable holds is not told: it
    /// may be the secret itself.
    SecretFile {
        /// The variable.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A file or variable that is not text.
    NotText(String),
    /// Nothing names a database.
    NoDatabase,
    /// The connection string is wrong.
    Connection(conninfo::ConninfoError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::UnknownVariable(name) => {
                write!(f, "{name} is not a variable of premigrate; see --help, or unset it")
            }
            ConfigError::BuildVariable => f.write_str(
                "PREMIGRATE_MIGRATIONS chooses at build time what is embedded; to use a folder at \
                 run time set PREMIGRATE_DIR, else unset it",
            ),
            ConfigError::Value { name, must_be } => write!(f, "{name} must be {must_be}"),
            ConfigError::Both(name) => {
                write!(f, "both {name} and {name}_FILE are set; unset one of them")
            }
            ConfigError::File { name, path, error } => {
                write!(f, "{name}: {} cannot be read ({error})", path.display())
            }
            ConfigError::SecretFile { name, error } => {
                write!(f, "the file that {name} names cannot be read ({error})")
            }
            ConfigError::NotText(name) => write!(f, "{name} is not valid UTF-8"),
            ConfigError::NoDatabase => f.write_str(
                "no database is named; set DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE, \
                 or PGHOST and PGUSER",
            ),
            ConfigError::Connection(invalid) => invalid.fmt(f),
        }
    }
}

const COUNT: &str = "a whole number, 4294967295 at most";
const DURATION: &str = "a duration such as 250ms, 30s, 10m, 1h, or plain seconds";

impl Config {
    /// Checks what does not need a database.
    pub fn new(invocation: &Invocation, environment: &Environment) -> Result<Config, ConfigError> {
        let mut given = RawOptions::new(&invocation.options, environment);
        given.add_env_file()?;
        given.refuse_unknown()?;
        Ok(Config {
            origin: match given.option("--dir") {
                Some((name, folder)) if folder.is_empty() => {
                    return Err(ConfigError::Value { name, must_be: "a folder" });
                }
                Some((_, folder)) => Origin::Folder(PathBuf::from(folder)),
                None => Origin::Executable,
            },
            format: given.format()?,
            skip: given.truth("PREMIGRATE_SKIP")?,
            dry_run: given.switch("--dry-run")?,
            exit_code: given.switch("--exit-code")?,
            all: given.switch("--all")?,
            accept: given
                .parsed("--accept", "names with commas between them", |names| {
                    let names = names.split(',').map(|name| name.trim().to_owned());
                    let names: Vec<String> = names.collect();
                    names.iter().all(|name| !name.is_empty()).then_some(names)
                })?
                .unwrap_or_default(),
            through: given.name("--through")?,
            table: Table::new(
                given.name("--schema")?.unwrap_or_else(|| "drizzle".to_owned()),
                given.name("--table")?.unwrap_or_else(|| "__drizzle_migrations".to_owned()),
            ),
            given,
        })
    }

    /// How to say that the configuration is wrong: as it asks for, where it can be told.
    pub fn format(options: &BTreeMap<&'static str, OsString>, environment: &Environment) -> Format {
        RawOptions::new(options, environment).format().unwrap_or_default()
    }

    /// Checks the rest.
    pub fn settings(&self) -> Result<Options, ConfigError> {
        let given = &self.given;
        let duration = |flag, default: Duration| {
            Ok::<_, ConfigError>(given.parsed(flag, DURATION, duration)?.unwrap_or(default))
        };
        let count = |value: &str| value.parse().ok();
        Ok(Options {
            target: given.target()?,
            table: self.table.clone(),
            wait: duration("--wait", Duration::from_secs(60))?,
            runner_wait: duration("--runner-wait", Duration::from_secs(600))?,
            lock_timeout: duration("--lock-timeout", Duration::from_secs(5))?,
            lock_retries: given.parsed("--lock-retries", COUNT, count)?.unwrap_or(8),
            statement_timeout: given.parsed("--statement-timeout", DURATION, self::duration)?,
            policy: Policy {
                apply_older: given.switch("--apply-older")?,
                strict: given.switch("--strict")?,
            },
        })
    }
}

/// Flags and variables, as they were given.
#[derive(Clone, Debug)]
struct RawOptions {
    options: BTreeMap<&'static str, OsString>,
    environment: Environment,
    /// The `.env` file, if what it says of the database is not text.
    not_text: Option<String>,
}

impl RawOptions {
    fn new(options: &BTreeMap<&'static str, OsString>, environment: &Environment) -> RawOptions {
        let (options, environment) = (options.clone(), environment.clone());
        RawOptions { options, environment, not_text: None }
    }

    /// The value of an option, and where it stands: the flag before the variable.
    fn option(&self, flag: &'static str) -> Option<(String, &OsStr)> {
        if let Some(value) = self.options.get(flag) {
            return Some((flag.to_owned(), value));
        }
        let variable = OPTIONS.iter().find(|opt| opt.flag == flag)?.variable();
        let value = self.environment.get(&variable)?;
        Some((variable, value))
    }

    fn parsed<T>(
        &self,
        flag: &'static str,
        must_be: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((name, value)) = self.option(flag) else { return Ok(None) };
        match value.to_str().and_then(parse) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Value { name, must_be }),
        }
    }

    fn name(&self, flag: &'static str) -> Result<Option<String>, ConfigError> {
        self.parsed(flag, "a name", |name| (!name.is_empty()).then(|| name.to_owned()))
    }

    fn format(&self) -> Result<Format, ConfigError> {
        let format = self.parsed("--format", "text or json", |value| match value {
            "text" => Some(Format::Text),
            "json" => Some(Format::Json),
            _ => None,
        })?;
        Ok(format.unwrap_or_default())
    }

    fn switch(&self, flag: &'static str) -> Result<bool, ConfigError> {
        if self.options.contains_key(flag) {
            return Ok(true);
        }
        match OPTIONS.iter().find(|opt| opt.flag == flag) {
            Some(opt) => self.truth(&opt.variable()),
            None => Ok(false),
        }
    }

    fn truth(&self, variable: &str) -> Result<bool, ConfigError> {
        match self.environment.get(variable).map(OsStr::to_str) {
            None | Some(Some("0" | "false")) => Ok(false),
            Some(Some("1" | "true")) => Ok(true),
            Some(_) => Err(ConfigError::Value {
                name: variable.to_owned(),
                must_be: "1 or true, or 0, false or empty",
            }),
        }
    }

    fn refuse_unknown(&self) -> Result<(), ConfigError> {
        let known = |name: &str| {
            name == "PREMIGRATE_SKIP" || OPTIONS.iter().any(|opt| opt.variable() == name)
        };
        let ours = self.environment.names().filter(|name| name.starts_with("PREMIGRATE_"));
        match ours.into_iter().find(|name| !known(name)) {
            Some("PREMIGRATE_MIGRATIONS") => Err(ConfigError::BuildVariable),
            Some(name) => Err(ConfigError::UnknownVariable(name.to_owned())),
            None => Ok(()),
        }
    }

    /// The file named by `--env-file`, and where it is; an empty one, also in its variable, is none.
    fn env_file(&self) -> Option<(String, PathBuf)> {
        let flag = "--env-file";
        let variable = OPTIONS.iter().find(|opt| opt.flag == flag)?.variable();
        let is_emptied = self.environment.0.contains_key(OsStr::new(&variable));
        let (name, path) = self.option(flag).or(is_emptied.then_some((variable, OsStr::new(""))))?;
        Some((name, PathBuf::from(path)))
    }

    /// Takes what is ours from the `.env` file, if the environment names no database at all.
    fn add_env_file(&mut self) -> Result<(), ConfigError> {
        let named = self.env_file();
        if named.as_ref().is_some_and(|(_, path)| path.as_os_str().is_empty()) {
            return Ok(());
        }
        let names_database = DATABASE.iter().any(|name| self.environment.get(name).is_some());
        if names_database && named.is_none() {
            return Ok(());
        }
        let (name, path) = match &named {
            Some((name, path)) => (name.clone(), path.clone()),
            None => (".env".to_owned(), PathBuf::from(".env")),
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            // Nor is it there where nobody may look whether it is.
            Err(_) if named.is_none() && fs::symlink_metadata(&path).is_err() => return Ok(()),
            Err(error) => return Err(ConfigError::File { name, path, error }),
        };
        if names_database {
            return Ok(());
        }
        let is_text = str::from_utf8(&bytes).is_ok();
        for (variable, value) in dotenv::parse(&String::from_utf8_lossy(&bytes)) {
            let of_the_database = variable.contains("DATABASE_URL") || variable.starts_with("PG");
            let wanted = of_the_database || variable.starts_with("PREMIGRATE_");
            if !wanted || self.environment.get(&variable).is_some() {
                continue;
            }
            if is_text || !value.contains(char::REPLACEMENT_CHARACTER) {
                self.environment.0.insert(variable.into(), value.into());
            } else if of_the_database {
                // Not every command needs one.
                self.not_text = Some(name.clone());
            } else {
                return Err(ConfigError::NotText(name));
            }
        }
        Ok(())
    }

    fn target(&self) -> Result<Target, ConfigError> {
        if let Some(file) = &self.not_text {
            return Err(ConfigError::NotText(file.clone()));
        }
        let is_set = |name: &str| self.environment.get(name).is_some();
        let is_both = |name: &&str| is_set(name) && is_set(&format!("{name}_FILE"));
        if let Some(name) = SECRETS.iter().find(|name| is_both(name)) {
            return Err(ConfigError::Both((*name).to_owned()));
        }
        let [migration_url, url_of_app, password] = SECRETS;
        let mut url = None;
        for name in [migration_url, url_of_app] {
            if let Some(value) = self.secret(name)? {
                url = Some((name, value));
                break;
            }
        }
        let password = self.secret(password)?;
        let lookup = |name: &str| match (name, &password) {
            ("PGPASSWORD", Some(password)) => Some(password.expose().to_owned()),
            _ => self.environment.get(name).and_then(OsStr::to_str).map(str::to_owned),
        };
        let mut names = DATABASE.iter().filter(|name| name.starts_with("PG"));
        if url.is_none() && !names.any(|name| lookup(name).is_some()) {
            return Err(ConfigError::NoDatabase);
        }
        let (text, source) = match &url {
            Some((name, value)) => (Some(value.expose()), *name),
            None => (None, "the PG* variables"),
        };
        conninfo::resolve(text, source, &lookup).map_err(ConfigError::Connection)
    }

    /// A variable, or the file that its `_FILE` names, by docker-library's rules: trailing
    /// newlines dropped, empty is unset.
    fn secret(&self, name: &str) -> Result<Option<Secret>, ConfigError> {
        let file = format!("{name}_FILE");
        let not_text = |name: &str| ConfigError::NotText(name.to_owned());
        match (self.environment.get(name), self.environment.get(&file)) {
            (Some(value), _) => {
                let value = value.to_str().ok_or_else(|| not_text(name))?;
                Ok(Some(Secret::new(value.to_owned())))
            }
            (None, Some(path)) => {
                let bytes = fs::read(path)
                    .map_err(|error| ConfigError::SecretFile { name: file.clone(), error })?;
                let text = String::from_utf8(bytes).map_err(|_| not_text(&file))?;
                let text = text.trim_end_matches(['\n', '\r']);
                Ok((!text.is_empty()).then(|| Secret::new(text.to_owned())))
            }
            (None, None) => Ok(None),
        }
    }
}

/// `250ms`, `30s`, `10m`, `1h`, or plain seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let number: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    let milliseconds = match text.get(digits.len()..)? {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    // PostgreSQL's own limit for a timeout, 24 days: what is longer was not meant.
    let total = number.checked_mul(milliseconds).filter(|&total| total <= i32::MAX as u64)?;
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{self, Parsed};

    fn config(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let Ok(Parsed::Run(invocation)) = args::parse(args.iter().map(OsString::from).collect())
        else {
            panic!("{args:?}")
        };
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Config::new(&invocation, &Environment::new(variables))
    }

    const URL: (&str, &str) = ("DATABASE_URL", "postgres://u:p@h/d");

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, milliseconds) in [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("7", Some(7000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1d", None),
            ("1 s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_flag_comes_before_its_variable_and_that_before_the_default() {
        let wait = |args: &[&str], variables: &[(&str, &str)]| {
            let variables = [&[URL], variables].concat();
            config(args, &variables).unwrap().settings().unwrap().wait.as_secs()
        };
        assert_eq!(wait(&[], &[]), 60);
        assert_eq!(wait(&[], &[("PREMIGRATE_WAIT", "7s")]), 7);
        assert_eq!(wait(&["--wait", "8s"], &[("PREMIGRATE_WAIT", "7s")]), 8);
        assert_eq!(wait(&[], &[("PREMIGRATE_WAIT", "")]), 60);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_cure() {
        for (args, variables, told) in [
            (&["--wait", "soon"][..], &[][..], "--wait must be a duration"),
            (&[], &[("PREMIGRATE_WAIT", "soon")], "PREMIGRATE_WAIT must be a duration"),
            (&[], &[("PREMIGRATE_STRICT", "yes")], "PREMIGRATE_STRICT must be 1 or true"),
            (&[], &[("PREMIGRATE_WIAT", "1s")], "PREMIGRATE_WIAT is not a variable"),
            (&[], &[("PREMIGRATE_MIGRATIONS", "x")], "set PREMIGRATE_DIR"),
            (&["--format", "xml"], &[], "--format must be text or json"),
            (&["--lock-retries", "-1"], &[], "--lock-retries must be a whole number"),
            (&["--schema", ""], &[], "--schema must be a name"),
            (&[], &[("DATABASE_URL_FILE", "/x")], "both DATABASE_URL and DATABASE_URL_FILE"),
        ] {
            let variables = [&[URL], variables].concat();
            let result = config(args, &variables).and_then(|config| config.settings());
            let invalid = result.unwrap_err().to_string();
            assert!(invalid.contains(told), "{invalid}");
        }
    }

    #[test]
    fn no_database_named_is_told() {
        let invalid = config(&["--env-file", ""], &[]).unwrap().settings().unwrap_err();
        assert!(invalid.to_string().contains("set DATABASE_URL"), "{invalid}");
    }

    #[test]
    fn the_migrations_own_url_comes_first() {
        let variables = [URL, ("MIGRATION_DATABASE_URL", "postgres://owner@other/d")];
        let target = config(&[], &variables).unwrap().settings().unwrap().target;
        assert_eq!(target.user, "owner");
    }
}
