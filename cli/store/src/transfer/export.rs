//! Writes a state or a snapshot as a stream.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use uuid::Uuid;

use super::stream::{FORMAT, MAX_DATA, Record, Writer};
use super::{Header, TransferError};
use crate::copy::next_data;
use crate::error::StoreError;
use crate::image::{self, Progress};
use crate::layout::Layout;
use crate::name::{Name, SnapshotRef};
use crate::store::Store;

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// A state as it is now.
    State(Name),
    /// A snapshot.
    Snapshot {
        /// The snapshot.
        snapshot: SnapshotRef,
        /// A snapshot of the same state that the other side has: only what differs is sent.
        since: Option<Name>,
        /// Bytes of the image that the other side has from an export that broke off.
        from: u64,
    },
}

/// What is sent, open: nobody changes or removes it meanwhile.
struct Source {
    header: Header,
    image: Option<File>,
    base: Option<File>,
}

impl Store {
    /// Writes `what` to `to` and returns it. The store is locked only at the beginning.
    ///
    /// # Errors
    /// When there is no such state or snapshot, it is in use, or reading or writing fails.
    pub fn export<W: Write>(
        &self,
        what: &Export,
        to: W,
        progress: Progress<'_>,
    ) -> Result<W, TransferError> {
        let source = {
            let locked = self.lock()?;
            match what {
                Export::State(state) => {
                    locked.require_state(state)?;
                    of_state(locked.layout(), state)?
                }
                Export::Snapshot {
                    snapshot,
                    since,
                    from,
                } => of_snapshot(self, snapshot, since.as_ref(), *from)?,
            }
        };
        let mut writer = Writer::begin(to, &source.header)?;
        source.send(&mut writer, progress)?;
        writer.finish()
    }
}

fn of_state(layout: &Layout, state: &Name) -> Result<Source, StoreError> {
    let path = layout.image(state);
    let image = image::open_shared(&path)?;
    Ok(Source {
        header: Header {
            format: FORMAT,
            id: Uuid::new_v4(),
            state: state.clone(),
            bytes: length(image.as_ref(), &path)?,
            manifest: None,
            base: None,
            from: 0,
        },
        image,
        base: None,
    })
}

fn of_snapshot(
    store: &Store,
    snapshot: &SnapshotRef,
    since: Option<&Name>,
    from: u64,
) -> Result<Source, StoreError> {
    let layout = store.layout();
    let (state, kept) = store.resolve(snapshot)?;
    let manifest = kept.manifest(layout)?;
    let (mut base, mut base_id) = (None, None);
    if let Some(since) = since {
        let reference = SnapshotRef {
            state: Some(state.clone()),
            snapshot: since.clone(),
        };
        let (_, since) = store.resolve(&reference)?;
        base = image::open_shared(&since.seen_image(layout)?)?;
        base_id = Some(since.manifest(layout)?.id);
    }
    let path = kept.seen_image(layout)?;
    let image = image::open_shared(&path)?;
    Ok(Source {
        header: Header {
            format: FORMAT,
            id: manifest.id,
            state,
            bytes: length(image.as_ref(), &path)?,
            manifest: Some(manifest),
            base: base_id,
            from,
        },
        image,
        base,
    })
}

fn length(image: Option<&File>, path: &Path) -> Result<Option<u64>, StoreError> {
    let length = |image: &File| image.metadata().map(|image| image.len());
    image
        .map(length)
        .transpose()
        .map_err(StoreError::at("inspect", path))
}

impl Source {
    fn send<W: Write>(
        &self,
        writer: &mut Writer<W>,
        progress: Progress<'_>,
    ) -> Result<(), TransferError> {
        let (Some(image), Some(bytes)) = (&self.image, self.header.bytes) else {
            return Ok(());
        };
        let mut old = vec![0; MAX_DATA];
        let mut new = vec![0; MAX_DATA];
        let mut at = self.header.from;
        while let Some((start, end)) = self.next(at.min(bytes), bytes)? {
            let left = usize::try_from(end.saturating_sub(start)).unwrap_or(MAX_DATA);
            let length = left.min(MAX_DATA);
            let (new, old) = (new.get_mut(..length), old.get_mut(..length));
            let (Some(new), Some(old)) = (new, old) else {
                break;
            };
            read(image, new, start)?;
            match &self.base {
                Some(base) => read(base, old, start)?,
                None => old.fill(0),
            }
            if new.iter().all(|byte| *byte == 0) && old.iter().any(|byte| *byte != 0) {
                writer.write(&Record::Zeroes(start, length as u64))?;
            } else if new != old {
                writer.write(&Record::Data(start, new))?;
            }
            at = start.saturating_add(length as u64);
            progress(at, bytes);
        }
        Ok(())
    }

    /// The next range at or after `at` where the image or its base has data.
    fn next(&self, at: u64, bytes: u64) -> Result<Option<(u64, u64)>, TransferError> {
        let mut first: Option<(u64, u64)> = None;
        for file in [&self.image, &self.base].into_iter().flatten() {
            let data = next_data(file, at, bytes).map_err(super::stream("find the data for"))?;
            first = match (first, data) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Ok(first)
    }
}

/// Reads at an offset; what lies behind the end of a shorter base is zeroes.
fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<(), TransferError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let offset = at.saturating_add(filled as u64);
        match file.read_at(rest, offset) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(super::stream("read the image for")(error)),
        }
    }
    Ok(())
}
