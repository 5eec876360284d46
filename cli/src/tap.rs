//! The host's end of a slot's network cards.

use devices::net::Tap;
use tracing::warn;

use crate::commands::CommandError;
use crate::resolve::{Nic, Queues};

/// Opens the tap of a card as often as the card has pairs of queues. A tap that was made for one
/// queue is opened once, which is worth a warning when the configuration says how many there are.
pub(crate) fn open(nic: &Nic) -> Result<Vec<Tap>, CommandError> {
    let opened = hostnet::tap::open(&nic.tap, nic.queues.wanted())?;
    if let Queues::Set(wanted) = nic.queues
        && opened.len() < usize::from(wanted)
    {
        let (card, tap) = (&nic.id, &nic.tap);
        warn!(%card, %tap, wanted, "Tap was made for one queue and gets one; make it anew with multi_queue for more");
    }
    let taps: Result<Vec<Tap>, _> = opened.into_iter().map(Tap::new).collect();
    Ok(taps?)
}
