//! The edges of the process: arguments and environment in; printing, the exit code, or the app out.
//! Nothing else prints, and nothing else ends the process.

mod printer;
mod stdio;

use std::process::ExitCode;

use premigrate::config::Environment;
use premigrate::error::Error;
use premigrate::report::Event;
use premigrate::signals::Stop;
use premigrate::{Outcome, Output, exec, failed, render, run};

use self::printer::Printer;

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).collect();
    let environment = Environment::new(std::env::vars_os());
    let stop = Stop::default();
    let mut printer = Printer::new(&stop);
    let mut print = |output| printer.print(output);
    let code = match run(args, &environment, &stop, &mut print) {
        Outcome::Exit(code) => code,
        Outcome::Become(app, format) => {
            let program = app.program.to_string_lossy().into_owned();
            print(Output::Report(render::event(&Event::Starting { app: program.clone() }, format)));
            let reason = exec::exec(&app);
            match failed(Error::App { program, reason }, true, format, &mut print) {
                Outcome::Exit(code) => code,
                Outcome::Become(..) => 126,
            }
        }
    };
    ExitCode::from(code)
}
