//! What can happen to a running machine, and the way the control thread hears of it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use devices::disk::Preservation;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::api::{Request, SnapshotRequest};
use crate::phases::{Phase, Phases};

/// Everything the control thread reacts to. A closed set: whoever adds one decides what it does.
#[derive(Debug)]
pub enum Event {
    /// The guest wrote S5 to the sleep control register.
    GuestPoweroff,
    /// The guest asked for a reset, through ACPI or the keyboard controller.
    GuestReset,
    /// The guest's kernel said on the console that it panicked.
    GuestPanic,
    /// A vCPU ran into a triple fault.
    TripleFault {
        /// Which one.
        vcpu: u8,
    },
    /// A vCPU cannot go on for a reason on the host's side.
    VcpuFailed {
        /// Which one.
        vcpu: u8,
        /// What KVM reported.
        reason: String,
    },
    /// A request from the control socket, or from this process.
    Request(Request),
    /// A snapshot is asked for.
    Snapshot(Box<SnapshotRequest>),
    /// The snapshot that was begun is ready for the machine's pause, in which this is armed.
    SnapshotReady(Arc<Preservation>),
    /// The snapshot that was begun is over, well or not.
    SnapshotOver,
}

impl Event {
    /// Whether the guest runs no further after it.
    fn ends_guest(&self) -> bool {
        match self {
            Self::GuestPoweroff
            | Self::GuestReset
            | Self::TripleFault { .. }
            | Self::VcpuFailed { .. } => true,
            Self::GuestPanic
            | Self::Request(_)
            | Self::Snapshot(_)
            | Self::SnapshotReady(_)
            | Self::SnapshotOver => false,
        }
    }
}

/// Sends events to the control thread; clones share it.
#[derive(Clone)]
pub struct EventSender {
    queue: Sender<Event>,
    wake: Arc<EventFd>,
    phases: Arc<Phases>,
}

impl EventSender {
    /// Queues `event`. An event after the machine has ended is dropped.
    pub fn send(&self, event: Event) {
        // Here, on the vCPU's thread: what comes after is our time, not the guest's.
        if event.ends_guest() {
            self.phases.stamp(Phase::GuestEnded);
        }
        if self.queue.send(event).is_ok() {
            // Fails only when the counter is full, and then the receiver is awake already.
            let _ = self.wake.write(1);
        }
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSender")
    }
}

/// The control thread's end.
pub(crate) struct EventQueue {
    pub(crate) queue: Receiver<Event>,
    pub(crate) wake: Arc<EventFd>,
}

/// A channel whose receiver can wait in an event loop. The end of the guest is stamped in `phases`.
pub(crate) fn event_channel(phases: Arc<Phases>) -> io::Result<(EventSender, EventQueue)> {
    let (sender, queue) = channel();
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK)?);
    let sender = EventSender {
        queue: sender,
        wake: wake.clone(),
        phases,
    };
    Ok((sender, EventQueue { queue, wake }))
}

impl devices::legacy::power::PowerSink for EventSender {
    fn poweroff(&self) {
        self.send(Event::GuestPoweroff);
    }

    fn reset(&self) {
        self.send(Event::GuestReset);
    }
}
