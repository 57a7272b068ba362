//! The edges of the process: arguments and environment in; printing, the exit code, or the app out. Nothing else prints,
//! and nothing else ends the process.

use std::process::ExitCode;

use premigrate::apply::event::Event;
use premigrate::cli::environment::Environment;
use premigrate::error::Error;
use premigrate::process::exec;
use premigrate::process::printer::Printer;
use premigrate::process::signals::StopFlag;
use premigrate::{Outcome, Output, render, report_error, run};

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).collect();
    let environment = Environment::new(std::env::vars_os());
    let stop = StopFlag::default();
    let mut printer = Printer::new(&stop);
    let mut print = |output| match output {
        Output::Answer(text) => printer.answer(&text),
        Output::Report(text) => printer.report(&text),
        Output::Error(text) => printer.last_report(&text),
    };
    let code = match run(args, &environment, &stop, &mut print) {
        Outcome::Exit(code) => code,
        Outcome::Exec(app, format) => {
            let program = app.program.to_string_lossy().into_owned();
            print(Output::Report(render::event(&Event::Starting { app: program.clone() }, format)));
            let reason = exec::exec(&app);
            report_error(&Error::App { program, reason }, true, format, &mut print)
        }
    };
    ExitCode::from(code)
}
