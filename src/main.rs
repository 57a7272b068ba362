//! The edges of the process: arguments and environment in; the exit code, or the app out. Only a second
//! signal (`process::signals`) and a lack of memory (`process::allocator`) end the process elsewhere.

use std::process::ExitCode;

use premigrate::apply::event::Event;
use premigrate::cli::args::Commands;
use premigrate::cli::environment::Environment;
use premigrate::error::Error;
use premigrate::process::allocator::Allocator;
use premigrate::process::exec;
use premigrate::process::printer::Printer;
use premigrate::process::signals::StopFlag;
use premigrate::{Outcome, render, report_error, run};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).collect();
    let environment = Environment::new(std::env::vars_os());
    let stop = StopFlag::default();
    let mut printer = Printer::new(&stop);
    let code = match run(args, &environment, &stop, &mut printer) {
        Outcome::Exit(code) => code,
        Outcome::Exec(app, appearance) => {
            let program = app.program.to_string_lossy().into_owned();
            let style = appearance.style(printer.reports_to_terminal());
            printer.report(&render::event(&Event::Starting { app: program.clone() }, style));
            let reason = exec::exec(&app);
            let error = Error::App { program, reason };
            report_error(&error, true, appearance, &Commands::default(), &mut printer)
        }
    };
    ExitCode::from(code)
}
