//! What a monitor's processor time was spent on, from `/proc/PID/stat` (proc(5)): the guest's own code is
//! the same under every monitor, so this is the part that none of them can take away.
//!
//! The kernel counts by ticks, so the parts are rough where a boot is short.

use std::fs;
use std::io;

use serde::Serialize;

/// Places in what follows the program's name: the state is the first.
const UTIME: usize = 11;
const STIME: usize = 12;
const GUEST_TIME: usize = 40;

/// What the file counts in: USER_HZ, which is 100 on x86 whatever the kernel's own tick is.
const TICK_MS: f64 = 10.0;

/// Processor time by what it was spent on, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spent {
    /// The guest's code.
    pub guest_ms: f64,
    /// The monitor's own.
    pub monitor_ms: f64,
    /// The host's kernel on behalf of both.
    pub kernel_ms: f64,
}

impl Spent {
    /// The guest's part of all, from 0 to 1; nothing when none was spent.
    pub fn guest_part(self) -> Option<f64> {
        let all = self.guest_ms + self.monitor_ms + self.kernel_ms;
        (all > 0.0).then(|| self.guest_ms / all)
    }
}

/// What the process has spent until now.
///
/// # Errors
/// When it has ended, or its line is not what proc(5) says.
pub(super) fn spent(pid: u32) -> io::Result<Spent> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(line: &str) -> Option<Spent> {
    // The name is in brackets and may have any character in it.
    let (_, fields) = line.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let (user, kernel, guest) = (ticks(UTIME)?, ticks(STIME)?, ticks(GUEST_TIME)?);
    Some(Spent {
        guest_ms: guest as f64 * TICK_MS,
        // Guest time is part of user time, but both are rounded.
        monitor_ms: user.saturating_sub(guest) as f64 * TICK_MS,
        kernel_ms: kernel as f64 * TICK_MS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_time_is_taken_out_of_user_time() {
        let mut fields = vec!["0"; 50];
        fields[0] = "S";
        fields[UTIME] = "70";
        fields[STIME] = "20";
        fields[GUEST_TIME] = "60";
        let line = format!("7 (a) b) {}\n", fields.join(" "));
        let spent = parse(&line).unwrap();
        let expected = Spent {
            guest_ms: 600.0,
            monitor_ms: 100.0,
            kernel_ms: 200.0,
        };
        assert_eq!(spent, expected);
        assert_eq!(spent.guest_part(), Some(600.0 / 900.0));
        assert_eq!(parse("7 (a) S 1 2"), None);
    }

    #[test]
    fn this_process_has_a_line() {
        let spent = spent(std::process::id()).unwrap();
        assert_eq!(spent.guest_ms, 0.0);
    }
}
