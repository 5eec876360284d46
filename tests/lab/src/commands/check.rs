//! `check`: everything that must hold before a change is done.

use anyhow::Result;

use super::matrix::matrix;
use crate::args::CheckArgs;
use crate::check::{Check, Step, Tally};
use crate::progress::heading;

/// Runs the steps and prints the tally as the last line, alone on it.
///
/// # Errors
/// When a step cannot be run at all.
pub fn check(args: CheckArgs) -> Result<u8> {
    let steps = if args.steps.is_empty() {
        Step::DEFAULT.to_vec()
    } else {
        args.steps
    };
    let mut check = Check::new(args.tests)?;
    for step in steps {
        check.run(step)?;
    }
    let matrix_failed = args.matrix && matrix("")? != 0;
    let mut tally = check.tally().clone();
    if args.matrix {
        tally.step("matrix", !matrix_failed);
    }
    Ok(conclude(&tally))
}

/// Prints what failed, and the tally as the last line.
pub(super) fn conclude(tally: &Tally) -> u8 {
    heading("Result");
    tally
        .failures()
        .iter()
        .for_each(|failure| eprintln!("failed: {failure}"));
    println!("{tally}");
    u8::from(!tally.is_clean())
}
