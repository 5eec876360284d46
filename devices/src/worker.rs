//! A device's own thread: an event loop around a handler that owns the queues.
//!
//! Nothing is shared with the handler while it runs, so there is no lock to forget:
//! [`Worker::spawn`] moves it in, [`Worker::stop`] joins the thread and moves it out again.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::DeviceError;
use crate::interrupt::Interrupt;

/// A descriptor that a handler waits on.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The descriptor; the handler keeps it open while the worker runs.
    pub fd: RawFd,
    /// What [`Handler::handle`] is told when it fires; not [`u32::MAX`], the stop event.
    pub token: u32,
    /// What to wait for. Use `EDGE_TRIGGERED` for descriptors that stay readable or writable
    /// while the handler has nothing to do for them, or the loop would spin.
    pub events: EventSet,
}

impl Source {
    /// A descriptor to wait on until it is readable, reported again while it stays so.
    pub fn readable(fd: &impl AsRawFd, token: u32) -> Self {
        Self {
            fd: fd.as_raw_fd(),
            token,
            events: EventSet::IN,
        }
    }
}

/// The work of one device thread. Plain logic: no thread, no epoll, no descriptor it did not get.
pub trait Handler: Send + 'static {
    /// The descriptors to wait on; asked once, on the worker's thread.
    fn sources(&self) -> Vec<Source>;

    /// Runs once before the first event: serves what the queues already hold.
    fn start(&mut self);

    /// Serves one event.
    fn handle(&mut self, token: u32);

    /// Runs once after the last event: completes all I/O in flight.
    fn drain(&mut self);
}

const STOP: u32 = u32::MAX;

/// A running handler.
#[derive(Debug)]
pub struct Worker<H> {
    name: String,
    stop: EventFd,
    thread: JoinHandle<io::Result<H>>,
}

impl<H: Handler> Worker<H> {
    /// Starts a thread named `name` (the kernel shows 15 bytes of it) around `handler`. When the
    /// handler panics or its event loop fails, the device is marked through `interrupt`.
    ///
    /// # Errors
    /// When the host refuses an eventfd or a thread.
    pub fn spawn(name: &str, handler: H, interrupt: Arc<dyn Interrupt>) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stop_in_loop = stop.try_clone()?;
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let ran = catch_unwind(AssertUnwindSafe(|| run(handler, stop_in_loop)));
                if !matches!(ran, Ok(Ok(_))) {
                    interrupt.needs_reset();
                }
                ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
        Ok(Self {
            name: name.to_owned(),
            stop,
            thread,
        })
    }

    /// Drains the handler, ends the thread and returns the handler.
    ///
    /// # Errors
    /// When the handler panicked or its event loop failed.
    pub fn stop(self) -> Result<H, DeviceError> {
        // The write only fails when the counter is full, and then the loop is awake already.
        let _ = self.stop.write(1);
        match self.thread.join() {
            Ok(Ok(handler)) => Ok(handler),
            Ok(Err(source)) => Err(DeviceError::WorkerFailed {
                name: self.name,
                source,
            }),
            Err(_) => Err(DeviceError::WorkerPanicked { name: self.name }),
        }
    }
}

fn run<H: Handler>(handler: H, stop: EventFd) -> io::Result<H> {
    let mut manager = EventManager::<Loop<H>>::new().map_err(to_io)?;
    let id = manager.add_subscriber(Loop {
        handler,
        stop,
        stopping: false,
        error: None,
    });
    loop {
        manager.run().map_err(to_io)?;
        let state = manager.subscriber_mut(id).map_err(to_io)?;
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.stopping {
            break;
        }
    }
    let mut state = manager.remove_subscriber(id).map_err(to_io)?;
    state.handler.drain();
    Ok(state.handler)
}

fn to_io(error: event_manager::Error) -> io::Error {
    io::Error::other(error)
}

struct Loop<H> {
    handler: H,
    stop: EventFd,
    stopping: bool,
    error: Option<io::Error>,
}

impl<H: Handler> MutEventSubscriber for Loop<H> {
    fn init(&mut self, ops: &mut EventOps) {
        let stop = Source::readable(&self.stop, STOP);
        for source in self.handler.sources().into_iter().chain([stop]) {
            let events = Events::with_data_raw(source.fd, source.token, source.events);
            if let Err(error) = ops.add(events) {
                self.error = Some(to_io(error));
                // Wakes the loop so that it sees the error.
                let _ = self.stop.write(1);
                self.stopping = true;
            }
        }
        if !self.stopping {
            self.handler.start();
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        if events.data() == STOP {
            self.stopping = true;
        } else if !self.stopping {
            self.handler.handle(events.data());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Marks(AtomicBool);

    impl Interrupt for Marks {
        fn signal_queue(&self, _queue: u16) {}
        fn signal_config(&self, _space: &[u8]) {}
        fn needs_reset(&self) {
            self.0.store(true, Ordering::Release);
        }
        fn external(&self) -> io::Result<EventFd> {
            EventFd::new(EFD_NONBLOCK)
        }
    }

    struct Counter {
        fd: EventFd,
        handled: u32,
        drained: bool,
        panics: bool,
    }

    impl Handler for Counter {
        fn sources(&self) -> Vec<Source> {
            vec![Source::readable(&self.fd, 7)]
        }
        fn start(&mut self) {}
        fn handle(&mut self, token: u32) {
            assert_eq!(token, 7);
            assert!(!self.panics, "asked to panic");
            self.fd.read().unwrap();
            self.handled += 1;
            self.fd.write(1).unwrap();
        }
        fn drain(&mut self) {
            self.drained = true;
        }
    }

    fn counter(panics: bool) -> Counter {
        let fd = EventFd::new(EFD_NONBLOCK).unwrap();
        fd.write(1).unwrap();
        Counter {
            fd,
            handled: 0,
            drained: false,
            panics,
        }
    }

    #[test]
    fn stop_returns_the_handler_drained() {
        let marks = Arc::new(Marks::default());
        let worker = Worker::spawn("test", counter(false), marks.clone()).unwrap();
        let handler = worker.stop().unwrap();
        assert!(handler.drained);
        assert!(!marks.0.load(Ordering::Acquire));
    }

    #[test]
    fn panicking_handler_marks_the_device() {
        let marks = Arc::new(Marks::default());
        let worker = Worker::spawn("test", counter(true), marks.clone()).unwrap();
        while !marks.0.load(Ordering::Acquire) {
            thread::yield_now();
        }
        assert!(matches!(
            worker.stop(),
            Err(DeviceError::WorkerPanicked { .. })
        ));
    }
}
