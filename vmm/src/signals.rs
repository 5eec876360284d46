//! SIGTERM, SIGINT and SIGHUP as a descriptor of the control loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::signal::block_signal;

mod sys;

const STOP_SIGNALS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks the stop signals in the calling thread.
///
/// # Errors
/// When the host refuses.
pub(crate) fn block_stop_signals() -> io::Result<()> {
    for signal in STOP_SIGNALS {
        match block_signal(signal) {
            Ok(()) | Err(vmm_sys_util::signal::Error::SignalAlreadyBlocked(_)) => {}
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    Ok(())
}

/// Delivers the stop signals. They stay blocked in every thread started after this.
pub(crate) struct StopSignals {
    file: std::fs::File,
}

impl StopSignals {
    /// Blocks the stop signals in the calling thread and opens a descriptor for them. Before any
    /// thread is started: threads inherit the mask.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn block() -> io::Result<Self> {
        block_stop_signals()?;
        Ok(Self {
            file: sys::signalfd(&STOP_SIGNALS)?,
        })
    }

    /// Takes one pending signal, if there is one, and returns its number.
    pub(crate) fn take(&self) -> Option<i32> {
        use std::io::Read;
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        (&self.file).read_exact(&mut info).ok()?;
        let number = info.first_chunk::<4>().copied()?;
        i32::try_from(u32::from_ne_bytes(number)).ok()
    }
}

impl AsRawFd for StopSignals {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
