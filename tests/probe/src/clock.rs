//! The guest's clock, read all the time: whoever halts the guest, or the one vCPU that reads, makes a gap.
//!
//! `probe clock FILE MICROSECONDS` sleeps for so long between two readings, not at all where that is 0. It writes a line for every [`STRETCH`]: when it was over, in milliseconds of the
//! monotonic clock, and the longest time between two readings in it, in microseconds. A line is written
//! at once, which counts as part of the next gap. It goes on until something ends it.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// How much time a line is about, unless a gap is longer.
const STRETCH: Duration = Duration::from_millis(10);

/// Reads the clock for ever.
pub(crate) fn run(path: &str, sleep: Duration) -> Result<()> {
    let file = File::create(path).with_context(|| format!("Cannot create {path}"))?;
    match read_on(file, sleep)? {}
}

fn read_on(mut file: File, sleep: Duration) -> Result<Infallible> {
    let mut last = now()?;
    let mut longest = Duration::ZERO;
    let mut end = last + STRETCH;
    loop {
        if !sleep.is_zero() {
            thread::sleep(sleep);
        }
        let read = now()?;
        longest = longest.max(read.saturating_sub(last));
        last = read;
        if read >= end {
            let line = format!("{} {}\n", read.as_millis(), longest.as_micros());
            file.write_all(line.as_bytes())
                .context("Cannot write what the clock showed")?;
            longest = Duration::ZERO;
            end = read + STRETCH;
        }
    }
}

fn now() -> Result<Duration> {
    let time = clock_gettime(ClockId::Monotonic);
    Ok(Duration::new(
        time.tv_sec.try_into()?,
        time.tv_nsec.try_into()?,
    ))
}
