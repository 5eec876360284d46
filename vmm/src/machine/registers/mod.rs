//! Register pages that the guest reads by itself: read-only memory slots of KVM's. It knows no
//! register; what is in a page is the transport's.
//!
//! A guest's read of such a page is a load like any other. Its writes leave the guest as accesses to
//! MMIO, as everywhere outside of RAM, so that ioeventfds and the bus see them
//! ([decision 010](../../../../docs/decisions/010-register-pages-are-memory.md)).

mod sys;

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn neighbours_share_a_run_and_nobody_else_is_in_it() {
        let runs = |positions: &[u8]| runs(positions.iter().copied().map(Position));
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[12, 0, 8, 1, 13]), [0..2, 8..9, 12..14]);
        assert_eq!(
            runs(&[3, 3, 4, 9]),
            [3..5, 9..10],
            "clashes are found elsewhere"
        );
        assert_eq!(runs(&[1, MAX_POSITION, MAX_POSITION + 1]), [1..2, 15..16]);
    }

    #[test]
    fn each_position_has_a_page_of_its_own_that_begins_empty() {
        let pages = Arc::new(Pages::map(3).unwrap());
        let run = Run {
            positions: 4..7,
            pages,
        };
        let pages = RegisterPages { runs: vec![run] };
        for (value, position) in (1..).zip(4..7) {
            let page = pages.page(Position(position)).unwrap();
            assert!(
                page.words()
                    .iter()
                    .all(|word| word.load(Ordering::SeqCst) == 0)
            );
            page.words()[PAGE_WORDS - 1].store(value, Ordering::SeqCst);
        }
        assert_eq!(pages.runs[0].pages.range().len(), 3 * 4 * PAGE_WORDS);
        for (value, position) in (1..).zip(4..7) {
            let page = pages.page(Position(position)).unwrap();
            assert_eq!(page.words()[PAGE_WORDS - 1].load(Ordering::SeqCst), value);
        }
        assert!(pages.page(Position(3)).is_none() && pages.page(Position(7)).is_none());
    }

    #[test]
    fn replaced_page_keeps_its_neighbours_and_its_place() {
        let pages = Arc::new(Pages::map(3).unwrap());
        let [before, page, after] = [0, 1, 2].map(|index| pages.page(index).unwrap());
        before.words()[0].store(7, Ordering::SeqCst);
        after.words()[0].store(9, Ordering::SeqCst);
        for value in 0..100 {
            page.exchange(&[value; PAGE_WORDS]).unwrap();
            assert!(
                page.words()
                    .iter()
                    .all(|word| word.load(Ordering::SeqCst) == value)
            );
        }
        assert_eq!(before.words()[0].load(Ordering::SeqCst), 7);
        assert_eq!(after.words()[0].load(Ordering::SeqCst), 9);
    }

    #[test]
    fn reader_that_saw_a_new_word_sees_no_old_one() {
        let pages = Arc::new(Pages::map(1).unwrap());
        let page = pages.page(0).unwrap();
        let reader = pages.page(0).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for value in 1..5_000 {
                    page.exchange(&[value; PAGE_WORDS]).unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            while !done.load(Ordering::SeqCst) {
                let last = reader.words()[PAGE_WORDS - 1].load(Ordering::SeqCst);
                let first = reader.words()[0].load(Ordering::SeqCst);
                assert!(first >= last, "{first} after {last}");
            }
        });
    }
}
