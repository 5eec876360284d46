//! `cargo lab`: parse, dispatch, print the error chain.

use std::process::ExitCode;

use clap::Parser as _;
use lab::args::{Cli, Command, Inside};
use lab::{commands, inside};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Env => commands::env(),
        Command::Fetch => commands::fetch(),
        Command::Run { machine, command } => commands::run(machine, command),
        Command::Demo => commands::demo(),
        Command::Check(args) => commands::check(args),
        Command::Zfs(args) => commands::zfs(&args),
        Command::Matrix { only } => commands::matrix(&only),
        Command::Measure(args) => commands::measure(&args),
        Command::Report => commands::report(),
        Command::Bench(args) => commands::bench(&args),
        Command::Inside(Inside::Bench(args)) => inside::bench(&args),
        Command::Reads(args) => commands::reads(&args),
        Command::Inside(Inside::Reads(args)) => inside::reads(&args),
        Command::Throughput(args) => commands::throughput(&args),
        Command::Inside(Inside::Throughput(args)) => inside::throughput(&args),
        Command::Inside(Inside::Measure(args)) => inside::measure(&args),
        Command::Inside(Inside::Demo(args)) => inside::demo(&args),
        Command::Inside(Inside::Matrix(args)) => inside::matrix(&args),
        Command::Shares(args) => commands::shares(&args),
        Command::Inside(Inside::Shares(args)) => inside::shares(&args),
        Command::Shell { machine } => commands::shell(machine),
    };
    done.map_or_else(
        |error| {
            eprintln!("cargo lab: {error:#}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}
