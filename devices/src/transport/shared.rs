//! What a driver reads of one device, and whoever changes it: its own writes and the device's threads.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::page::{CONFIG_WORD, PAGE_WORDS, RegisterPage};
use super::registers as reg;

/// Bytes of a word of the page.
const WORD: usize = size_of::<u32>();

/// The registers that device threads change while the driver may read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Device status.
    pub(super) status: u32,
    /// Reasons for an interrupt that the driver has not acknowledged.
    pub(super) interrupt: u32,
    /// Configuration generation.
    pub(super) config_generation: u32,
}

/// A device's registers as its driver reads them. Every change goes through here, and is in the page
/// before the call returns: a driver that sees its own write done, or an interrupt, reads what came
/// of it.
pub(super) struct SharedRegisters {
    /// Held while the page is written, so that no change is lost to another.
    page: Mutex<Page>,
    /// Reasons that stand whatever the driver acknowledges. Outside of the lock for the sake of
    /// [`stands`](Self::stands), which each interrupt asks.
    standing: AtomicU32,
}

struct Page {
    live: Live,
    memory: Arc<dyn RegisterPage>,
}

impl SharedRegisters {
    /// Registers in `memory`, whatever it holds; nothing is written yet.
    pub(super) fn new(memory: Arc<dyn RegisterPage>) -> Self {
        Self {
            page: Mutex::new(Page {
                live: Live::default(),
                memory,
            }),
            standing: AtomicU32::new(0),
        }
    }

    /// The registers of the device's threads, without reasons that stand.
    pub(super) fn live(&self) -> Live {
        self.lock().live
    }

    /// Changes registers, and shows them to the driver.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Live) -> T) -> T {
        let mut page = self.lock();
        let result = change(&mut page.live);
        for (register, value) in self.volatile(page.live) {
            page.store(register, value);
        }
        result
    }

    /// From now on these reasons for an interrupt always stand, and no others.
    pub(super) fn stand(&self, causes: u32) {
        self.standing.store(causes, Ordering::SeqCst);
        self.change(|_| ());
    }

    /// Whether the driver reads `cause` whatever it has acknowledged.
    pub(super) fn stands(&self, cause: u32) -> bool {
        self.standing.load(Ordering::SeqCst) & cause == cause
    }

    /// Shows the values of registers that only the driver changes.
    pub(super) fn show(&self, registers: &[(u64, u32)]) {
        let page = self.lock();
        for (register, value) in registers {
            page.store(*register, *value);
        }
    }

    /// Shows a configuration space that the driver has written to itself, or has not seen yet.
    pub(super) fn show_config(&self, space: &[u8]) {
        let page = self.lock();
        let (_, config) = page.memory.words().split_at(CONFIG_WORD);
        for (word, value) in config.iter().zip(words(space)) {
            word.store(value, Ordering::Release);
        }
    }

    /// Shows a configuration space that changed under the driver, in one step with the next
    /// generation and the reason for the interrupt. A driver that reads the generation before and
    /// after the space (virtio 1.2 §2.5.1) has read it whole when both are equal: stores one after
    /// the other could not promise that, wherever among them the generation came.
    pub(super) fn replace_config(&self, space: &[u8]) {
        let mut page = self.lock();
        page.live.config_generation = page.live.config_generation.wrapping_add(1);
        page.live.interrupt |= reg::INTERRUPT_CONFIG;
        let mut image = [0; PAGE_WORDS];
        for (copy, word) in image.iter_mut().zip(page.memory.words()) {
            *copy = word.load(Ordering::Acquire);
        }
        for (word, value) in image.iter_mut().skip(CONFIG_WORD).zip(words(space)) {
            *word = value;
        }
        for (register, value) in self.volatile(page.live) {
            if let Some(word) = index(register).and_then(|index| image.get_mut(index)) {
                *word = value.to_le();
            }
        }
        page.memory.replace(&image);
    }

    /// What a driver reads at `offset`; 0 beyond the page.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let page = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = page.byte(start.saturating_add(at));
        }
    }

    /// Registers with their values, in the order in which they are to appear. The status comes last:
    /// a driver that waits for the end of its reset reads 0 everywhere then.
    fn volatile(&self, live: Live) -> [(u64, u32); 3] {
        let interrupt = live.interrupt | self.standing.load(Ordering::SeqCst);
        [
            (reg::CONFIG_GENERATION, live.config_generation),
            (reg::INTERRUPT_STATUS, interrupt),
            (reg::STATUS, live.status),
        ]
    }

    fn lock(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn store(&self, register: u64, value: u32) {
        let word = index(register).and_then(|index| self.memory.words().get(index));
        if let Some(word) = word {
            word.store(value.to_le(), Ordering::Release);
        }
    }

    fn byte(&self, at: usize) -> u8 {
        let word = self.memory.words().get(at / WORD);
        let bytes = word.map_or([0; WORD], |word| word.load(Ordering::Acquire).to_ne_bytes());
        bytes.get(at % WORD).copied().unwrap_or_default()
    }
}

impl fmt::Debug for SharedRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegisters")
            .field("live", &self.live())
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

fn index(register: u64) -> Option<usize> {
    usize::try_from(register / 4).ok()
}

/// The words of a configuration space, as they lie in memory, with zeroes behind its end.
fn words(space: &[u8]) -> impl Iterator<Item = u32> {
    let whole = space.chunks(WORD).map(|chunk| {
        let mut word = [0; WORD];
        for (byte, value) in word.iter_mut().zip(chunk) {
            *byte = *value;
        }
        u32::from_ne_bytes(word)
    });
    whole.chain(std::iter::repeat(0))
}
