//! Register pages that the guest reads by itself: read-only memory slots of KVM's. It knows no
//! register; what is in a page is the transport's.
//!
//! A guest's read of such a page is a load like any other. Its writes leave the guest as accesses to
//! MMIO, as everywhere outside of RAM, so that ioeventfds and the bus see them
//! ([decision 010](../../../../docs/decisions/010-register-pages-are-memory.md)).

mod sys;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use devices::registry::{MAX_POSITION, Position};
use devices::transport::{PAGE_WORDS, RegisterPage};
use kvm_ioctls::{Cap, VmFd};

use crate::arch::{layout, ports};
use crate::config::RegisterReads;
use crate::kvm;
use sys::{Page, Pages};

/// The register pages of a machine's devices.
#[derive(Debug, Default)]
pub(super) struct RegisterPages {
    runs: Vec<Run>,
}

/// Neighbouring positions, which share one memory slot.
#[derive(Debug)]
struct Run {
    positions: Range<u8>,
    pages: Arc<Pages>,
}

impl RegisterPages {
    /// Shows the guest a page at each of `positions`, as far as KVM does that. Before the machine has
    /// vCPUs: with them, it takes far longer.
    pub(super) fn create(
        vm: &VmFd,
        reads: RegisterReads,
        positions: impl Iterator<Item = Position>,
    ) -> Self {
        if reads == RegisterReads::Exits {
            return Self::default();
        }
        if !vm.check_extension(Cap::ReadonlyMem) {
            tracing::warn!(
                "KVM has no read-only memory slots; each read of a device register is an exit"
            );
            return Self::default();
        }
        let runs = (0..).zip(runs(positions));
        let runs = runs.filter_map(|(slot, positions)| {
            let shown = Run::create(vm, slot, positions.clone());
            shown
                .inspect_err(|error| {
                    tracing::warn!(?positions, %error, "Each read of a register at these positions is an exit");
                })
                .ok()
        });
        Self {
            runs: runs.collect(),
        }
    }

    /// The page of the device at `position`; nothing where reads are exits.
    pub(super) fn page(&self, position: Position) -> Option<Arc<dyn RegisterPage>> {
        let mut runs = self.runs.iter();
        let run = runs.find(|run| run.positions.contains(&position.0))?;
        let index = position.0.checked_sub(run.positions.start)?;
        let page = run.pages.page(index.into())?;
        Some(Arc::new(page))
    }
}

impl Run {
    fn create(vm: &VmFd, slot: u32, positions: Range<u8>) -> std::io::Result<Self> {
        let pages = Arc::new(Pages::map(positions.len())?);
        let address = ports::virtio_mmio(Position(positions.start));
        kvm::show_pages(vm, slot, address, &pages.range())?;
        Ok(Self { positions, pages })
    }
}

impl RegisterPage for Page {
    fn words(&self) -> &[AtomicU32; PAGE_WORDS] {
        Self::words(self)
    }

    fn replace(&self, image: &[u32; PAGE_WORDS]) {
        if let Err(error) = self.exchange(image) {
            // The host has no page to spare. A driver that reads in this moment may take a part of
            // the old configuration for new, until the interrupt behind it makes it read again.
            tracing::warn!(%error, "A register page was changed word by word");
            for (word, value) in self.words().iter().zip(image) {
                word.store(*value, Ordering::Release);
            }
        }
    }
}

/// The runs of neighbouring positions.
fn runs(positions: impl Iterator<Item = Position>) -> Vec<Range<u8>> {
    let mut sorted: Vec<u8> = positions
        .map(|position| position.0)
        .filter(|position| *position <= MAX_POSITION)
        .collect();
    sorted.sort_unstable();
    let mut runs: Vec<Range<u8>> = Vec::new();
    for position in sorted {
        match runs.last_mut() {
            Some(run) if position <= run.end => run.end = run.end.max(position.saturating_add(1)),
            _ => runs.push(position..position.saturating_add(1)),
        }
    }
    runs
}

const _: () = assert!(layout::MMIO_STRIDE == PAGE_WORDS as u64 * 4);
