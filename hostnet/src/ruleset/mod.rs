//! The rules of all slots as the text of one nftables transaction. Pure.
//!
//! Two tables, both called [`TABLE`] and both ours alone: family `bridge` sees frames as they come
//! out of a tap and lets nothing pass that does not carry the slot's own addresses ([`frames`]);
//! family `inet` decides where packets go ([`filter`]) and translates addresses ([`nat`]).
//! Interfaces are matched by name, so the rules hold before the interfaces exist, and go on to
//! hold when one is made anew.
//!
//! An accept here ends our chain and nothing else: another table on the same hook still sees the
//! packet and may drop it ([`crate::foreign`] finds those). A drop here is final.

mod filter;
mod frames;
mod nat;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use crate::policy::{HostSpec, SlotSpec};

/// Name of our tables.
pub const TABLE: &str = "slotvmm";

/// Families in which we have a table.
pub const FAMILIES: [&str; 2] = ["inet", "bridge"];

/// Text that replaces our tables by what `slots` need; without slots, it removes them.
///
/// Each table is added, so that it exists, deleted with everything in it, and written anew, all
/// in one transaction: nft 1.0.6 cannot delete what may be absent.
pub fn text(host: &HostSpec, slots: &[SlotSpec]) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        line(&mut text, 0, format_args!("add table {family} {TABLE}"));
        line(&mut text, 0, format_args!("delete table {family} {TABLE}"));
    }
    if !slots.is_empty() {
        frames::write(&mut text, slots);
        text.push('\n');
        line(&mut text, 0, format_args!("table inet {TABLE} {{"));
        sets(&mut text, host, slots);
        filter::write(&mut text, host, slots);
        nat::write(&mut text, host, slots);
        line(&mut text, 0, format_args!("}}"));
    }
    text
}

/// The sets that several chains look into.
fn sets(text: &mut String, host: &HostSpec, slots: &[SlotSpec]) {
    let names = |slot: &SlotSpec| quoted(&slot.bridge);
    set(text, "bridges", "ifname", slots.iter().map(names));
    let guest = |slot: &SlotSpec| format!("{} . {}", quoted(&slot.bridge), slot.subnet.guest());
    set(
        text,
        "guests",
        "ifname . ipv4_addr",
        slots.iter().map(guest),
    );
    let gateway = |slot: &SlotSpec| {
        let gateway = slot.subnet.gateway().addr();
        format!("{} . {gateway}", quoted(&slot.bridge))
    };
    set(
        text,
        "gateways",
        "ifname . ipv4_addr",
        slots.iter().map(gateway),
    );
    if !host.trusted.is_empty() {
        set(text, "trusted", "ifname", host.trusted.iter().map(quoted));
    }
}

/// A name in quotes; interface names have none inside.
fn quoted(name: &impl fmt::Display) -> String {
    format!("\"{name}\"")
}

/// Items as an anonymous set, `{ a, b }`.
fn braces(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}

fn set(text: &mut String, name: &str, of: &str, elements: impl Iterator<Item = String>) {
    line(text, 1, format_args!("set {name} {{"));
    line(text, 2, format_args!("type {of}"));
    line(text, 2, format_args!("elements = {}", braces(elements)));
    line(text, 1, format_args!("}}\n"));
}

/// Writes a chain; `rules` are its lines.
fn chain(text: &mut String, name: &str, rules: &[String]) {
    line(text, 1, format_args!("chain {name} {{"));
    for rule in rules {
        line(text, 2, format_args!("{rule}"));
    }
    line(text, 1, format_args!("}}\n"));
}

fn line(text: &mut String, depth: usize, rest: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{:\t<depth$}{rest}", "");
}
