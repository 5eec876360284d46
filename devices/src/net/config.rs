//! What a network card is configured to be.

use std::fmt;

use super::Lease;
use crate::device::DeviceId;
use crate::rate_limit::Limits;
use crate::registry::Position;

/// A virtio network card on a tap that arrives open.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Name within the machine.
    pub id: DeviceId,
    /// Place on the machine.
    pub position: Position,
    /// The card's address.
    pub mac: MacAddr,
    /// Offered as `VIRTIO_NET_F_MTU` when given; 68 to 65535.
    pub mtu: Option<u16>,
    /// Answers the guest's DHCP requests with this lease.
    pub dhcp: Option<Lease>,
    /// How fast the guest may receive.
    pub rx_limits: Limits,
    /// How fast the guest may send.
    pub tx_limits: Limits,
}

impl NetConfig {
    /// A card without limits that leaves the MTU to the driver.
    pub fn new(id: DeviceId, position: Position, mac: MacAddr) -> Self {
        Self {
            id,
            position,
            mac,
            mtu: None,
            dhcp: None,
            rx_limits: Limits::default(),
            tx_limits: Limits::default(),
        }
    }
}

/// An Ethernet address; shown as `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
