//! A time limit for a process that somebody waits for.

use std::process::Child;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Kills a process that is still there when its time is over. Its output ends with it, and with
/// that whoever reads it.
#[derive(Debug)]
pub(super) struct Deadline {
    done: Sender<()>,
    watch: JoinHandle<bool>,
}

impl Deadline {
    /// Gives `child` the time `patience`; it must not be waited for before [`Self::end`].
    pub(super) fn start(child: &Child, patience: Duration) -> Self {
        let (done, ended) = mpsc::channel();
        let pid = Pid::from_child(child);
        let watch = thread::spawn(move || {
            let late = ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            late && kill_process(pid, Signal::KILL).is_ok()
        });
        Self { done, watch }
    }

    /// Whether the process was killed.
    pub(super) fn end(self) -> bool {
        drop(self.done);
        self.watch.join().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn late_process_is_killed_and_another_is_not() {
        let sleep = || Command::new("sleep").arg("1000").spawn().unwrap();
        let mut late = sleep();
        let deadline = Deadline::start(&late, Duration::ZERO);
        assert!(!late.wait().unwrap().success());
        assert!(deadline.end());

        let mut early = sleep();
        assert!(!Deadline::start(&early, Duration::from_secs(1000)).end());
        assert!(early.try_wait().unwrap().is_none());
        early.kill().unwrap();
        early.wait().unwrap();
    }
}
