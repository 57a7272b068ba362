//! Runs a program and prints what it took, as JSON: its exit status, wall time and processor time in
//! milliseconds, and the peak of its resident memory in kibibytes. The processor time is its own and
//! that of the programs it ran, the memory that of the largest of them.
//!
//! `measure forget` reads names of files, one a line, and drops them from the page cache, as far as no
//! program has them mapped.
//!
//! The kernel counts what this program holds when it starts the other one as memory of that one. So
//! this is a program of its own, and small.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::fs::{Advice, fadvise};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next().as_deref().and_then(|it| it.to_str()), arguments.next()) {
        (Some("run"), Some(program)) => measure(Command::new(program).args(arguments)),
        (Some("forget"), None) => forget(),
        _ => Err("usage: measure run PROGRAM [ARG]..., or: measure forget")?,
    }
}

fn measure(command: &mut Command) -> Result<(), Box<dyn Error>> {
    // Standard output is for the result.
    command.stdin(Stdio::null()).stdout(io::stderr());
    let started = Instant::now();
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => Err(format!("{}: {error}", command.get_program().display()))?,
    };
    let wall = started.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let processor = duration(usage.user_time()) + duration(usage.system_time());
    writeln!(
        io::stdout(),
        "{{\"status\":{},\"wall\":{:.3},\"cpu\":{:.3},\"memory\":{}}}",
        status.code().map_or("null".to_owned(), |code| code.to_string()),
        wall.as_secs_f64() * 1000.0,
        processor.as_secs_f64() * 1000.0,
        usage.max_rss()
    )?;
    Ok(())
}

fn duration(time: TimeVal) -> Duration {
    let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

fn forget() -> Result<(), Box<dyn Error>> {
    for name in io::stdin().lock().lines() {
        let file = File::open(name?)?;
        // Only what is written to the disk can be dropped.
        file.sync_data()?;
        fadvise(file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
