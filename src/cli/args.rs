//! The command line: what was typed, and nothing of what it means.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::process::exec::App;

/// What `--help` prints.
pub const HELP: &str = "\
Applies a project's SQL migrations to PostgreSQL, then becomes the app.

Usage: premigrate [COMMAND] [OPTION]... [-- APP [ARG]...]

Commands:
  up                         wait for the database, apply what is pending in
                             order, become APP if one is given (default)
  status                     how each migration stands: applied, pending, edited
  list                       what this file, or --dir, carries; no database
  check                      what can be said of that alone; no database
  baseline [--through NAME]  record as applied, without running
  accept NAME... | --all     record migrations edited since, as they are now
  new NAME --dir DIR         add an empty migration, as drizzle-kit does

Options:
  --dir DIR              migrations folder, instead of what this file carries
  --schema S             schema of the history table [drizzle]
  --table T              history table [__drizzle_migrations]
  --wait D               how long to wait for the database; 0 = one try [60s]
  --runner-wait D        how long to wait for another runner; 0 = one try [10m]
  --lock-timeout D       how long to queue for a table lock; 0 = off [5s]
  --lock-retries N       how often to try again after that; 0 = never [8]
  --statement-timeout D  how long a statement may run; 0 = none [the server's]
  --apply-older          up: run pending migrations older than the history
  --accept NAME,...      up: accept these first
  --dry-run              up: show what would run; change and start nothing
  --strict               up: refuse unknown rows and migrations out of order
  --exit-code            status: 10 if something is pending, 65 if edited
  --through NAME         baseline: up to and with this migration [all]
  --all                  accept: all that were edited
  --format text|json     text, or one JSON object a line [text]
  --env-file FILE        variables for development; '' = none [.env]
  --help, --version      print this, or the version

D is 250ms, 30s, 10m, 1h, or plain seconds. Every option has a variable:
--runner-wait is PREMIGRATE_RUNNER_WAIT. Flags come before the environment.
PREMIGRATE_SKIP=1 applies nothing and becomes APP.

The database is MIGRATION_DATABASE_URL, else DATABASE_URL, else PGHOST, PGUSER,
PGPASSWORD, ... Each URL and PGPASSWORD may be given as NAME_FILE.

Exit codes: 0 done; 64 command line; 65 migrations or history; 69 database
unreachable; 70 a migration failed; 75 try again; 77 refused; 78 configuration;
126, 127 APP cannot be executed, is not there; 128+n ended by signal n.
";

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Apply what is pending, then become the app.
    Up,
    /// Show how carried set and history stand to each other.
    Status,
    /// Show what is carried.
    List,
    /// Say what can be said of the carried set alone.
    Check,
    /// Record migrations as applied without running them.
    Baseline,
    /// Record edited migrations as they are now.
    Accept,
    /// Add an empty migration to a folder.
    New,
}

impl Command {
    const ALL: [(&'static str, Command); 7] = [
        ("up", Command::Up),
        ("status", Command::Status),
        ("list", Command::List),
        ("check", Command::Check),
        ("baseline", Command::Baseline),
        ("accept", Command::Accept),
        ("new", Command::New),
    ];

    /// What is typed.
    pub fn name(self) -> &'static str {
        Command::ALL.iter().find(|(_, command)| *command == self).map_or("", |(name, _)| name)
    }
}

/// One option; each is a flag and a variable.
#[derive(Debug)]
pub struct Opt {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// Whether it takes a value.
    pub takes_value: bool,
    /// The commands that use it.
    commands: &'static [Command],
}

impl Opt {
    /// Its variable: `--runner-wait` is `PREMIGRATE_RUNNER_WAIT`.
    pub fn variable(&self) -> String {
        let name = self.flag.trim_start_matches('-').replace('-', "_").to_uppercase();
        format!("PREMIGRATE_{name}")
    }
}

const fn value(flag: &'static str, commands: &'static [Command]) -> Opt {
    Opt { flag, takes_value: true, commands }
}

const fn switch(flag: &'static str, commands: &'static [Command]) -> Opt {
    Opt { flag, takes_value: false, commands }
}

const UP: &[Command] = &[Command::Up];
/// The commands that write.
const WRITING: &[Command] = &[Command::Up, Command::Baseline, Command::Accept];
/// The commands that ask a database.
const ASKING: &[Command] = &[Command::Up, Command::Status, Command::Baseline, Command::Accept];
/// The commands that know the history's name.
const NAMING: &[Command] =
    &[Command::Up, Command::Status, Command::Check, Command::Baseline, Command::Accept];
const ALL: &[Command] = &[
    Command::Up,
    Command::Status,
    Command::List,
    Command::Check,
    Command::Baseline,
    Command::Accept,
    Command::New,
];

const FORMAT: &str = "--format";

/// All options, and the commands that use them.
pub const OPTIONS: [Opt; 17] = [
    value("--dir", ALL),
    value("--schema", NAMING),
    value("--table", NAMING),
    value("--wait", ASKING),
    value("--runner-wait", WRITING),
    value("--lock-timeout", WRITING),
    value("--lock-retries", WRITING),
    value("--statement-timeout", UP),
    switch("--apply-older", UP),
    value("--accept", UP),
    switch("--dry-run", UP),
    switch("--strict", UP),
    switch("--exit-code", &[Command::Status]),
    value("--through", &[Command::Baseline]),
    switch("--all", &[Command::Accept]),
    value(FORMAT, ALL),
    value("--env-file", ALL),
];

/// A command line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What is to be done.
    pub command: Command,
    /// The names after the command.
    pub names: Vec<String>,
    /// The options that were given, by flag; a switch has an empty value.
    pub options: BTreeMap<&'static str, OsString>,
    /// What to become.
    pub app: Option<App>,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A run.
    Run(Invocation),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// `--` with nothing after it.
    NoApp,
    /// A command that starts no app, with one.
    AppNotUsed(&'static str),
    /// A command that needs a name, without one.
    NoName(&'static str),
    /// `new` without a folder to add to.
    NoFolder,
    /// Where the database is, which is not for a command line.
    ConnectionString,
    /// A word that is no command.
    UnknownCommand(String),
    /// A word too many.
    UnexpectedWord(String),
    /// A flag that is none of ours.
    UnknownOption(String),
    /// A flag that stands twice.
    Repeated(&'static str),
    /// A flag without its value.
    NoValue(&'static str),
    /// A switch with a value.
    TakesNoValue(&'static str),
    /// A flag that the command does not use.
    NotUsed {
        /// The flag.
        flag: &'static str,
        /// The command.
        command: &'static str,
    },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NoApp => f.write_str(
                "nothing stands after `--`: name the app there, or leave `--` out. An image whose \
                 Dockerfile sets ENTRYPOINT loses the CMD of its base image, so set CMD too",
            ),
            UsageError::AppNotUsed(command) => {
                write!(f, "`{command}` starts no app: leave out `--` and what follows")
            }
            UsageError::NoName("accept") => f.write_str("`accept` needs names, or --all"),
            UsageError::NoName(command) => write!(f, "`{command}` needs a name: {command} NAME"),
            UsageError::NoFolder => f.write_str("`new` needs the folder to add to: --dir DIR"),
            UsageError::ConnectionString => f.write_str(
                "a connection string is no argument, since everyone on the host can read a command \
                 line: set DATABASE_URL",
            ),
            UsageError::UnknownCommand(word) => {
                write!(f, "`{word}` is not a command; an app is given after `--`")
            }
            UsageError::UnexpectedWord(word) => {
                write!(f, "`{word}` is one word too many; an app is given after `--`")
            }
            UsageError::UnknownOption(flag) => write!(f, "`{flag}` is not an option"),
            UsageError::Repeated(flag) => write!(f, "{flag} is given twice"),
            UsageError::NoValue(flag) => write!(f, "{flag} needs a value: {flag} VALUE"),
            UsageError::TakesNoValue(flag) => write!(f, "{flag} takes no value"),
            UsageError::NotUsed { flag, command } => write!(f, "`{command}` does not use {flag}"),
        }
    }
}

/// How a command line wants to be answered, also one that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputHints {
    /// Its `--format`, if it has one.
    pub options: BTreeMap<&'static str, OsString>,
    /// Whether it names an app.
    pub with_app: bool,
}

/// Finds that out, whatever else there is.
pub fn output_hints(args: &[OsString]) -> OutputHints {
    let mut words = args.iter();
    let ours = words.by_ref().take_while(|arg| *arg != "--").cloned();
    let mut ours = pico_args::Arguments::from_vec(ours.flat_map(separated).collect());
    let with_app = words.next().is_some_and(|app| !app.is_empty());
    let format = ours.opt_value_from_os_str(FORMAT, |value| Ok::<_, String>(value.to_owned()));
    let format = format.ok().flatten();
    OutputHints { options: format.map(|format| (FORMAT, format)).into_iter().collect(), with_app }
}

/// Takes a command line apart, without the program's own name.
pub fn parse(mut args: Vec<OsString>) -> Result<Parsed, UsageError> {
    // Before anything is searched for: what stands after the first `--` is the app's.
    let app = match args.iter().position(|arg| arg == "--") {
        Some(at) => {
            let mut app = args.split_off(at).into_iter().skip(1);
            let program =
                app.next().filter(|program| !program.is_empty()).ok_or(UsageError::NoApp)?;
            Some(App { program, args: app.collect() })
        }
        None => None,
    };
    let mut args = pico_args::Arguments::from_vec(args.into_iter().flat_map(separated).collect());
    if args.contains(["-h", "--help"]) {
        return Ok(Parsed::Help);
    }
    if args.contains(["-V", "--version"]) {
        return Ok(Parsed::Version);
    }

    let mut options = BTreeMap::new();
    for Opt { flag, takes_value, .. } in &OPTIONS {
        if *takes_value {
            let given = args
                .opt_value_from_os_str(*flag, |value| Ok::<_, String>(value.to_owned()))
                .map_err(|_| UsageError::NoValue(flag))?;
            if let Some(value) = given {
                if looks_like_an_option(&value) {
                    return Err(UsageError::NoValue(flag));
                }
                options.insert(*flag, value);
            }
        } else if args.contains(*flag) {
            options.insert(*flag, OsString::new());
        }
    }

    let rest = args.finish();
    if rest.iter().any(|arg| may_hold_a_password(arg)) {
        return Err(UsageError::ConnectionString);
    }
    let (flags, mut words): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|arg| arg.as_encoded_bytes().starts_with(b"-"));
    if let Some(flag) = flags.first() {
        return Err(unknown(flag));
    }
    let command = if words.is_empty() { Command::Up } else { command(&words.remove(0))? };
    let names = names(command, words, options.contains_key("--all"))?;
    let unused = OPTIONS
        .iter()
        .find(|opt| options.contains_key(opt.flag) && !opt.commands.contains(&command));
    if let Some(Opt { flag, .. }) = unused {
        return Err(UsageError::NotUsed { flag, command: command.name() });
    }
    if app.is_some() && command != Command::Up {
        return Err(UsageError::AppNotUsed(command.name()));
    }
    Ok(Parsed::Run(Invocation { command, names, options, app }))
}

/// The words after the command: names, as many as it takes.
fn names(command: Command, words: Vec<OsString>, all: bool) -> Result<Vec<String>, UsageError> {
    let names: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    // Without a name, `accept` may have PREMIGRATE_ALL.
    let (least, most) = match command {
        Command::Accept if all => (0, 0),
        Command::Accept => (0, usize::MAX),
        Command::New => (1, 1),
        _ => (0, 0),
    };
    if let Some(word) = names.get(most) {
        return Err(UsageError::UnexpectedWord(word.clone()));
    }
    if names.len() < least || names.iter().any(String::is_empty) {
        return Err(UsageError::NoName(command.name()));
    }
    Ok(names)
}

/// `--flag=VALUE` as two words; pico-args does so only for values that are UTF-8.
fn separated(arg: OsString) -> Vec<OsString> {
    let value_of = |flag: &str| arg.as_bytes().strip_prefix(flag.as_bytes())?.strip_prefix(b"=");
    let found = OPTIONS.iter().filter(|opt| opt.takes_value).find_map(|opt| {
        let value = OsStr::from_bytes(value_of(opt.flag)?);
        Some(vec![OsString::from(opt.flag), value.to_owned()])
    });
    found.unwrap_or_else(|| vec![arg])
}

/// Whether this is a URL, or `key=value` pairs with a password: nothing of it may be printed.
fn may_hold_a_password(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    text.contains("://") || (!text.starts_with('-') && text.contains("password="))
}

fn command(word: &OsStr) -> Result<Command, UsageError> {
    Command::ALL
        .iter()
        .find(|(name, _)| word == *name)
        .map(|(_, command)| *command)
        .ok_or_else(|| UsageError::UnknownCommand(word.to_string_lossy().into_owned()))
}

fn looks_like_an_option(value: &OsStr) -> bool {
    OPTIONS
        .iter()
        .any(|opt| value.to_str().is_some_and(|value| value.split('=').next() == Some(opt.flag)))
}

/// What a leftover flag is: one of ours, a second time or with a value too many; or none.
fn unknown(flag: &OsStr) -> UsageError {
    let text = flag.to_string_lossy();
    let name = text.split('=').next().unwrap_or_default();
    match OPTIONS.iter().find(|opt| opt.flag == name) {
        Some(opt) if !opt.takes_value && text.contains('=') => UsageError::TakesNoValue(opt.flag),
        Some(opt) => UsageError::Repeated(opt.flag),
        None => UsageError::UnknownOption(name.to_owned()),
    }
}

/// Quotes a word for a shell where it needs that.
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-+.,:/@%".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Parsed, UsageError> {
        parse(args.iter().map(OsString::from).collect())
    }

    fn run(args: &[&str]) -> Invocation {
        match parsed(args) {
            Ok(Parsed::Run(invocation)) => invocation,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn up_is_what_is_done_without_a_command() {
        assert_eq!(run(&[]).command, Command::Up);
        assert_eq!(run(&["list"]).command, Command::List);
    }

    #[test]
    fn an_option_takes_its_value_in_both_ways_before_and_after_the_command() {
        for args in [&["--dir", "x", "up"][..], &["up", "--dir=x"]] {
            assert_eq!(run(args).options.get("--dir"), Some(&OsString::from("x")), "{args:?}");
        }
        assert_eq!(run(&["--env-file", ""]).options.get("--env-file"), Some(&OsString::new()));
    }

    #[test]
    fn everything_after_the_first_dashes_is_the_apps() {
        let invocation = run(&["--strict", "--", "node", "--dir", "--", "--help"]);
        let app = invocation.app.unwrap();
        assert_eq!(app.program, "node");
        assert_eq!(app.args, ["--dir", "--", "--help"]);
        assert!(!invocation.options.contains_key("--dir"));
    }

    #[test]
    fn help_and_version_are_requests_of_their_own() {
        assert_eq!(parsed(&["--help"]), Ok(Parsed::Help));
        assert_eq!(parsed(&["up", "-V"]), Ok(Parsed::Version));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let word = |word: &str| word.to_owned();
        for (args, usage) in [
            (&["--"][..], UsageError::NoApp),
            (&["--", ""], UsageError::NoApp),
            (&["list", "--", "node"], UsageError::AppNotUsed("list")),
            (&["node"], UsageError::UnknownCommand(word("node"))),
            (&["up", "now"], UsageError::UnexpectedWord(word("now"))),
            (&["--verbose"], UsageError::UnknownOption(word("--verbose"))),
            (&["-x"], UsageError::UnknownOption(word("-x"))),
            (&["--password=secret"], UsageError::UnknownOption(word("--password"))),
            (&["postgres://u:p@h/d"], UsageError::ConnectionString),
            (&["--database-url", "postgres://u:p@h/d"], UsageError::ConnectionString),
            (&["--url=postgres://u:p@h/d"], UsageError::ConnectionString),
            (&["up", "host=h password=p"], UsageError::ConnectionString),
            (&["--dir", "a", "--dir", "b"], UsageError::Repeated("--dir")),
            (&["--strict", "--strict"], UsageError::Repeated("--strict")),
            (&["--dir"], UsageError::NoValue("--dir")),
            (&["--dir", "--strict"], UsageError::NoValue("--dir")),
            (&["--strict=yes"], UsageError::TakesNoValue("--strict")),
            (&["list", "--wait", "1s"], UsageError::NotUsed { flag: "--wait", command: "list" }),
            (&["accept", ""], UsageError::NoName("accept")),
            (&["accept", "a", "--all"], UsageError::UnexpectedWord(word("a"))),
            (&["new"], UsageError::NoName("new")),
            (&["new", "a", "b"], UsageError::UnexpectedWord(word("b"))),
            (&["status", "--", "node"], UsageError::AppNotUsed("status")),
        ] {
            assert_eq!(parsed(args), Err(usage), "{args:?}");
        }
    }

    #[test]
    fn help_names_every_command_and_option_and_no_other() {
        let words = |start: &str| -> Vec<String> {
            let lines = HELP.lines().filter_map(|line| line.strip_prefix("  "));
            let first = lines.filter_map(|line| line.split([' ', ',']).next());
            first.filter(|word| word.starts_with(start)).map(str::to_owned).collect()
        };
        let mut flags: Vec<_> = OPTIONS.iter().map(|opt| opt.flag.to_owned()).collect();
        flags.push("--help".to_owned());
        assert_eq!(words("--"), flags);
        for (name, _) in Command::ALL {
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
        }
        assert!(HELP.lines().all(|line| line.len() <= 80));
    }
}
