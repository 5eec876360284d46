//! What files say about the network beyond the card itself: `[net]` of the host file, and the
//! keys of a slot's first `[[net]]` that decide who reaches whom.

use std::net::{Ipv4Addr, SocketAddrV4};

use hostnet::policy::{HostPort, PortRange, Protocol, Transport};
use hostnet::pool::{Pool, Subnet};
use hostnet::slot::{InterfaceName, SlotName};
use ipnet::Ipv4Net;

use super::node::{Node, Value};
use super::problem::Located;
use super::reader::{FromNode, Ranged, Table, expected};
use super::slot::Setting;
use super::values::AbsolutePath;
use super::words::word;

/// `[net]` of the host file.
#[derive(Debug, Default)]
pub(crate) struct HostNetFile {
    /// `user`: who may open the taps, by name or number.
    pub(crate) user: Setting<String>,
    /// `uplink`: the interface towards the world.
    pub(crate) uplink: Setting<InterfaceName>,
    /// `pool`: where slots' networks come from.
    pub(crate) pool: Setting<Pool>,
    /// `dns`: name servers that queries to the gateways are passed on to.
    pub(crate) dns: Setting<Vec<Ipv4Addr>>,
    /// `trusted`: interfaces whose other side may connect to slots.
    pub(crate) trusted: Setting<Vec<InterfaceName>>,
    /// `egress` of slots that do not say.
    pub(crate) egress: EgressFile,
    /// `auto` of slots that do not say.
    pub(crate) auto: Setting<bool>,
    /// `state_dir`: where it is remembered what was done to the network.
    pub(crate) state_dir: Setting<AbsolutePath>,
    /// `[[net.allow]]`
    pub(crate) allow: Vec<PairFile>,
    /// `[[net.dnat]]`
    pub(crate) dnat: Vec<RedirectFile>,
}

impl HostNetFile {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            user: table.get("user"),
            uplink: table.get("uplink"),
            pool: table.get("pool"),
            dns: table.get("dns"),
            trusted: table.get("trusted"),
            egress: EgressFile::read(&mut table),
            auto: table.get("auto"),
            state_dir: table.get("state_dir"),
            allow: read_all(&mut table, "allow", PairFile::read),
            dnat: read_all(&mut table, "dnat", RedirectFile::read),
        };
        table.finish();
        file
    }
}

/// What a slot's first card says about its network. None of it is there for further cards.
#[derive(Debug, Default)]
pub(crate) struct PolicyFile {
    /// `subnet`
    pub(crate) subnet: Setting<Subnet>,
    /// `egress`
    pub(crate) egress: EgressFile,
    /// `allow_imds`
    pub(crate) allow_imds: Setting<bool>,
    /// `host_ports`
    pub(crate) host_ports: Setting<Vec<HostPort>>,
    /// `[[net.publish]]`
    pub(crate) publish: Vec<PublishFile>,
    /// `auto`
    pub(crate) auto: Setting<bool>,
}

impl PolicyFile {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            subnet: table.get("subnet"),
            egress: EgressFile::read(table),
            allow_imds: table.get("allow_imds"),
            host_ports: table.get("host_ports"),
            publish: read_all(table, "publish", PublishFile::read),
            auto: table.get("auto"),
        }
    }

    /// The first key that is set, if any.
    pub(crate) fn any_key(&self) -> Option<&'static str> {
        let keys = [
            ("subnet", self.subnet.is_some()),
            ("egress", self.egress != EgressFile::Unset),
            ("allow_imds", self.allow_imds.is_some()),
            ("host_ports", self.host_ports.is_some()),
            ("publish", !self.publish.is_empty()),
            ("auto", self.auto.is_some()),
        ];
        keys.into_iter()
            .find_map(|(key, is_set)| is_set.then_some(key))
    }
}

/// `egress`: a word, or a list of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum EgressFile {
    /// Not said.
    #[default]
    Unset,
    /// One of the classes.
    Class(EgressClass),
    /// What is admitted.
    Rules(Vec<EgressRuleFile>),
}

/// A class of egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EgressClass {
    /// Everywhere.
    Unrestricted,
    /// HTTP and HTTPS.
    Web,
    /// Nowhere.
    None,
}

impl FromNode for EgressClass {
    fn from_node(node: &Node) -> Result<Self, String> {
        let words = [
            ("unrestricted", Self::Unrestricted),
            ("web", Self::Web),
            ("none", Self::None),
        ];
        word(node, &words).map_err(|message| format!("{message}, or a list of rules"))
    }
}

impl EgressFile {
    fn read(table: &mut Table<'_>) -> Self {
        if table.is_list("egress") {
            return Self::Rules(read_all(table, "egress", EgressRuleFile::read));
        }
        let class = table.get::<EgressClass>("egress");
        class.map_or(Self::Unset, |class| Self::Class(class.value))
    }
}

/// One rule of `egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EgressRuleFile {
    /// `proto`; absent only when that was reported.
    pub(crate) proto: Setting<Protocol>,
    /// `ports`
    pub(crate) ports: Setting<Vec<PortRange>>,
    /// `cidrs`
    pub(crate) cidrs: Setting<Vec<Ipv4Net>>,
}

impl EgressRuleFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            proto: table.require("proto"),
            ports: table.get("ports"),
            cidrs: table.get("cidrs"),
        };
        table.finish();
        file
    }
}

/// One `[[net.publish]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishFile {
    /// `host`; absent only when that was reported.
    pub(crate) host: Setting<Ranged<1, 65535>>,
    /// `guest`; absent only when that was reported.
    pub(crate) guest: Setting<Ranged<1, 65535>>,
    /// `proto`
    pub(crate) proto: Setting<Transport>,
}

impl PublishFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            host: table.require("host"),
            guest: table.require("guest"),
            proto: table.get("proto"),
        };
        table.finish();
        file
    }
}

/// One `[[net.allow]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PairFile {
    /// The table itself.
    pub(crate) at: Located<()>,
    /// `from`; absent only when that was reported.
    pub(crate) from: Setting<SlotName>,
    /// `to`; absent only when that was reported.
    pub(crate) to: Setting<SlotName>,
    /// `tcp`
    pub(crate) tcp: Setting<Vec<PortRange>>,
    /// `udp`
    pub(crate) udp: Setting<Vec<PortRange>>,
    /// `icmp`
    pub(crate) icmp: Setting<bool>,
}

impl PairFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            at: table.located(),
            from: table.require("from"),
            to: table.require("to"),
            tcp: table.get("tcp"),
            udp: table.get("udp"),
            icmp: table.get("icmp"),
        };
        table.finish();
        file
    }
}

/// One `[[net.dnat]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedirectFile {
    /// `slots`
    pub(crate) slots: Setting<Vec<SlotName>>,
    /// `proto`
    pub(crate) proto: Setting<Transport>,
    /// `port`; absent only when that was reported.
    pub(crate) port: Setting<Ranged<1, 65535>>,
    /// `to`; absent only when that was reported.
    pub(crate) to: Setting<SocketAddrV4>,
}

impl RedirectFile {
    fn read(mut table: Table<'_>) -> Self {
        let file = Self {
            slots: table.get("slots"),
            proto: table.get("proto"),
            port: table.require("port"),
            to: table.require("to"),
        };
        table.finish();
        file
    }
}

fn read_all<T>(table: &mut Table<'_>, key: &'static str, read: impl Fn(Table<'_>) -> T) -> Vec<T> {
    table.tables(key).into_iter().map(read).collect()
}

/// Text that parses as `T`; `T`'s own error says what was expected.
fn parsed<T>(node: &Node) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    String::from_node(node)?
        .parse()
        .map_err(|error: T::Err| error.to_string())
}

impl FromNode for Subnet {
    fn from_node(node: &Node) -> Result<Self, String> {
        parsed(node)
    }
}

impl FromNode for Pool {
    fn from_node(node: &Node) -> Result<Self, String> {
        parsed(node)
    }
}

impl FromNode for Ipv4Addr {
    fn from_node(node: &Node) -> Result<Self, String> {
        parsed(node).map_err(|_| expected("an IPv4 address", &node.value))
    }
}

impl FromNode for SocketAddrV4 {
    fn from_node(node: &Node) -> Result<Self, String> {
        let error = || {
            expected(
                "an IPv4 address with port, such as \"127.0.0.1:3129\"",
                &node.value,
            )
        };
        let to: Self = parsed(node).map_err(|_| error())?;
        if to.port() == 0 { Err(error()) } else { Ok(to) }
    }
}

impl FromNode for Ipv4Net {
    fn from_node(node: &Node) -> Result<Self, String> {
        let error = || expected("an IPv4 network such as \"192.0.2.0/24\"", &node.value);
        let net: Self = parsed(node).map_err(|_| error())?;
        if net.addr() == net.network() {
            Ok(net)
        } else {
            Err(error())
        }
    }
}

/// A port may also be a number.
fn port_text(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Integer(number) => Ok(number.to_string()),
        _ => String::from_node(node),
    }
}

impl FromNode for PortRange {
    fn from_node(node: &Node) -> Result<Self, String> {
        let range = port_text(node)?.parse();
        range.map_err(|error: hostnet::policy::PortError| error.to_string())
    }
}

impl FromNode for HostPort {
    fn from_node(node: &Node) -> Result<Self, String> {
        let port = port_text(node)?.parse();
        port.map_err(|error: hostnet::policy::PortError| error.to_string())
    }
}

impl FromNode for Transport {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(node, &[("tcp", Self::Tcp), ("udp", Self::Udp)])
    }
}

impl FromNode for Protocol {
    fn from_node(node: &Node) -> Result<Self, String> {
        let words = [("tcp", Self::Tcp), ("udp", Self::Udp), ("icmp", Self::Icmp)];
        word(node, &words)
    }
}
