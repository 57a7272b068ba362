//! Whether the app is one of those that `--only-for` names. Pure.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::process::exec::App;

/// Whether one of these programs is the app: the program itself, or the script that it runs.
pub fn is_one_of(app: &App, programs: &[String]) -> bool {
    let is_named = |word: &OsString| {
        let file_name = Path::new(word).file_name().unwrap_or_default();
        programs
            .iter()
            .any(|program| file_name == OsStr::new(program) || word == OsStr::new(program))
    };
    is_named(&app.program) || scripts(&app.args).into_iter().any(is_named)
}

/// The arguments that may be the script: the first that is no option. Since an option may take a value, what
/// follows one counts as well, and does not end the search. `run`, as in `npm run start`, is passed over.
fn scripts(args: &[OsString]) -> Vec<&OsString> {
    let mut scripts = Vec::new();
    let mut follows_option = false;
    for arg in args {
        let is_option = arg.as_encoded_bytes().starts_with(b"-");
        if !is_option && arg != "run" {
            scripts.push(arg);
            if !follows_option {
                break;
            }
        }
        follows_option = is_option;
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_known_by_its_file_name_or_by_its_script() {
        for (line, program, expected) in [
            ("/usr/bin/app --port 80", "app", true),
            ("/usr/bin/app", "/usr/bin/app", true),
            ("/usr/bin/app", "/bin/app", false),
            ("app2", "app", false),
            ("node server.js", "server.js", true),
            ("node dist/server.js", "server.js", true),
            ("node dist/server.js", "dist/server.js", true),
            ("node dist/server.js", "server", false),
            ("node server.js", "node", true),
            ("node backfill.js server.js", "server.js", false),
            ("node --enable-source-maps server.js", "server.js", true),
            ("node -r dotenv/config server.js --x", "server.js", true),
            ("node -r dotenv/config backfill.js server.js", "server.js", false),
            ("python -m gunicorn app:app", "gunicorn", true),
            ("npm run start", "start", true),
            ("npm start", "start", true),
            ("bun run --watch server.ts", "server.ts", true),
            ("deno run -A main.ts", "main.ts", true),
            ("tini -- node server.js", "node", true),
            ("tini -- node server.js", "server.js", true),
            ("/premigrate --dir b --table t -- node server.js", "server.js", true),
            ("node --eval 1", "server.js", false),
            ("sh", "server.js", false),
            ("node", "server.js", false),
        ] {
            let mut words = line.split(' ').map(OsString::from);
            let app = App { program: words.next().unwrap(), args: words.collect() };
            let programs = ["other".to_owned(), program.to_owned()];
            assert_eq!(is_one_of(&app, &programs), expected, "{line}, {program}");
        }
    }
}
