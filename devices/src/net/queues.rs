//! Which queue is which: it depends on what the driver acknowledged (virtio 1.2 §5.1.2).

use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;

use super::session::PairQueues;
use crate::device::{ActivateError, Activation, ActiveQueue};

/// The queues of an activation by their use.
pub(super) struct Queues {
    /// The pair that is always served.
    pub(super) first: PairQueues,
    /// What the driver enabled of each further pair; of none when it knows of one pair only.
    pub(super) further: Vec<Vec<ActiveQueue>>,
    /// The control queue, when the driver knows of it and enabled it.
    pub(super) control: Option<ActiveQueue>,
    /// Enabled without use.
    pub(super) spare: Vec<ActiveQueue>,
    /// Pairs that the driver can have served, with the features it took.
    pub(super) usable_pairs: u16,
    /// No chain was ever taken from any queue.
    pub(super) fresh: bool,
}

impl Queues {
    /// Takes the queues out of `run` for a card of `pairs` pairs, and tells each whether the driver
    /// uses event indices.
    ///
    /// # Errors
    /// When the driver did not enable the first pair.
    pub(super) fn sort(run: &mut Activation, pairs: usize) -> Result<Self, ActivateError> {
        let event_idx = run.acked(VIRTIO_RING_F_EVENT_IDX);
        let has_control = run.acked(VIRTIO_NET_F_CTRL_VQ);
        let usable = if run.acked(VIRTIO_NET_F_MQ) && has_control {
            pairs
        } else {
            1
        };
        let enabled = run.queues.len();
        let mut first = Vec::new();
        let mut further: Vec<Vec<ActiveQueue>> = (1..pairs).map(|_| Vec::new()).collect();
        let (mut control, mut spare) = (None, Vec::new());
        let mut fresh = true;
        for mut active in run.queues.drain(..) {
            active.queue.set_event_idx(event_idx);
            fresh &= active.queue.next_avail() == 0 && active.queue.next_used() == 0;
            let pair = usize::from(active.index / 2);
            match pair.checked_sub(1).map(|behind| further.get_mut(behind)) {
                None => first.push(active),
                Some(Some(queues)) if pair < usable => queues.push(active),
                _ if has_control && usize::from(active.index) == 2 * usable => {
                    control = Some(active);
                }
                _ => spare.push(active),
            }
        }
        let first = PairQueues::from_enabled(first);
        Ok(Self {
            first: first.ok_or(ActivateError::MissingQueues { enabled, needed: 2 })?,
            further,
            control,
            spare,
            usable_pairs: u16::try_from(usable).unwrap_or(1),
            fresh,
        })
    }
}
