//! What a driver can do wrong.

/// A driver broke the protocol: the device stops serving its queues and asks for a reset. A guest
/// fault never ends the process and never reaches the host.
#[derive(Debug, thiserror::Error)]
pub enum QueueFault {
    /// The rings or a descriptor chain lie outside guest RAM, loop, or contradict each other.
    #[error("Queue {queue}: broken ring or descriptor chain")]
    Ring {
        /// Index of the queue.
        queue: u16,
        /// What the queue code found.
        #[source]
        source: virtio_queue::Error,
    },
    /// A broken ring or chain of a queue that the host's kernel serves; it does not say which.
    #[error("A queue that the host's kernel serves is broken")]
    Kernel,
    /// A chain does not have the form the device type asks for.
    #[error("Queue {queue}: malformed request, {reason}")]
    Malformed {
        /// Index of the queue.
        queue: u16,
        /// What was wrong with it.
        reason: &'static str,
    },
    /// Guest memory named by a chain cannot be accessed.
    #[error("Queue {queue}: buffer outside guest memory")]
    Memory {
        /// Index of the queue.
        queue: u16,
        /// What the memory code found.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}
