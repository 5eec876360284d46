//! The host's end of a slot's network cards.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use devices::net::{NetHost, Tap, VhostNet};
use rustix::fs::OFlags;
use tracing::{info, warn};

use crate::commands::CommandError;
use crate::config::Vhost;
use crate::resolve::{Nic, Queues};

/// The kernel's service for network cards.
const VHOST_NET: &str = "/dev/vhost-net";

/// Why the kernel does not serve a card that it is to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VhostError {
    /// It cannot be asked.
    #[error(
        "Failed to open {VHOST_NET} for card {card}, which has vhost = true: load the kernel module \
         vhost_net and give the user that runs slots read and write permission, or set vhost = \"auto\""
    )]
    Open {
        /// The card.
        card: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It does not do.
    #[error("The kernel cannot serve card {card}, which has vhost = true: set vhost = \"auto\"")]
    Unfit {
        /// The card.
        card: String,
        /// What is wrong.
        #[source]
        source: devices::net::VhostNetError,
    },
}

/// Opens the tap of a card as often as the card has pairs of queues, and the kernel's service for
/// each when it is asked for. A tap that was made for one queue is opened once, which is worth a
/// warning when the configuration says how many there are.
pub(crate) fn open(nic: &Nic) -> Result<NetHost, CommandError> {
    let opened = hostnet::tap::open(&nic.tap, nic.queues.wanted())?;
    if let Queues::Set(wanted) = nic.queues
        && opened.len() < usize::from(wanted)
    {
        let (card, tap) = (&nic.id, &nic.tap);
        warn!(%card, %tap, wanted, "Tap was made for one queue and gets one; make it anew with multi_queue for more");
    }
    let taps: Vec<Tap> = opened.into_iter().map(Tap::new).collect::<Result<_, _>>()?;
    let vhost = open_vhost(nic, taps.len())?;
    Ok(NetHost { taps, vhost })
}

fn open_vhost(nic: &Nic, pairs: usize) -> Result<Vec<VhostNet>, VhostError> {
    if nic.vhost == Vhost::Off {
        return Ok(Vec::new());
    }
    let served = (0..pairs).map(|_| open_one(nic)).collect::<Result<_, _>>();
    match served {
        Err(error) if nic.vhost == Vhost::Auto => {
            let (card, error) = (&nic.id, &error as &dyn std::error::Error);
            info!(%card, error, "Kernel does not serve the card; its queues are served here");
            Ok(Vec::new())
        }
        served => served,
    }
}

/// Whether the kernel would serve a card, for those of other monitors.
pub(crate) fn kernel_serves(nic: &Nic) -> bool {
    nic.vhost != Vhost::Off && open_one(nic).is_ok()
}

fn open_one(nic: &Nic) -> Result<VhostNet, VhostError> {
    let card = || nic.id.clone();
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file: io::Result<File> = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open(VHOST_NET);
    let file = file.map_err(|source| VhostError::Open {
        card: card(),
        source,
    })?;
    VhostNet::new(file).map_err(|source| VhostError::Unfit {
        card: card(),
        source,
    })
}
