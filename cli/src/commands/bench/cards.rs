//! Network cards of boots: each is on a tap in a network of the benchmark's own, made anew before each
//! boot as the monitor's users make it. So no root is needed, the host's network sees nothing of it, and no
//! two boots differ in what else happens there.

use std::io;

use boot_bench::machine::Nic as BenchNic;
use boot_bench::series::chain;
use hostnet::private::{PrivateBridge, PrivateError, PrivateNetwork, PrivateTap};
use hostnet::tap::Form;

use crate::args::BenchBoot;
use crate::resolve::{Nic, Slot};
use crate::tap;

/// The cards of every boot, or why there are none.
#[derive(Debug)]
pub(super) struct Cards {
    /// Nothing where they are left out.
    network: Option<PrivateNetwork>,
    /// Taps as `net apply` makes them, in the order of the slot's cards.
    taps: Vec<PrivateTap>,
    /// What is to be said about them.
    pub(super) notes: Vec<String>,
}

impl Cards {
    /// Leaves the host's network, unless the slot has no cards or they are left out.
    pub(super) fn prepare(args: &BenchBoot, slot: &Slot) -> Self {
        let taps: Vec<PrivateTap> = slot.nics.iter().map(tap).collect();
        let left_out = |why: &str| Self {
            network: None,
            taps: Vec::new(),
            notes: vec![format!(
                "The slot's network card is left out of every boot, and its address out of the \
                 parameters: {why}."
            )],
        };
        if taps.is_empty() {
            return Self {
                network: None,
                taps,
                notes: Vec::new(),
            };
        }
        if args.no_net {
            return left_out("--no-net says so");
        }
        if args.together.is_some() {
            return left_out("several machines at once would have the same address");
        }
        match enter(slot, &taps) {
            Ok(network) => Self {
                network: Some(network),
                taps,
                notes: vec![
                    "Every boot has its network card on a tap of its own, in a network where only the \
                     slot's gateway answers."
                        .to_owned(),
                ],
            },
            Err(error) => left_out(&chain(&error)),
        }
    }

    /// Whether boots have them.
    pub(super) fn are_in(&self) -> bool {
        self.network.is_some()
    }

    /// Makes every tap as `net apply` does.
    pub(super) fn fresh(&self) -> io::Result<()> {
        self.taps.iter().try_for_each(|tap| self.make(tap))
    }

    /// Makes the taps of `nics`, for a monitor that attaches to each so many times.
    pub(super) fn fresh_for(
        &self,
        nics: &[BenchNic],
        queues: impl Fn(&BenchNic) -> u8,
    ) -> io::Result<()> {
        self.taps.iter().zip(nics).try_for_each(|(tap, nic)| {
            let form = match queues(nic) {
                0 | 1 => Form::One,
                _ => Form::Several,
            };
            self.make(&PrivateTap {
                form,
                ..tap.clone()
            })
        })
    }

    fn make(&self, tap: &PrivateTap) -> io::Result<()> {
        match &self.network {
            Some(network) => network.tap(tap).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

/// Enters the network, makes the slot's bridge, and tries every tap: where the host refuses one, boots
/// go without.
fn enter(slot: &Slot, taps: &[PrivateTap]) -> Result<PrivateNetwork, PrivateError> {
    let network = PrivateNetwork::enter()?;
    let bridges = slot.nics.iter().filter(|nic| nic.is_first);
    for name in bridges.filter_map(|nic| nic.bridge.clone()) {
        let address = slot.net().gateway();
        network.bridge(&PrivateBridge { name, address })?;
    }
    taps.iter().try_for_each(|tap| network.tap(tap))?;
    Ok(network)
}

/// The first card's bridge is the slot's; others lead nowhere here.
fn tap(nic: &Nic) -> PrivateTap {
    PrivateTap {
        name: nic.tap.clone(),
        form: Form::Several,
        bridge: nic.bridge.clone().filter(|_| nic.is_first),
    }
}

/// A card as other monitors are given it.
pub(super) fn for_peers(nic: &Nic) -> BenchNic {
    BenchNic {
        tap: nic.tap.to_string(),
        mac: nic.mac_text(),
        queues: nic.queues.wanted(),
        vhost: tap::kernel_serves(nic),
    }
}
