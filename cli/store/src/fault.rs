//! Points at which a test kills the process, to see what a crash leaves. Nothing elsewhere.

/// A step ends here and the next one begins.
#[cfg(not(any(test, feature = "fail-points")))]
pub(crate) fn point(_name: &str) {}

/// Kills the process if this is the point whose number the environment gives; prints each point's
/// name.
#[cfg(any(test, feature = "fail-points"))]
pub(crate) fn point(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Ok(at) = std::env::var("STORE_FAULT_AT") else {
        return;
    };
    eprintln!("fault point: {name}");
    if at == PASSED.fetch_add(1, Ordering::Relaxed).to_string() {
        // Nobody refuses a process to kill itself, and nothing after this runs.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
