//! What a run does, from flags, environment and defaults, in this order.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::args::{self, COLOR, CommandName, FORMAT, Invocation, OPTIONS, OutputHints};
use crate::cli::environment::Environment;
use crate::cli::error::{ConfigError, UsageError};
use crate::cli::health::{CheckUrl, HealthAddress, UrlProblem};
use crate::cli::only_for;
use crate::history::plan::Policy;
use crate::history::table::Table;
use crate::postgres::conninfo::{self, Secret, Target};
use crate::postgres::notices::NoticeLevel;
use crate::process::exec::{self, App};

/// The format of reports and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How `check` writes for tools that show each finding at its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewFormat {
    /// One object of SARIF 2.1.0.
    Sarif,
    /// Commands of GitHub Actions.
    Github,
}

/// How the answer of one command is written, where that is neither text nor JSON. Everything else is
/// text then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DocumentFormat {
    /// Of `check`.
    Review(ReviewFormat),
    /// Of `rehearse`.
    Markdown,
}

/// When text has colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal, unless the environment speaks against it.
    #[default]
    Auto,
    Always,
    Never,
}

/// How reports and answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appearance {
    pub format: Format,
    color: ColorChoice,
    /// `NO_COLOR` is set.
    no_color: bool,
    /// The terminal, if there is one, understands no control sequences.
    is_dumb: bool,
}

impl Appearance {
    /// How to write to a stream.
    pub fn style(self, is_terminal: bool) -> Style {
        let is_colored = match self.color {
            ColorChoice::Auto => is_terminal && !self.no_color && !self.is_dumb,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Style { format: self.format, is_colored: is_colored && self.format == Format::Text }
    }

    /// Whether a line of a stream may be replaced by another one.
    pub fn has_live_line(self, is_terminal: bool) -> bool {
        is_terminal && self.format == Format::Text && !self.is_dumb
    }
}

/// How one stream is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub format: Format,
    /// Never in JSON.
    pub is_colored: bool,
}

impl From<Format> for Style {
    fn from(format: Format) -> Style {
        Style { format, is_colored: false }
    }
}

/// A command with its options. Migrations are given by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// With `PREMIGRATE_SKIP`: only become the app.
    Skip,
    /// `--only-for` does not name this app: only become it.
    NotForApp {
        app: String,
    },
    Run(Operation),
    /// `up --dry-run`.
    DryRun(Operation),
    Wait,
    Status {
        exit_code: bool,
        /// What `up` would do.
        up: Operation,
    },
    List {
        /// The folder to write the files into.
        extract: Option<PathBuf>,
    },
    Check(CheckOptions),
    Rehearse {
        /// What `up` would do.
        up: Operation,
        /// All migrations, in an empty database.
        from_scratch: bool,
        documents: RehearsalDocuments,
    },
    New {
        name: String,
        dir: PathBuf,
    },
    Bundle(BundleParts),
    Healthcheck {
        url: CheckUrl,
        timeout: Duration,
    },
}

impl Command {
    /// Whether it answers how it goes, since an app waits for it.
    fn has_health(&self) -> bool {
        matches!(self, Command::Run(Operation::Up { .. }) | Command::Wait)
    }

    /// How long a statement may wait for a lock, unless the options say it. Short for a rehearsal: while
    /// its statement waits for a lock, other sessions queue behind it.
    fn lock_timeout(&self) -> Duration {
        match self {
            Command::Rehearse { .. } => Duration::from_millis(200),
            _ => Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// An older folder, or what `list --format json` has said of it; behind the flag or variable that names it.
    pub since: Option<(String, PathBuf)>,
    /// Whether the database says what is pending, and how large the tables are.
    pub database: bool,
    /// Whether what can block is an error.
    pub strict: bool,
    /// `None` is text or JSON, as all answers are.
    pub review: Option<ReviewFormat>,
}

/// The forms that the report of `rehearse` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RehearsalDocuments {
    /// Whether the answer is Markdown.
    pub markdown: bool,
    /// The files to write.
    pub html: Option<PathBuf>,
    pub svg: Option<PathBuf>,
}

/// What a bundle is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleParts {
    /// The migrations folder.
    pub dir: PathBuf,
    /// The file to make.
    pub output: PathBuf,
    /// An executable of ours; `None` is the one that runs.
    pub base: Option<PathBuf>,
}

/// A command that changes the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Apply what is pending, after recording migrations up to and including one as applied, and
    /// after accepting these edited migrations.
    Up {
        accept: Vec<String>,
        baseline_through: Option<String>,
        /// Up to and including this one; all if `None`.
        through: Option<String>,
        /// Create the database first if it does not exist.
        create_database: Option<NewDatabase>,
    },
    /// Record migrations without running them: all, or up to and including this one.
    Baseline { through: Option<String> },
    /// Record edited migrations as they are now: these, or all that were edited.
    Accept { names: Option<Vec<String>> },
}

/// How to create the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDatabase {
    /// What it is a copy of; `None` is the server's default.
    pub template: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub command: Command,
    /// The app to become afterwards; `None` in a dry run.
    pub app: Option<App>,
    /// Where a run answers how it goes.
    pub health: Option<HealthAddress>,
    /// The migrations folder; `None` if it is what this executable carries.
    pub dir: Option<PathBuf>,
    pub appearance: Appearance,
    /// The history table.
    pub table: Table,
    raw: RawOptions,
}

/// The options of a run that connects to a database. A zero timeout is no limit.
#[derive(Clone, Debug)]
pub struct Options {
    pub target: Target,
    /// The history table.
    pub table: Table,
    /// How long to wait for the database; zero is one try.
    pub wait: Duration,
    /// How long to wait for another runner; zero is one try.
    pub runner_wait: Duration,
    pub lock_timeout: Duration,
    pub lock_retries: u32,
    /// `None` leaves it as the server has it.
    pub statement_timeout: Option<Duration>,
    /// What named the database.
    environment: Environment,
    /// Which notices of migrations are reported.
    pub notices: NoticeLevel,
    pub policy: Policy,
    /// How many bytes a table may have that `up` scans or rewrites while others wait; `None` is any number.
    pub max_blocking: Option<u64>,
}

/// The options that have a setting of the server in the connection string beside them.
const TIME_LIMITS: [(&str, &str); 2] =
    [("--lock-timeout", "lock_timeout"), ("--statement-timeout", "statement_timeout")];

const ADDRESS: &str = ":PORT, IP:PORT or [IPV6]:PORT, with a port from 1 to 65535";
const COUNT: &str = "a whole number of at most 4294967295";
const LEVEL: &str = "none, warning, notice or info";
const SIZE: &str = "a size such as 500kB, 100MB or 2GB, or plain bytes";
const LIMIT: &str = "a duration such as 250ms or 5s, and not 0";
const DURATION: &str = "a duration such as 250ms, 30s, 10m, 1h, or plain seconds";

impl Config {
    /// Reads and checks everything that a command without a database needs.
    pub fn new(invocation: Invocation, environment: &Environment) -> Result<Config, ConfigError> {
        let Invocation { command, names, options, app } = invocation;
        let mut raw = RawOptions { options, environment: environment.clone() };
        raw.add_env_file()?;
        raw.refuse_unknown()?;
        if command == CommandName::Rehearse {
            raw.set_place()?;
        }
        let dir = raw.path("--dir", "a folder")?;
        let (format, document) = raw.format(command)?;
        let appearance = raw.appearance(format, raw.color()?);
        let not_for = raw.not_for(command, app.as_ref())?;
        let is_dry_run = command == CommandName::Up && raw.switch("--dry-run")?;
        let command = resolve_command(command, names, not_for, dir.as_deref(), document, &raw)?;
        let health = raw.parsed("--health", ADDRESS, HealthAddress::parse)?;
        let health = health.filter(|_| command.has_health());
        let table = Table::new(
            raw.name("--schema")?.unwrap_or_else(|| "drizzle".to_owned()),
            raw.name("--table")?.unwrap_or_else(|| "__drizzle_migrations".to_owned()),
        );
        let app = app.filter(|_| !is_dry_run);
        Ok(Config { command, app, health, dir, appearance, table, raw })
    }

    /// How to report a wrong configuration, as far as the configuration tells.
    pub fn appearance(hints: &OutputHints, environment: &Environment) -> Appearance {
        let options = [(FORMAT, &hints.format), (COLOR, &hints.color)];
        let given = options.into_iter().filter_map(|(flag, value)| Some((flag, value.clone()?)));
        let raw = RawOptions { options: given.collect(), environment: environment.clone() };
        let (format, _) = raw.format(CommandName::Up).unwrap_or_default();
        raw.appearance(format, raw.color().unwrap_or_default())
    }

    /// Reads and checks what a command with a database needs too.
    pub fn options(&self) -> Result<Options, ConfigError> {
        let raw = &self.raw;
        let duration = |flag, default: Duration| {
            Ok::<_, ConfigError>(raw.parsed(flag, DURATION, duration)?.unwrap_or(default))
        };
        let count = |value: &str| value.parse().ok();
        let mut target = raw.environment.target()?;
        // An option overrides the connection string.
        for (flag, setting) in TIME_LIMITS {
            if raw.lookup(flag).is_some() {
                target.settings.remove(setting);
            }
        }
        Ok(Options {
            target,
            environment: raw.environment.clone(),
            table: self.table.clone(),
            wait: duration("--wait", Duration::from_secs(60))?,
            runner_wait: duration("--runner-wait", Duration::from_secs(600))?,
            lock_timeout: duration("--lock-timeout", self.command.lock_timeout())?,
            lock_retries: raw.parsed("--lock-retries", COUNT, count)?.unwrap_or(8),
            statement_timeout: raw.parsed("--statement-timeout", DURATION, self::duration)?,
            notices: raw.parsed("--notices", LEVEL, notice_level)?.unwrap_or(NoticeLevel::Notice),
            policy: Policy {
                apply_older: raw.switch("--apply-older")?,
                strict: raw.switch("--strict")?,
            },
            max_blocking: raw.parsed("--max-blocking", SIZE, size)?,
        })
    }
}

impl Options {
    /// The database, for a new connection: with the user and the password as they are now.
    pub fn current_target(&self) -> Target {
        self.environment.refreshed(&self.target)
    }

    /// The same, where any server was accepted, for the primary only.
    pub fn on_primary(&self) -> Options {
        Options { target: self.target.on_primary(), ..self.clone() }
    }
}

/// Variables are checked for every command, used or not. `not_for` is the app that `--only-for` does
/// not name.
fn resolve_command(
    command: CommandName,
    names: Vec<String>,
    not_for: Option<String>,
    dir: Option<&Path>,
    document: Option<DocumentFormat>,
    raw: &RawOptions,
) -> Result<Command, ConfigError> {
    let skip = raw.environment.bool_var("PREMIGRATE_SKIP")?;
    let dry_run = raw.switch("--dry-run")?;
    let exit_code = raw.switch("--exit-code")?;
    let all = raw.switch("--all")?;
    let accept = raw.parsed("--accept", "a comma-separated list of names", list)?;
    let timeout =
        raw.parsed("--timeout", LIMIT, |text| duration(text).filter(|it| !it.is_zero()))?;
    let baseline_through = raw.name("--baseline-through")?;
    let through = raw.name("--through")?;
    let template = raw.name("--template")?;
    let creates_database = raw.switch("--create-database")?;
    if !creates_database && raw.is_on_command_line("--template") {
        return Err(ConfigError::UnusedTemplate);
    }
    let create_database = creates_database.then_some(NewDatabase { template });
    let accept = accept.unwrap_or_default();
    let up = Operation::Up { accept, baseline_through, through: through.clone(), create_database };
    let extract = raw.path("--extract", "a folder")?;
    let since = raw.named_path("--since", "a folder or a file")?;
    let database = raw.switch("--database")?;
    let strict = raw.switch("--strict")?;
    let (output, base) = (raw.path("--output", "a file")?, raw.path("--base", "a file")?);
    let dir = || {
        let missing = ConfigError::Usage(UsageError::NoFolder(command.as_str()));
        dir.map(Path::to_owned).ok_or(missing)
    };
    let no_name = || ConfigError::Usage(UsageError::NoName(command.as_str()));
    Ok(match command {
        CommandName::Up | CommandName::Wait if skip => Command::Skip,
        CommandName::Up | CommandName::Wait if let Some(app) = not_for => {
            Command::NotForApp { app }
        }
        CommandName::Up if dry_run => Command::DryRun(up),
        CommandName::Up => Command::Run(up),
        CommandName::Wait => Command::Wait,
        CommandName::Status => Command::Status { exit_code, up },
        CommandName::List => Command::List { extract },
        CommandName::Check => {
            let review = match document {
                Some(DocumentFormat::Review(format)) => Some(format),
                Some(DocumentFormat::Markdown) | None => None,
            };
            Command::Check(CheckOptions { since, database, strict, review })
        }
        CommandName::Rehearse => Command::Rehearse {
            up: Operation::Up {
                accept: Vec::new(),
                baseline_through: None,
                through,
                create_database: None,
            },
            from_scratch: raw.switch("--from-scratch")?,
            documents: RehearsalDocuments {
                markdown: document == Some(DocumentFormat::Markdown),
                html: raw.path("--html", "a file")?,
                svg: raw.path("--svg", "a file")?,
            },
        },
        CommandName::Baseline => Command::Run(Operation::Baseline { through }),
        // Names on the command line override PREMIGRATE_ALL.
        CommandName::Accept if !names.is_empty() => {
            Command::Run(Operation::Accept { names: Some(names) })
        }
        CommandName::Accept if all => Command::Run(Operation::Accept { names: None }),
        CommandName::Accept => return Err(no_name()),
        CommandName::New => {
            Command::New { name: names.into_iter().next().ok_or_else(no_name)?, dir: dir()? }
        }
        CommandName::Bundle => {
            let output = output.ok_or(ConfigError::Usage(UsageError::NoOutput));
            Command::Bundle(BundleParts { dir: dir()?, output: output?, base })
        }
        CommandName::Healthcheck => {
            let url = names.first().map_or(Err(UrlProblem::Form), |url| CheckUrl::parse(url));
            let url = url.map_err(|problem| ConfigError::Usage(UsageError::CheckUrl(problem)))?;
            Command::Healthcheck { url, timeout: timeout.unwrap_or(Duration::from_secs(5)) }
        }
    })
}

/// Flags and variables, not parsed yet.
#[derive(Clone, Debug)]
struct RawOptions {
    options: BTreeMap<&'static str, OsString>,
    environment: Environment,
}

impl RawOptions {
    /// The value of an option, and the flag or variable that it comes from.
    fn lookup(&self, flag: &'static str) -> Option<(String, &OsStr)> {
        if let Some(value) = self.options.get(flag) {
            return Some((flag.to_owned(), value));
        }
        let variable = args::variable(flag);
        let value = self.environment.get(&variable)?;
        Some((variable, value))
    }

    /// A variable is set for a whole container, also for commands that have no use for it.
    fn is_on_command_line(&self, flag: &'static str) -> bool {
        self.options.contains_key(flag)
    }

    fn parsed<T>(
        &self,
        flag: &'static str,
        must_be: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((name, value)) = self.lookup(flag) else { return Ok(None) };
        match value.to_str().and_then(parse) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Value { name, must_be }),
        }
    }

    /// Has `--on` name the database, or leaves that to the environment, as `--here` says.
    fn set_place(&mut self) -> Result<(), ConfigError> {
        let here = self.switch("--here")?;
        let on = self.lookup("--on").map(|(name, url)| (name, url.to_owned()));
        let (name, url) = match (on, here) {
            (Some(on), false) => on,
            (None, true) => return Ok(()),
            _ => return Err(ConfigError::Usage(UsageError::NoPlace)),
        };
        let url = url.into_string().map_err(|_| ConfigError::NotText(name.clone()))?;
        let has_password =
            conninfo::resolve(Some(&url), &name, &|_| None).is_ok_and(|it| it.password.is_some());
        if has_password && self.options.contains_key("--on") {
            return Err(ConfigError::Usage(UsageError::PasswordInUrl));
        }
        self.environment.set_url(name, Secret::new(url));
        Ok(())
    }

    /// The app, if `--only-for` names others.
    fn not_for(
        &self,
        command: CommandName,
        app: Option<&App>,
    ) -> Result<Option<String>, ConfigError> {
        let flag = "--only-for";
        let programs = self.parsed(flag, "a comma-separated list of programs", list)?;
        let Some(programs) = programs.filter(|_| command.starts_app()) else { return Ok(None) };
        let Some(app) = app else {
            return match self.is_on_command_line(flag) {
                true => Err(ConfigError::Usage(UsageError::NoAppFor(flag.to_owned()))),
                false => Ok(None),
            };
        };
        let is_other = !only_for::is_one_of(app, &programs);
        Ok(is_other.then(|| app.program.to_string_lossy().into_owned()))
    }

    fn path(
        &self,
        flag: &'static str,
        must_be: &'static str,
    ) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.named_path(flag, must_be)?.map(|(_, path)| path))
    }

    /// The flag or variable that names the path, and the path.
    fn named_path(
        &self,
        flag: &'static str,
        must_be: &'static str,
    ) -> Result<Option<(String, PathBuf)>, ConfigError> {
        match self.lookup(flag) {
            Some((name, path)) if path.is_empty() => Err(ConfigError::Value { name, must_be }),
            path => Ok(path.map(|(name, path)| (name, PathBuf::from(path)))),
        }
    }

    fn name(&self, flag: &'static str) -> Result<Option<String>, ConfigError> {
        self.parsed(flag, "a name", |name| (!name.is_empty()).then(|| name.to_owned()))
    }

    /// The format of reports and answers, and another one for the answer of this command.
    fn format(
        &self,
        command: CommandName,
    ) -> Result<(Format, Option<DocumentFormat>), ConfigError> {
        use DocumentFormat::{Markdown, Review};
        use ReviewFormat::{Github, Sarif};
        let (documents, must_be): (&[_], _) = match command {
            CommandName::Check => {
                let formats = &[("sarif", Review(Sarif)), ("github", Review(Github))];
                (formats, "text, json, sarif or github")
            }
            CommandName::Rehearse => (&[("markdown", Markdown)], "text, json or markdown"),
            _ => (&[], "text or json"),
        };
        let format = self.parsed(FORMAT, must_be, |value| match value {
            "text" => Some((Format::Text, None)),
            "json" => Some((Format::Json, None)),
            _ => {
                let document = documents.iter().find(|(name, _)| *name == value);
                document.map(|(_, document)| (Format::Text, Some(*document)))
            }
        })?;
        Ok(format.unwrap_or_default())
    }

    fn color(&self) -> Result<ColorChoice, ConfigError> {
        let color = self.parsed(COLOR, "auto, always or never", |value| match value {
            "auto" => Some(ColorChoice::Auto),
            "always" => Some(ColorChoice::Always),
            "never" => Some(ColorChoice::Never),
            _ => None,
        })?;
        Ok(color.unwrap_or_default())
    }

    fn appearance(&self, format: Format, color: ColorChoice) -> Appearance {
        let environment = &self.environment;
        let no_color = environment.get("NO_COLOR").is_some();
        let is_dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        Appearance { format, color, no_color, is_dumb }
    }

    fn switch(&self, flag: &'static str) -> Result<bool, ConfigError> {
        Ok(self.options.contains_key(flag) || self.environment.bool_var(&args::variable(flag))?)
    }

    /// An empty path, in the variable too, means no file.
    fn add_env_file(&mut self) -> Result<(), ConfigError> {
        let flag = "--env-file";
        let variable = args::variable(flag);
        let named = match (self.options.get(flag), self.environment.get_even_empty(&variable)) {
            (Some(path), _) => Some((flag.to_owned(), PathBuf::from(path))),
            (None, Some(path)) => Some((variable, PathBuf::from(path))),
            (None, None) => None,
        };
        match &named {
            Some((_, path)) if path.as_os_str().is_empty() => Ok(()),
            Some((name, path)) => self.environment.add_env_file(Some((name.clone(), path))),
            None => self.environment.add_env_file(None),
        }
    }

    fn refuse_unknown(&self) -> Result<(), ConfigError> {
        let known = |name: &str| {
            name == "PREMIGRATE_SKIP" || OPTIONS.iter().any(|opt| args::variable(opt.flag) == name)
        };
        let ours = self.environment.names().filter(|name| exec::is_ours(name));
        match ours.into_iter().find(|name| !known(name)) {
            Some("PREMIGRATE_MIGRATIONS") => Err(ConfigError::BuildVariable),
            Some(name) => Err(ConfigError::UnknownVariable(name.to_owned())),
            None => Ok(()),
        }
    }
}

/// Parses names between commas.
fn list(text: &str) -> Option<Vec<String>> {
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

fn notice_level(text: &str) -> Option<NoticeLevel> {
    match text {
        "none" => Some(NoticeLevel::Nothing),
        "warning" => Some(NoticeLevel::Warning),
        "notice" => Some(NoticeLevel::Notice),
        "info" => Some(NoticeLevel::Info),
        _ => None,
    }
}

/// Parses `250ms`, `30s`, `10m`, `1h`, or plain seconds.
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
    // PostgreSQL's own limit for a timeout, about 24 days.
    let total = number.checked_mul(milliseconds).filter(|&total| total <= i32::MAX as u64)?;
    Some(Duration::from_millis(total))
}

/// Parses `100MB` as PostgreSQL does: in units of 1024, with a space before them or not; or plain bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let number: u64 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    let unit = text.get(digits.len()..)?.trim_start_matches(' ').to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "kb" => 1,
        "mb" => 2,
        "gb" => 3,
        "tb" => 4,
        _ => return None,
    };
    number.checked_mul(1024_u64.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Parsed;

    fn config(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let Ok(Parsed::Run(invocation)) = args::parse(args.iter().map(OsString::from).collect())
        else {
            panic!("{args:?}")
        };
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Config::new(invocation, &Environment::new(variables))
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
    fn sizes_are_written_as_in_postgresql() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("100kB", Some(102_400)),
            ("100 MB", Some(104_857_600)),
            ("2gb", Some(2_147_483_648)),
            ("1TB", Some(1_099_511_627_776)),
            ("", None),
            ("MB", None),
            ("-1MB", None),
            ("+1MB", None),
            ("1.5GB", None),
            ("1GB ", None),
            ("1MiB", None),
            ("1M", None),
            ("1 000MB", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_flag_overrides_its_variable_and_a_variable_the_default() {
        let wait = |args: &[&str], variables: &[(&str, &str)]| {
            let variables = [&[URL], variables].concat();
            config(args, &variables).unwrap().options().unwrap().wait.as_secs()
        };
        assert_eq!(wait(&[], &[]), 60);
        assert_eq!(wait(&[], &[("PREMIGRATE_WAIT", "7s")]), 7);
        assert_eq!(wait(&["--wait", "8s"], &[("PREMIGRATE_WAIT", "7s")]), 8);
        assert_eq!(wait(&[], &[("PREMIGRATE_WAIT", "")]), 60);
    }

    #[test]
    fn a_wrong_value_is_refused_with_a_hint() {
        for (args, variables, expected) in [
            (&["--wait", "soon"][..], &[][..], "--wait must be a duration"),
            (&[], &[("PREMIGRATE_WAIT", "soon")], "PREMIGRATE_WAIT must be a duration"),
            (&["--only-for", "a,,b", "--", "a"], &[], "--only-for must be a comma-separated list"),
            (&["healthcheck", "tcp://a:1", "--timeout", "0"], &[], "and not 0"),
            (&[], &[("PREMIGRATE_HEALTH", "80")], "PREMIGRATE_HEALTH must be :PORT, IP:PORT or"),
            (&[], &[("PREMIGRATE_STRICT", "yes")], "PREMIGRATE_STRICT must be 1, true"),
            (&[], &[("PREMIGRATE_WIAT", "1s")], "unknown variable PREMIGRATE_WIAT"),
            (&[], &[("PREMIGRATE_HOST", "h")], "unknown variable PREMIGRATE_HOST"),
            (&[], &[("PREMIGRATE_MIGRATIONS", "x")], "set PREMIGRATE_DIR"),
            (&["--format", "xml"], &[], "--format must be text or json"),
            (&["--max-blocking", "large"], &[], "--max-blocking must be a size such as 500kB"),
            (&["--notices", "off"], &[], "--notices must be none, warning, notice or info"),
            (&["--color", "yes"], &[], "--color must be auto, always or never"),
            (&["--lock-retries", "-1"], &[], "--lock-retries must be a whole number"),
            (&["--template", "t"], &[], "--template is only used with --create-database"),
            (&["--schema", ""], &[], "--schema must be a name"),
            (&[], &[("DATABASE_URL_FILE", "/x")], "both DATABASE_URL and DATABASE_URL_FILE"),
        ] {
            let variables = [&[URL], variables].concat();
            let result = config(args, &variables).and_then(|config| config.options());
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn colors_are_for_terminals_unless_somebody_says_otherwise_and_never_in_json() {
        for (args, variables, on_terminal, elsewhere) in [
            (&[][..], &[][..], true, false),
            (&["--color", "auto"], &[], true, false),
            (&[], &[("NO_COLOR", "1")], false, false),
            (&[], &[("NO_COLOR", "")], true, false),
            (&[], &[("TERM", "dumb")], false, false),
            (&[], &[("PREMIGRATE_COLOR", "never")], false, false),
            (&["--color", "always"], &[("PREMIGRATE_COLOR", "never")], true, true),
            (&["--color", "always"], &[("NO_COLOR", "1"), ("TERM", "dumb")], true, true),
            (&["--color", "always", "--format", "json"], &[], false, false),
        ] {
            let appearance = config(args, variables).unwrap().appearance;
            let colored = [true, false].map(|it| appearance.style(it).is_colored);
            assert_eq!(colored, [on_terminal, elsewhere], "{args:?} {variables:?}");
        }
    }

    #[test]
    fn a_live_line_needs_a_terminal_that_can_replace_it() {
        for (args, variables, expected) in [
            (&[][..], &[][..], true),
            (&["--color", "never"], &[], true),
            (&["--format", "json"], &[], false),
            (&[], &[("TERM", "dumb")], false),
        ] {
            let appearance = config(args, variables).unwrap().appearance;
            assert_eq!(appearance.has_live_line(true), expected, "{args:?} {variables:?}");
            assert!(!appearance.has_live_line(false));
        }
    }

    #[test]
    fn a_run_without_a_database_is_refused() {
        let error = config(&["--env-file", ""], &[]).unwrap().options().unwrap_err();
        assert!(error.to_string().contains("set DATABASE_URL"), "{error}");
    }

    #[test]
    fn migration_database_url_comes_first() {
        let variables = [URL, ("MIGRATION_DATABASE_URL", "postgres://owner@other/d")];
        let target = config(&[], &variables).unwrap().options().unwrap().target;
        assert_eq!(target.user, "owner");
    }

    #[test]
    fn a_command_gets_its_own_options() {
        let command = |args: &[&str], variables: &[(&str, &str)]| {
            config(args, &[&[URL], variables].concat()).map(|config| config.command)
        };
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let up = |accept: &[&str], baseline_through: Option<&str>| Operation::Up {
            accept: names(accept),
            baseline_through: baseline_through.map(str::to_owned),
            through: None,
            create_database: None,
        };
        let through = |create_database: Option<NewDatabase>| Operation::Up {
            accept: names(&[]),
            baseline_through: None,
            through: Some("a".to_owned()),
            create_database,
        };
        let created =
            |template: Option<&str>| Some(NewDatabase { template: template.map(str::to_owned) });
        for (args, variables, expected) in [
            (&[][..], &[][..], Command::Run(up(&[], None))),
            (&["--dry-run", "--accept", "a, b"], &[], Command::DryRun(up(&["a", "b"], None))),
            (&[], &[("PREMIGRATE_BASELINE_THROUGH", "a")], Command::Run(up(&[], Some("a")))),
            (&["--through", "a"], &[], Command::Run(through(None))),
            (
                &["--through=a", "--create-database"],
                &[("PREMIGRATE_TEMPLATE", "t")],
                Command::Run(through(created(Some("t")))),
            ),
            (&[], &[("PREMIGRATE_TEMPLATE", "t")], Command::Run(up(&[], None))),
            (&[], &[("PREMIGRATE_ONLY_FOR", "app")], Command::Run(up(&[], None))),
            (&[], &[("PREMIGRATE_SKIP", "1")], Command::Skip),
            (&["wait"], &[("PREMIGRATE_SKIP", "1")], Command::Skip),
            (&["list"], &[("PREMIGRATE_SKIP", "1")], Command::List { extract: None }),
            (&["wait"], &[("PREMIGRATE_DRY_RUN", "1")], Command::Wait),
            (
                &["status", "--exit-code"],
                &[("PREMIGRATE_ACCEPT", "a")],
                Command::Status { exit_code: true, up: up(&["a"], None) },
            ),
            (&["baseline"], &[], Command::Run(Operation::Baseline { through: None })),
            (&["accept", "--all"], &[], Command::Run(Operation::Accept { names: None })),
            (
                &["accept", "a"],
                &[("PREMIGRATE_ALL", "1")],
                Command::Run(Operation::Accept { names: Some(names(&["a"])) }),
            ),
            (
                &["new", "a"],
                &[("PREMIGRATE_DIR", "d")],
                Command::New { name: "a".to_owned(), dir: "d".into() },
            ),
            (
                &["bundle", "--dir", "d", "--output=o"],
                &[("PREMIGRATE_BASE", "b")],
                Command::Bundle(BundleParts {
                    dir: "d".into(),
                    output: "o".into(),
                    base: Some("b".into()),
                }),
            ),
        ] {
            assert_eq!(command(args, variables).unwrap(), expected, "{args:?}");
        }
        for (args, expected) in [
            (&["accept"][..], UsageError::NoName("accept")),
            (&["new"], UsageError::NoName("new")),
            (&["new", "a"], UsageError::NoFolder("new")),
            (&["bundle", "--output", "o"], UsageError::NoFolder("bundle")),
            (&["bundle", "--dir", "d"], UsageError::NoOutput),
        ] {
            let error = command(args, &[]).unwrap_err();
            assert!(matches!(error, ConfigError::Usage(error) if error == expected), "{args:?}");
        }
    }

    #[test]
    fn a_rehearsal_waits_for_locks_more_briefly_and_has_one_place() {
        let options = |args: &[&str], variables: &[(&str, &str)]| {
            let config = config(&[&["rehearse"], args].concat(), &[&[URL], variables].concat());
            config.and_then(|config| config.options())
        };
        let here = options(&["--here"], &[]).unwrap();
        assert_eq!(here.lock_timeout, Duration::from_millis(200));
        assert_eq!(config(&[], &[URL]).unwrap().options().unwrap().lock_timeout.as_secs(), 5);
        let longer = options(&["--here", "--lock-timeout", "3s"], &[]).unwrap();
        assert_eq!(longer.lock_timeout.as_secs(), 3);
        let on = options(&["--on", "postgres://r@other/d"], &[]).unwrap();
        assert_eq!((on.target.user.as_str(), on.current_target().user.as_str()), ("r", "r"));
        let with_password = "postgres://r:p@other/d";
        let on = options(&[], &[("PREMIGRATE_ON", with_password)]).unwrap();
        assert_eq!(on.current_target().user, "r");
        for (args, variables, expected) in [
            (&[][..], &[][..], UsageError::NoPlace),
            (&["--here"], &[("PREMIGRATE_ON", "postgres://h/d")], UsageError::NoPlace),
            (&["--on", with_password], &[], UsageError::PasswordInUrl),
        ] {
            let error = options(args, variables).unwrap_err();
            assert!(matches!(error, ConfigError::Usage(it) if it == expected), "{args:?}");
        }
    }

    #[test]
    fn only_what_an_app_waits_for_listens() {
        let listens = |args: &[&str], skip: &str| {
            let variables = [URL, ("PREMIGRATE_HEALTH", ":8080"), ("PREMIGRATE_SKIP", skip)];
            config(args, &variables).unwrap().health == Some(HealthAddress::Every(8080))
        };
        assert!(listens(&[], "") && listens(&["wait"], ""));
        assert!(!listens(&[], "1") && !listens(&["--dry-run"], ""));
        // In a container whose app has the port.
        for command in ["status", "baseline", "list"] {
            assert!(!listens(&[command], ""), "{command}");
        }
        assert!(!listens(&["--only-for", "a", "--", "b"], ""));
    }

    #[test]
    fn a_dry_run_starts_no_app() {
        let app = |args: &[&str]| config(args, &[URL]).unwrap().app.is_some();
        assert!(app(&["--", "node"]));
        assert!(!app(&["--dry-run", "--", "node"]));
        // `wait` has no use for the variable.
        let waiting = config(&["wait", "--", "node"], &[URL, ("PREMIGRATE_DRY_RUN", "1")]);
        assert!(waiting.unwrap().app.is_some());
    }
}
