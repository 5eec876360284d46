//! Memory of this process that a guest may read as well.
#![expect(
    unsafe_code,
    reason = "Memory that is shared with a guest, and exchanged under it, has no safe interface"
)]

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use devices::transport::PAGE_WORDS;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};

/// One page, word by word.
type Words = [AtomicU32; PAGE_WORDS];

const PAGE_BYTES: usize = size_of::<Words>();

/// A private mapping of whole pages; zeroes at first, none of them taken from the host yet.
#[derive(Debug)]
pub(super) struct Pages {
    start: NonNull<Words>,
    count: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and its words are atomic.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

/// One page of [`Pages`], which it keeps mapped.
#[derive(Debug)]
pub(super) struct Page {
    pages: Arc<Pages>,
    /// Below the number of pages.
    index: usize,
}

impl Pages {
    /// Maps `count` pages.
    ///
    /// # Errors
    /// When the host has no room, or `count` is 0.
    pub(super) fn map(count: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(PAGE_BYTES);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let start = map(bytes)?;
        Ok(Self { start, count })
    }

    /// The addresses of all pages in this process. They stay the same, whatever is exchanged.
    pub(super) fn range(&self) -> Range<usize> {
        let start = self.start.as_ptr().addr();
        // The mapping was made of so many bytes: this is its end.
        start..start.saturating_add(self.count.saturating_mul(PAGE_BYTES))
    }

    /// Page number `index`.
    pub(super) fn page(self: &Arc<Self>, index: usize) -> Option<Page> {
        (index < self.count).then(|| Page {
            pages: Arc::clone(self),
            index,
        })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `map` made this mapping for this value alone, and every `Page` keeps the value
        // alive. What `exchange` put into its place lies in the same range. A guest no longer runs:
        // its transports, which hold the pages, outlive the threads of its vCPUs.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.range().len()) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "Register pages were not unmapped");
        }
    }
}

impl Page {
    /// The page's words.
    pub(super) fn words(&self) -> &Words {
        // SAFETY: the page lies in the mapping that `pages` keeps, at a multiple of its size. Any
        // bit pattern is a word, and nobody accesses one but atomically; `exchange` replaces the
        // memory without a moment in which there is none.
        unsafe { self.at().as_ref() }
    }

    fn at(&self) -> NonNull<Words> {
        // SAFETY: `Pages::page` made this value for a page within the mapping.
        unsafe { self.pages.start.add(self.index) }
    }

    /// Puts a page with this content in the place of this one. Every access, of a guest's processor
    /// too, is to the old page or, from some moment on, to the new one: the host's kernel takes the
    /// old one out of all page tables, KVM's included, before it puts in the new one, and lets
    /// accesses between wait.
    ///
    /// # Errors
    /// When the host has no page to spare. Nothing has changed then.
    pub(super) fn exchange(&self, image: &[u32; PAGE_WORDS]) -> io::Result<()> {
        let spare: NonNull<Words> = map(PAGE_BYTES)?;
        // SAFETY: the mapping is new, as large as the image, and known to nobody else.
        unsafe { spare.cast::<[u32; PAGE_WORDS]>().write(*image) };
        let (from, to): (*mut c_void, *mut c_void) =
            (spare.as_ptr().cast(), self.at().as_ptr().cast());
        // SAFETY: both are whole mapped pages of ours. The old one is replaced in its place, so that
        // pointers to it stay good, and holds nothing but atomic words, so that they may change at
        // any time.
        let moved = unsafe { mremap_fixed(from, PAGE_BYTES, PAGE_BYTES, MremapFlags::MAYMOVE, to) };
        if let Err(error) = moved {
            // SAFETY: it was not moved, and is still known to nobody else.
            let _ = unsafe { munmap(from, PAGE_BYTES) };
            return Err(error.into());
        }
        Ok(())
    }
}

/// A new private mapping of `bytes` zeroes.
fn map<T>(bytes: usize) -> io::Result<NonNull<T>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the host chooses the place, so nothing else is mapped over.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
