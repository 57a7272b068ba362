//! The environment, with what a `.env` file adds to it, and the database that it names.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

use crate::cli::dotenv;
use crate::cli::error::ConfigError;
use crate::postgres::conninfo::{self, Secret, Target};

/// The variables that name a database. If one of them is set, `.env` is not read.
const DATABASE_VARIABLES: [&str; 10] = [
    "MIGRATION_DATABASE_URL",
    "MIGRATION_DATABASE_URL_FILE",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "PGHOST",
    "PGHOST_FILE",
    "PGHOSTADDR",
    "PGDATABASE",
    "PGDATABASE_FILE",
    "PGSERVICE",
];

/// The variables that `NAME_FILE` can replace.
const IN_FILES: [&str; 6] =
    ["MIGRATION_DATABASE_URL", "DATABASE_URL", "PGPASSWORD", "PGUSER", "PGHOST", "PGDATABASE"];

/// The environment at the start of the process.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// The `.env` file, if it has a variable for the database that is not UTF-8.
    not_text: Option<String>,
    /// A URL that comes before the variables, and what it was given with.
    url: Option<(String, Secret)>,
}

impl Environment {
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
        Environment { variables: variables.into_iter().collect(), ..Environment::default() }
    }

    /// An empty variable counts as unset, because Compose's `${NAME:-}` makes one.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.get_even_empty(name).filter(|value| !value.is_empty())
    }

    pub fn get_even_empty(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().filter_map(|name| name.to_str())
    }

    pub fn bool_var(&self, variable: &str) -> Result<bool, ConfigError> {
        match self.get(variable).map(OsStr::to_str) {
            None | Some(Some("0" | "false")) => Ok(false),
            Some(Some("1" | "true")) => Ok(true),
            Some(_) => Err(ConfigError::Value {
                name: variable.to_owned(),
                must_be: "1, true, 0, false or empty",
            }),
        }
    }

    /// Has this URL name the database, which `name` has given.
    pub fn set_url(&mut self, name: String, url: Secret) {
        self.url = Some((name, url));
    }

    /// Whether it names a database. If so, `.env` is not read.
    fn names_database(&self) -> bool {
        DATABASE_VARIABLES.iter().any(|name| self.get(name).is_some())
    }

    /// Adds our variables from a `.env` file, unless the environment names a database. `name` is the
    /// flag or variable that names the file; without one, `.env` may be missing.
    pub fn add_env_file(&mut self, named: Option<(String, &Path)>) -> Result<(), ConfigError> {
        let names_database = self.names_database();
        let is_named = named.is_some();
        if names_database && !is_named {
            return Ok(());
        }
        let (name, path) = named.unwrap_or_else(|| (".env".to_owned(), Path::new(".env")));
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            // An unreadable directory counts as having no `.env`.
            Err(_) if !is_named && fs::symlink_metadata(path).is_err() => return Ok(()),
            Err(error) => return Err(ConfigError::File { name, path: path.to_owned(), error }),
        };
        if names_database {
            return Ok(());
        }
        let is_text = str::from_utf8(&bytes).is_ok();
        for (variable, value) in dotenv::parse(&String::from_utf8_lossy(&bytes)) {
            let is_for_database = variable.contains("DATABASE_URL") || variable.starts_with("PG");
            let is_ours = is_for_database || variable.starts_with("PREMIGRATE_");
            if !is_ours || self.get(&variable).is_some() {
                continue;
            }
            if is_text || !value.contains(char::REPLACEMENT_CHARACTER) {
                self.variables.insert(variable.into(), value.into());
            } else if is_for_database {
                // Only an error for a command that connects.
                self.not_text = Some(name.clone());
            } else {
                return Err(ConfigError::NotText(name));
            }
        }
        Ok(())
    }

    /// The database that the environment names.
    pub fn target(&self) -> Result<Target, ConfigError> {
        self.target_of(|name| self.value_or_file(name))
    }

    /// The database that these values name.
    fn target_of(
        &self,
        value: impl Fn(&str) -> Result<Option<Secret>, ConfigError>,
    ) -> Result<Target, ConfigError> {
        if let Some(file) = &self.not_text {
            return Err(ConfigError::NotText(file.clone()));
        }
        let is_set = |name: &str| self.get(name).is_some();
        let is_both = |name: &&str| is_set(name) && is_set(&format!("{name}_FILE"));
        if let Some(name) = IN_FILES.iter().find(|name| is_both(name)) {
            return Err(ConfigError::Both((*name).to_owned()));
        }
        let [migration_url, app_url, libpq @ ..] = IN_FILES;
        let url = match (&self.url, value(migration_url)?) {
            (Some((name, url)), _) => Some((name.as_str(), url.clone())),
            (None, Some(url)) => Some((migration_url, url)),
            (None, None) => value(app_url)?.map(|url| (app_url, url)),
        };
        let mut values = BTreeMap::new();
        for name in libpq {
            values.insert(name, value(name)?);
        }
        let lookup = |name: &str| match values.get(name) {
            Some(value) => value.as_ref().map(|value| value.expose().to_owned()),
            None => self.get(name).and_then(OsStr::to_str).map(str::to_owned),
        };
        let mut names = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"].into_iter();
        if url.is_none() && !names.any(|name| lookup(name).is_some()) {
            return Err(ConfigError::NoDatabase);
        }
        let (text, source) = match &url {
            Some((name, value)) => (Some(value.expose()), *name),
            None => (None, "the PG* variables"),
        };
        conninfo::resolve(text, source, &lookup).map_err(ConfigError::Connection)
    }

    /// The same database, with the user and the password that are named now: their files may have
    /// been replaced. What cannot be read changes nothing.
    pub fn refreshed(&self, target: &Target) -> Target {
        let mut files = IN_FILES.iter().filter_map(|name| self.get(&format!("{name}_FILE")));
        // A pipe can be read once.
        let are_files = files.all(|path| fs::metadata(path).is_ok_and(|file| file.is_file()));
        // A file that is being written may be empty, and must not be taken for one that names nothing: the
        // next variable may name another role.
        let value = |name: &str| match self.value_or_file(name)? {
            None if self.get(&format!("{name}_FILE")).is_some() => {
                let error = io::ErrorKind::UnexpectedEof.into();
                Err(ConfigError::SecretFile { name: name.to_owned(), error })
            }
            value => Ok(value),
        };
        let now = if are_files { self.target_of(value).ok() } else { None };
        match now.filter(|now| now.password.is_some() || target.password.is_none()) {
            Some(Target { user, password, passfile, .. }) => {
                Target { user, password, passfile, ..target.clone() }
            }
            None => target.clone(),
        }
    }

    /// The value of a variable, or of the file that its `_FILE` names. As in docker-library's images,
    /// trailing newlines are dropped, and an empty file counts as unset.
    fn value_or_file(&self, name: &str) -> Result<Option<Secret>, ConfigError> {
        let file = format!("{name}_FILE");
        let not_text = |name: &str| ConfigError::NotText(name.to_owned());
        match (self.get(name), self.get(&file)) {
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
