//! What is there: the bridge and the tap of a slot as the kernel has them.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::Handle;
use rtnetlink::packet_core::Nla as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use serde::Serialize;

use crate::netlink::{block_on, io_error};
use crate::slot::InterfaceName;

/// `IFLA_TUN_*` of `linux/if_link.h`, as far as they matter here.
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
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
        /// Whether it was made for several queues.
        multi_queue: bool,
    },
    /// Something else, by the kernel's name of it.
    Other(String),
}

/// What is there of a slot's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The bridge.
    pub bridge: Option<Link>,
    /// The tap.
    pub tap: Option<Link>,
}

/// Looks at the interfaces called `bridge` and `tap`. Needs no privilege.
///
/// # Errors
/// When the kernel does not answer.
pub fn inspect(bridge: &InterfaceName, tap: &InterfaceName) -> Result<Observed, InspectError> {
    block_on(async |handle| {
        let bridge = link(&handle, bridge).await?;
        let tap = link(&handle, tap).await?;
        Ok(Observed { bridge, tap })
    })
    .map_err(|source| InspectError::Connect { source })?
}

async fn link(handle: &Handle, name: &InterfaceName) -> Result<Option<Link>, InspectError> {
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
        multi_queue: byte(attributes, TUN_MULTI_QUEUE) == Some(1),
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
