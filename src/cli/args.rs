//! The command line as it was typed; `config` says what it means.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use pico_args::Arguments;

use self::CommandName::{
    Accept, Baseline, Bundle, Check, Healthcheck, List, New, Rehearse, Status, Up, Wait,
};
use crate::cli::error::UsageError;
use crate::process::exec::App;
use crate::sql::redact;

pub const HELP: &str = "\
Applies a project's SQL migrations to PostgreSQL, then becomes the app.

Usage: premigrate [COMMAND] [OPTION]... [-- APP [ARG]...]

Commands:
  up                         wait for the database, apply pending migrations in
                             order, then become APP if one is given (default)
  wait                       wait until nothing is pending, then become APP
  status                     show which migrations are applied, edited, pending
  list                       list the migrations in --dir, or the embedded ones
  check                      report problems in these migrations
  rehearse --here | --on URL run what is pending, report what it locks and
                             rewrites and for how long, and roll it back
  baseline [--through NAME]  record migrations as applied without running them
  accept NAME... | --all     record the current content of edited migrations
  new NAME --dir DIR         add an empty migration to a folder of plain files
  bundle --dir DIR --output FILE
                             copy this executable with the migrations of DIR
  healthcheck URL            check http://... or tcp://...; exit with 0 or 1

Only up, wait, status, rehearse, baseline, accept and check --database connect
to a database.

Options:
  --dir DIR                migrations folder [embedded, else /migrations]
  --schema S               schema of the history table [drizzle]
  --table T                history table [__drizzle_migrations]
  --wait D                 how long to wait for the database; 0 = once [60s]
  --runner-wait D          how long to wait for another runner; 0 = once [10m]
  --health ADDR            up, wait: serve /live, /ready and /metrics meanwhile
  --only-for PROGRAM,...   up, wait: migrate only if APP is one of these
  --lock-timeout D         how long to wait for a lock; 0 = no limit [5s]
  --lock-retries N         how often to retry after a lock timeout; 0 = none [8]
  --statement-timeout D    how long a statement may run; 0 = no limit [server's]
  --notices LEVEL          up, rehearse: least severe message to show [notice]
  --apply-older            run pending ones that the history puts in doubt
  --accept NAME,...        up: accept these edited migrations first
  --baseline-through NAME  up: first record migrations up to NAME as applied
  --dry-run                up: show what would run, without running it or APP
  --strict                 refuse unknown rows, disorder; check: what can block
  --since PATH             check: only what is new since this folder or list
  --database               check: what is pending there, with sizes of tables
  --max-blocking SIZE      up: refuse statements that block for a larger table
  --exit-code              status: 10 if something is pending, 65 if up refuses
  --through NAME           run or record up to and including this one [all]
  --create-database        up: create the database if it does not exist
  --template DB            up: create the database as a copy of this one
  --here                   rehearse: in the database of the environment
  --on URL                 rehearse: in this database, such as a copy or branch
  --from-scratch           rehearse: all migrations, in an empty database
  --html FILE              rehearse: write a page with the report and a picture
  --svg FILE               rehearse: write the picture alone
  --all                    accept: all edited migrations
  --extract DIR            list: write the files into DIR, a new folder
  --output FILE            bundle: the executable to make
  --base FILE              bundle: the premigrate to copy [this executable]
  --timeout D              healthcheck: how long it may take [5s]
  --format FORMAT          text, json; some: sarif, github, markdown [text]
  --color WHEN             auto, on a terminal; always; or never [auto]
  --env-file FILE          file with variables for development; '' = none [.env]
  --help, --version        print this help, or the version

D is a duration: 250ms, 30s, 10m, 1h, or plain seconds. SIZE is in kB, MB, GB
or TB, such as 500MB. Every option has a variable, which the option overrides:
--runner-wait is PREMIGRATE_RUNNER_WAIT.
With PREMIGRATE_SKIP=1, up and wait do not connect: they only become APP.

The database is MIGRATION_DATABASE_URL, else DATABASE_URL, else PGHOST, PGUSER,
PGPASSWORD, ... For each URL and for PGHOST, PGUSER, PGPASSWORD and PGDATABASE,
the variable NAME_FILE can name a file that holds the value.

Exit codes: 0 done; 1 unhealthy; 64 command line; 65 migrations or history;
69 database unreachable; 70 a migration failed; 75 try again; 77 refused;
78 configuration; 126, 127 APP cannot be executed, does not exist; 128+n ended
by signal n.
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandName {
    Up,
    Wait,
    Status,
    List,
    Check,
    Rehearse,
    Baseline,
    Accept,
    New,
    Bundle,
    Healthcheck,
}

impl CommandName {
    const ALL: [CommandName; 11] =
        [Up, Wait, Status, List, Check, Rehearse, Baseline, Accept, New, Bundle, Healthcheck];

    /// Whether it becomes an app.
    pub fn starts_app(self) -> bool {
        STARTS_APP.contains(&self)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Up => "up",
            Wait => "wait",
            Status => "status",
            List => "list",
            Check => "check",
            Rehearse => "rehearse",
            Baseline => "baseline",
            Accept => "accept",
            New => "new",
            Bundle => "bundle",
            Healthcheck => "healthcheck",
        }
    }
}

/// An option: a flag and the variable that stands for it.
#[derive(Debug)]
pub struct Opt {
    /// With its dashes.
    pub flag: &'static str,
    pub takes_value: bool,
    /// The commands that use it.
    commands: &'static [CommandName],
}

/// The variable of an option: that of `--runner-wait` is `PREMIGRATE_RUNNER_WAIT`.
pub fn variable(flag: &str) -> String {
    let name = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
    format!("PREMIGRATE_{name}")
}

const fn value(flag: &'static str, commands: &'static [CommandName]) -> Opt {
    Opt { flag, takes_value: true, commands }
}

const fn switch(flag: &'static str, commands: &'static [CommandName]) -> Opt {
    Opt { flag, takes_value: false, commands }
}

const STARTS_APP: &[CommandName] = &[Up, Wait];
const RUNS: &[CommandName] = &[Up, Rehearse];
const LOCKS: &[CommandName] = &[Up, Rehearse, Baseline, Accept];
const WAITS_FOR_RUNNER: &[CommandName] = &[Up, Wait, Rehearse, Baseline, Accept];
const USES_DATABASE: &[CommandName] = &[Up, Wait, Status, Check, Rehearse, Baseline, Accept];
const USES_TABLE: &[CommandName] = &[Up, Wait, Status, Check, Rehearse, Baseline, Accept];
const USES_FOLDER: &[CommandName] =
    &[Up, Wait, Status, List, Check, Rehearse, Baseline, Accept, New, Bundle];
const ALL: &[CommandName] = &CommandName::ALL;

pub const FORMAT: &str = "--format";
pub const COLOR: &str = "--color";

pub const OPTIONS: [Opt; 36] = [
    value("--dir", USES_FOLDER),
    value("--schema", USES_TABLE),
    value("--table", USES_TABLE),
    value("--wait", USES_DATABASE),
    value("--runner-wait", WAITS_FOR_RUNNER),
    value("--health", STARTS_APP),
    value("--only-for", STARTS_APP),
    value("--lock-timeout", LOCKS),
    value("--lock-retries", LOCKS),
    value("--statement-timeout", RUNS),
    value("--notices", RUNS),
    switch("--apply-older", RUNS),
    value("--accept", &[Up]),
    value("--baseline-through", &[Up]),
    switch("--dry-run", &[Up]),
    switch("--strict", &[Up, Wait, Check, Rehearse]),
    value("--since", &[Check]),
    switch("--database", &[Check]),
    value("--max-blocking", &[Up]),
    switch("--exit-code", &[Status]),
    value("--through", &[Up, Rehearse, Baseline]),
    switch("--create-database", &[Up]),
    value("--template", &[Up]),
    switch("--here", &[Rehearse]),
    value("--on", &[Rehearse]),
    switch("--from-scratch", &[Rehearse]),
    value("--html", &[Rehearse]),
    value("--svg", &[Rehearse]),
    switch("--all", &[Accept]),
    value("--extract", &[List]),
    value("--output", &[Bundle]),
    value("--base", &[Bundle]),
    value("--timeout", &[Healthcheck]),
    value(FORMAT, ALL),
    value(COLOR, ALL),
    value("--env-file", ALL),
];

/// A command line for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub command: CommandName,
    /// The words after the command.
    pub names: Vec<String>,
    /// By flag. A switch has an empty value.
    pub options: BTreeMap<&'static str, OsString>,
    pub app: Option<App>,
}

/// Command lines that a message can suggest: they name the same migrations and the same history as
/// this run's command line does.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    options: Vec<(&'static Opt, String)>,
}

impl Commands {
    pub fn line(&self, command: CommandName, words: &str) -> String {
        let mut line = format!("premigrate {}", command.as_str());
        if !words.is_empty() {
            line = format!("{line} {words}");
        }
        for (opt, value) in self.options.iter().filter(|(opt, _)| opt.commands.contains(&command)) {
            line = format!("{line} {} {}", opt.flag, shell_word(value));
        }
        line
    }
}

impl Invocation {
    pub fn commands(&self) -> Commands {
        let names = ["--dir", "--schema", "--table"];
        let options = OPTIONS.iter().filter(|opt| names.contains(&opt.flag));
        let given = options.filter_map(|opt| {
            Some((opt, self.options.get(opt.flag)?.to_string_lossy().into_owned()))
        });
        Commands { options: given.collect() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Run(Invocation),
    Help,
    Version,
}

/// How to report an error in the command line itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputHints {
    /// The values of `--format` and `--color`, if they were given.
    pub format: Option<OsString>,
    pub color: Option<OsString>,
    pub has_app: bool,
}

pub fn output_hints(args: &[OsString]) -> OutputHints {
    let mut words = args.iter();
    let ours = words.by_ref().take_while(|arg| *arg != "--").cloned();
    let mut ours = Arguments::from_vec(ours.flat_map(split_equals).collect());
    let has_app = words.next().is_some_and(|app| !app.is_empty());
    let mut value = |flag| take_value(&mut ours, flag).ok().flatten();
    OutputHints { format: value(FORMAT), color: value(COLOR), has_app }
}

/// Parses a command line without the program's own name.
pub fn parse(mut args: Vec<OsString>) -> Result<Parsed, UsageError> {
    // First of all: everything after the first `--` is the app's.
    let app = match args.iter().position(|arg| arg == "--") {
        Some(index) => {
            let mut app = args.split_off(index).into_iter().skip(1);
            let program =
                app.next().filter(|program| !program.is_empty()).ok_or(UsageError::NoApp)?;
            Some(App { program, args: app.collect() })
        }
        None => None,
    };
    let mut args = Arguments::from_vec(args.into_iter().flat_map(split_equals).collect());
    if args.contains(["-h", "--help"]) {
        return Ok(Parsed::Help);
    }
    if args.contains(["-V", "--version"]) {
        return Ok(Parsed::Version);
    }

    let options = options(&mut args)?;
    let rest = args.finish();
    let is_checked = |arg: &OsString| {
        rest.first().is_some_and(|word| word == Healthcheck.as_str()) && is_http_or_tcp(arg)
    };
    if rest.iter().any(|arg| may_hold_a_password(arg) && !is_checked(arg)) {
        return Err(UsageError::ConnectionString);
    }
    let (flags, mut words): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|arg| arg.as_encoded_bytes().starts_with(b"-"));
    if let Some(flag) = flags.first() {
        return Err(leftover_flag(flag));
    }
    let command = if words.is_empty() { Up } else { command(&words.remove(0))? };
    let names = names(command, words, options.contains_key("--all"))?;
    let unused = OPTIONS
        .iter()
        .find(|opt| options.contains_key(opt.flag) && !opt.commands.contains(&command));
    if let Some(Opt { flag, .. }) = unused {
        return Err(UsageError::NotUsed { flag, command: command.as_str() });
    }
    if app.is_some() && !command.starts_app() {
        return Err(UsageError::AppNotUsed(command.as_str()));
    }
    Ok(Parsed::Run(Invocation { command, names, options, app }))
}

/// Takes the options out of the arguments.
fn options(args: &mut Arguments) -> Result<BTreeMap<&'static str, OsString>, UsageError> {
    let mut options = BTreeMap::new();
    for Opt { flag, takes_value, .. } in &OPTIONS {
        if *takes_value {
            match take_value(args, flag) {
                Ok(Some(value)) if option_of(&value).is_none() => {
                    options.insert(*flag, value);
                }
                Ok(None) => {}
                // What follows it is an option, or nothing.
                Ok(Some(_)) | Err(_) => return Err(UsageError::NoValue(flag)),
            }
        } else if args.contains(*flag) {
            options.insert(*flag, OsString::new());
        }
    }
    Ok(options)
}

/// The words after the command. Whether there are enough of them is only known with the
/// variables: PREMIGRATE_ALL stands for all names.
fn names(command: CommandName, words: Vec<OsString>, all: bool) -> Result<Vec<String>, UsageError> {
    let names: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let most = match command {
        Accept if !all => usize::MAX,
        New | Healthcheck => 1,
        _ => 0,
    };
    if let Some(word) = names.get(most) {
        return Err(UsageError::UnexpectedWord(quoted(word)));
    }
    if names.iter().any(String::is_empty) {
        return Err(UsageError::NoName(command.as_str()));
    }
    Ok(names)
}

fn take_value(
    args: &mut Arguments,
    flag: &'static str,
) -> Result<Option<OsString>, pico_args::Error> {
    args.opt_value_from_os_str(flag, |value| Ok::<_, Infallible>(value.to_owned()))
}

/// The option that this word, `--flag` or `--flag=VALUE`, gives.
fn option_of(word: &OsStr) -> Option<&'static Opt> {
    let flag = word.as_bytes().split(|&byte| byte == b'=').next()?;
    OPTIONS.iter().find(|opt| opt.flag.as_bytes() == flag)
}

/// Splits `--flag=VALUE` in two; pico-args does so only if the value is UTF-8.
fn split_equals(arg: OsString) -> Vec<OsString> {
    let Some(Opt { flag, takes_value: true, .. }) = option_of(&arg) else { return vec![arg] };
    let value =
        arg.as_bytes().strip_prefix(flag.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
    match value {
        Some(value) => vec![OsString::from(flag), OsStr::from_bytes(value).to_owned()],
        None => vec![arg],
    }
}

/// Whether this is a URL, or `key=value` pairs with a password, of which nothing may be printed.
fn may_hold_a_password(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    text.contains("://") || (!text.starts_with('-') && text.contains("password="))
}

/// Whether `healthcheck` may be about this, which is no connection string.
fn is_http_or_tcp(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    ["http://", "https://", "tcp://"].iter().any(|scheme| text.starts_with(scheme))
}

fn command(word: &OsStr) -> Result<CommandName, UsageError> {
    let command = CommandName::ALL.into_iter().find(|command| word == command.as_str());
    command.ok_or_else(|| UsageError::UnknownCommand(quoted(&word.to_string_lossy())))
}

/// The error for a flag that is left after all options were taken.
fn leftover_flag(flag: &OsStr) -> UsageError {
    let text = flag.to_string_lossy();
    match option_of(flag) {
        Some(opt) if !opt.takes_value && text.contains('=') => UsageError::TakesNoValue(opt.flag),
        Some(opt) => UsageError::Repeated(opt.flag),
        None => UsageError::UnknownOption(text.split('=').next().unwrap_or_default().to_owned()),
    }
}

/// An argument for a message, without what may be a secret in it.
fn quoted(word: &str) -> String {
    redact::text(word).into_owned()
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
    fn up_is_the_default_command() {
        assert_eq!(run(&[]).command, Up);
        assert_eq!(run(&["list"]).command, CommandName::List);
    }

    #[test]
    fn an_option_and_its_value_are_one_word_or_two_before_or_after_the_command() {
        for args in [&["--dir", "x", "up"][..], &["up", "--dir=x"]] {
            assert_eq!(run(args).options.get("--dir"), Some(&OsString::from("x")), "{args:?}");
        }
        assert_eq!(run(&["--env-file", ""]).options.get("--env-file"), Some(&OsString::new()));
    }

    #[test]
    fn everything_after_the_first_double_dash_belongs_to_the_app() {
        let invocation = run(&["--strict", "--", "node", "--dir", "--", "--help"]);
        let app = invocation.app.unwrap();
        assert_eq!(app.program, "node");
        assert_eq!(app.args, ["--dir", "--", "--help"]);
        assert!(!invocation.options.contains_key("--dir"));
    }

    #[test]
    fn a_suggested_command_has_the_options_of_this_run_that_it_takes() {
        let commands = run(&["--dir", "a b", "--wait=1s", "--table", "t"]).commands();
        let baseline = commands.line(Baseline, "--through NAME");
        assert_eq!(baseline, "premigrate baseline --through NAME --dir 'a b' --table t");
        assert_eq!(commands.line(List, ""), "premigrate list --dir 'a b'");
        assert_eq!(Commands::default().line(List, ""), "premigrate list");
    }

    #[test]
    fn help_and_version_are_not_runs() {
        assert_eq!(parsed(&["--help"]), Ok(Parsed::Help));
        assert_eq!(parsed(&["up", "-V"]), Ok(Parsed::Version));
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
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
            (&["new", "a", "b"], UsageError::UnexpectedWord(word("b"))),
            (&["status", "--", "node"], UsageError::AppNotUsed("status")),
        ] {
            assert_eq!(parsed(args), Err(usage), "{args:?}");
        }
    }

    #[test]
    fn the_help_names_every_command_and_option_and_no_other() {
        let words = |start: &str| -> Vec<String> {
            let lines = HELP.lines().filter_map(|line| line.strip_prefix("  "));
            let first = lines.filter_map(|line| line.split([' ', ',']).next());
            first.filter(|word| word.starts_with(start)).map(str::to_owned).collect()
        };
        let mut flags: Vec<_> = OPTIONS.iter().map(|opt| opt.flag.to_owned()).collect();
        flags.push("--help".to_owned());
        assert_eq!(words("--"), flags);
        for command in CommandName::ALL {
            assert!(HELP.contains(&format!("\n  {} ", command.as_str())), "{command:?}");
        }
        assert!(HELP.lines().all(|line| line.len() <= 80));
    }
}
