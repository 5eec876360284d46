//! Waiting for a device without sleeping, and without waiting for ever.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// Far beyond what any device needs, even on a machine with something better to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something whose eventfd fires when a device did something.
pub trait Wake {
    /// The eventfd; non-blocking.
    fn event(&self) -> &EventFd;
}

impl Wake for EventFd {
    fn event(&self) -> &EventFd {
        self
    }
}

impl<T: Wake + ?Sized> Wake for Arc<T> {
    fn event(&self) -> &EventFd {
        self.as_ref().event()
    }
}

/// Calls `check` now and whenever `wake` fires, until it returns something. Returns nothing when
/// that did not happen within ten seconds.
pub fn wait_for<T>(wake: &(impl Wake + ?Sized), mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let epoll = Epoll::new().unwrap();
    let fd = wake.event().as_raw_fd();
    epoll
        .ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis();
        if left == 0 {
            return None;
        }
        let mut events = [EpollEvent::default()];
        // An interrupted wait is a wake-up like any other.
        let _ = epoll.wait(i32::try_from(left).unwrap(), &mut events);
        // Fails when the wait did.
        let _ = wake.event().read();
    }
}
