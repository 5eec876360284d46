//! What is there: bridges and taps as the kernel has them, and the way to the world.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::Handle;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::Nla as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader};
use serde::Serialize;

use crate::netlink::{block_on, io_error};
use crate::policy::SlotSpec;
use crate::slot::{InterfaceName, SlotName};

/// `IFLA_TUN_*` of `linux/if_link.h`, as far as they matter here.
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
const TUN_PACKET_INFO: u16 = 4;
const TUN_VNET_HDR: u16 = 5;
const TUN_MULTI_QUEUE: u16 = 7;
/// Value of `IFLA_TUN_TYPE` for a device that carries Ethernet frames.
const TYPE_TAP: u8 = 2;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// What it is.
    pub kind: LinkKind,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is up and has a carrier: for a tap, whether a process has it open.
    pub in_use: bool,
    /// Index of the bridge it is in.
    pub controller: Option<u32>,
    /// Its alias, which is where this crate marks what it made.
    pub alias: Option<String>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// What an interface is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A tap.
    Tap {
        /// User that may open it, or nothing for root alone.
        owner: Option<u32>,
        /// How it was made.
        flags: TapFlags,
    },
    /// Something else, by the kernel's name of it.
    Other(String),
}

/// What a tap is made with, and keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TapFlags {
    /// Several descriptors may serve it, one for each pair of queues.
    pub multi_queue: bool,
    /// Frames carry a virtio header.
    pub vnet_hdr: bool,
    /// Frames carry their protocol in front.
    pub packet_info: bool,
}

impl TapFlags {
    /// Those of the taps that this crate makes: what a virtio network card needs.
    pub const OURS: Self = Self {
        multi_queue: true,
        vnet_hdr: true,
        packet_info: false,
    };
}

impl fmt::Display for TapFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.multi_queue, "multi_queue"),
            (self.vnet_hdr, "vnet_hdr"),
            (self.packet_info, "pi"),
        ];
        let set: Vec<&str> = words
            .iter()
            .filter_map(|(set, word)| set.then_some(*word))
            .collect();
        f.write_str(if set.is_empty() { "no flags" } else { "" })?;
        f.write_str(&set.join(" "))
    }
}

/// What is there of a slot's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The bridge.
    pub bridge: Option<Link>,
    /// The tap.
    pub tap: Option<Link>,
}

/// Looks at the interfaces of `slots`. Needs no privilege.
///
/// # Errors
/// When the kernel does not answer.
pub fn inspect<'a>(
    slots: impl IntoIterator<Item = &'a SlotSpec>,
) -> Result<BTreeMap<SlotName, Observed>, InspectError> {
    block_on(async |handle| {
        let mut found = BTreeMap::new();
        for slot in slots {
            let bridge = ask(&handle, &slot.bridge).await?;
            let tap = ask(&handle, &slot.tap).await?;
            found.insert(slot.name.clone(), Observed { bridge, tap });
        }
        Ok(found)
    })
    .map_err(|source| InspectError::Connect { source })?
}

/// The interface of the IPv4 default route with the lowest metric; nothing when there is none.
///
/// # Errors
/// When the kernel does not answer.
pub fn uplink() -> Result<Option<InterfaceName>, InspectError> {
    block_on(async |handle| {
        let failed = |source| InspectError::Route { source };
        let Some(index) = default_route(&handle).await.map_err(failed)? else {
            return Ok(None);
        };
        let mut answers = handle.link().get().match_index(index).execute();
        let message = answers.try_next().await.map_err(io_error).map_err(failed)?;
        let attributes = message
            .map(|message| message.attributes)
            .unwrap_or_default();
        Ok(attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => name.parse().ok(),
            _ => None,
        }))
    })
    .map_err(|source| InspectError::Connect { source })?
}

/// Index of the interface by which the main table leads to everywhere.
async fn default_route(handle: &Handle) -> io::Result<Option<u32>> {
    let everywhere = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let mut routes = handle.route().get(everywhere).execute();
    let mut best: Option<(u32, u32)> = None;
    while let Some(route) = routes.try_next().await.map_err(io_error)? {
        let header = &route.header;
        let main = header.table == RouteHeader::RT_TABLE_MAIN;
        if !main || header.destination_prefix_length != 0 {
            continue;
        }
        let metric = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            });
        let interface = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
                _ => None,
            });
        let candidate = interface.map(|index| (metric.unwrap_or(0), index));
        best = match (best, candidate) {
            (Some(best), Some(candidate)) => Some(best.min(candidate)),
            (best, candidate) => best.or(candidate),
        };
    }
    Ok(best.map(|(_, index)| index))
}

/// Looks at one interface; nothing when there is none of this name.
///
/// # Errors
/// When the kernel does not answer.
pub fn link(name: &InterfaceName) -> Result<Option<Link>, InspectError> {
    block_on(async |handle| ask(&handle, name).await)
        .map_err(|source| InspectError::Connect { source })?
}

async fn ask(handle: &Handle, name: &InterfaceName) -> Result<Option<Link>, InspectError> {
    let failed = |source| InspectError::Look {
        name: name.clone(),
        source,
    };
    let Some(message) = message(handle, name).await.map_err(failed)? else {
        return Ok(None);
    };
    let addresses = addresses(handle, message.header.index)
        .await
        .map_err(failed)?;
    Ok(Some(describe(&message, addresses)))
}

/// The kernel's description of the interface `name`, when there is one.
pub(crate) async fn message(
    handle: &Handle,
    name: &InterfaceName,
) -> io::Result<Option<LinkMessage>> {
    let mut answers = handle.link().get().match_name(name.as_str()).execute();
    match answers.try_next().await.map_err(io_error) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        answer => answer,
    }
}

async fn addresses(handle: &Handle, index: u32) -> io::Result<Vec<Ipv4Net>> {
    let mut answers = handle
        .address()
        .get()
        .set_link_index_filter(index)
        .execute();
    let mut found = Vec::new();
    while let Some(message) = answers.try_next().await.map_err(io_error)? {
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            });
        // The kernel never reports a prefix over 32.
        let net = local.and_then(|address| Ipv4Net::new(address, message.header.prefix_len).ok());
        found.extend(net);
    }
    Ok(found)
}

fn describe(message: &LinkMessage, addresses: Vec<Ipv4Net>) -> Link {
    let mut link = Link {
        index: message.header.index,
        kind: LinkKind::Other("device".to_owned()),
        up: message.header.flags.contains(LinkFlags::Up),
        in_use: message.header.flags.contains(LinkFlags::LowerUp),
        controller: None,
        alias: None,
        addresses,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(info) => link.kind = kind(info),
            _ => {}
        }
    }
    link
}

fn kind(info: &[LinkInfo]) -> LinkKind {
    let kind = info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Tun) => tun(info),
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other("device".to_owned()),
    }
}

fn tun(info: &[LinkInfo]) -> LinkKind {
    let attributes = info.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Tun(attributes)) => Some(attributes.as_slice()),
        _ => None,
    });
    let attributes = attributes.unwrap_or_default();
    if byte(attributes, TUN_TYPE) != Some(TYPE_TAP) {
        return LinkKind::Other("tun".to_owned());
    }
    LinkKind::Tap {
        owner: bytes(attributes, TUN_OWNER).map(u32::from_ne_bytes),
        flags: TapFlags {
            multi_queue: byte(attributes, TUN_MULTI_QUEUE) == Some(1),
            vnet_hdr: byte(attributes, TUN_VNET_HDR) == Some(1),
            packet_info: byte(attributes, TUN_PACKET_INFO) == Some(1),
        },
    }
}

fn byte(attributes: &[InfoTun], kind: u16) -> Option<u8> {
    bytes(attributes, kind).map(|[byte]| byte)
}

fn bytes<const N: usize>(attributes: &[InfoTun], kind: u16) -> Option<[u8; N]> {
    let attribute = attributes
        .iter()
        .find(|attribute| attribute.kind() == kind)?;
    let mut value = [0; N];
    (attribute.value_len() == N).then(|| attribute.emit_value(&mut value))?;
    Some(value)
}

/// Why the host's network could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// No connection to the kernel.
    #[error("Failed to open a netlink connection")]
    Connect {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not list its routes.
    #[error("Failed to look for the default route")]
    Route {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not describe an interface.
    #[error("Failed to look at interface {name}")]
    Look {
        /// The interface.
        name: InterfaceName,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}
