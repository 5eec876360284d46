//! Steps at which a test kills the process or has the step fail. Nothing without the feature
//! `fail-points`, which no build of the program has.
//!
//! The environment variable `SLOTVMM_FAIL_POINTS` names a file; each point that is passed adds a line
//! with its name to it. A second file, of the same name with `.do` behind it, says what happens: `kill`,
//! `panic` or the number of an error, and then where: the number of a line, counted from 0, or the name
//! that comes first in a line. A test empties the first file between two trials, and all begins anew.

use std::io;

/// A step that may fail ends or begins here.
///
/// # Errors
/// What the test wants.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn point(_name: &'static str) -> io::Result<()> {
    Ok(())
}

/// A step that cannot fail ends here.
#[inline(always)]
pub fn pass(name: &'static str) {
    // An error that a test wants here means nothing.
    let _ = point(name);
}

/// A step that may fail ends or begins here.
///
/// # Errors
/// What the test wants.
#[cfg(feature = "fail-points")]
pub fn point(name: &'static str) -> io::Result<()> {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::sync::{Mutex, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    static ALONE: Mutex<()> = Mutex::new(());
    let Some(log) = std::env::var_os("SLOTVMM_FAIL_POINTS") else {
        return Ok(());
    };
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = fs::read_to_string(&log).unwrap_or_default();
    let mut file = OpenOptions::new().create(true).append(true).open(&log)?;
    file.write_all(format!("{name}\n").as_bytes())?;
    let mut order = log;
    order.push(".do");
    let order = fs::read_to_string(order).unwrap_or_default();
    drop(alone);
    let Some((deed, place)) = order.trim().split_once(' ') else {
        return Ok(());
    };
    let first = place == name && !passed.lines().any(|line| line == name);
    if !first && place != passed.lines().count().to_string() {
        return Ok(());
    }
    match deed {
        "kill" => {
            // Nobody refuses a process to kill itself, and nothing after this runs.
            kill_process(getpid(), Signal::KILL)?;
            Ok(())
        }
        "panic" => panic!("A test wants a panic at: {name}"),
        errno => Err(errno
            .parse()
            .map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error)),
    }
}
