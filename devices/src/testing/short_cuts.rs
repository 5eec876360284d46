//! What KVM does for a transport: shows its page to the guest, and takes writes out of its hands.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use vmm_sys_util::eventfd::EventFd;

use crate::transport::registers::{INTERRUPT_ACK, QUEUE_NOTIFY};
use crate::transport::{Doorbells, PAGE_WORDS, RegisterPage};

/// The page of one device, as its guest sees it.
#[derive(Debug, Clone)]
pub struct GuestPage(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    words: [AtomicU32; PAGE_WORDS],
    /// Held by each load of the guest's, so that a replacement is one step to it.
    replacing: RwLock<()>,
    /// What the last replacement replaced.
    replaced: Mutex<Option<Vec<u32>>>,
}

impl Default for GuestPage {
    fn default() -> Self {
        Self(Arc::new(Shown {
            words: [const { AtomicU32::new(0) }; PAGE_WORDS],
            replacing: RwLock::new(()),
            replaced: Mutex::default(),
        }))
    }
}

impl GuestPage {
    /// The page, for a transport.
    pub(super) fn into_registers(self) -> Arc<dyn RegisterPage> {
        self.0
    }

    /// Reads as a load of the guest's does: any width, nothing is asked of anybody. 0 beyond the end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let _one_load = self.0.replacing.read().unwrap();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, byte) in data.iter_mut().enumerate() {
            let at = start.saturating_add(at);
            let word = self.0.words.get(at / 4);
            let bytes = word.map_or([0; 4], |word| word.load(Ordering::Acquire).to_ne_bytes());
            *byte = bytes[at % 4];
        }
    }

    /// The words of the page just before it was last replaced, if ever.
    pub fn replaced(&self) -> Option<Vec<u32>> {
        self.0.replaced.lock().unwrap().clone()
    }

    /// Reads a register.
    pub fn register(&self, offset: u64) -> u32 {
        let mut value = [0; 4];
        self.read(offset, &mut value);
        u32::from_le_bytes(value)
    }
}

impl RegisterPage for Shown {
    fn words(&self) -> &[AtomicU32; PAGE_WORDS] {
        &self.words
    }

    fn replace(&self, image: &[u32; PAGE_WORDS]) {
        let _all = self.replacing.write().unwrap();
        let before = self.words.iter().map(|word| word.load(Ordering::Acquire));
        *self.replaced.lock().unwrap() = Some(before.collect());
        for (word, value) in self.words.iter().zip(image) {
            word.store(*value, Ordering::Release);
        }
    }
}

/// Writes that do not reach the transport any more.
#[derive(Debug, Clone, Default)]
pub(super) struct ShortCuts(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    kicks: BTreeMap<u32, EventFd>,
    absorbed: Option<u32>,
}

impl ShortCuts {
    /// Takes a write that a short cut is for.
    pub(super) fn take(&self, offset: u64, data: &[u8]) -> bool {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return false;
        };
        let taken = self.0.lock().unwrap();
        match offset {
            QUEUE_NOTIFY => match taken.kicks.get(&value) {
                Some(kick) => kick.write(1).is_ok(),
                None => false,
            },
            INTERRUPT_ACK => taken.absorbed == Some(value),
            _ => false,
        }
    }
}

impl Doorbells for ShortCuts {
    fn connect(&self, queue: u16, kick: &EventFd) -> io::Result<()> {
        let kick = kick.try_clone()?;
        let before = self.0.lock().unwrap().kicks.insert(queue.into(), kick);
        assert!(before.is_none(), "queue {queue} is connected once");
        Ok(())
    }

    fn absorb(&self, cause: u32) -> io::Result<()> {
        let before = self.0.lock().unwrap().absorbed.replace(cause);
        assert_eq!(before, None, "acknowledgements are absorbed once");
        Ok(())
    }
}
