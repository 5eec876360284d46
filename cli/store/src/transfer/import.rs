//! Makes a state, or a snapshot of one, from a stream.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::stream::{MAX_DATA, Reader, Record};
use super::{Header, TransferError};
use crate::assignments::{read_json, write_json};
use crate::building::{Building, beside};
use crate::copy::Method;
use crate::error::StoreError;
use crate::image::{self, Progress};
use crate::layout::{IMAGE, PART};
use crate::name::Name;
use crate::snapshot::{self, Manifest, Pending};
use crate::store::{Locked, Store};
use crate::zfs::DataSets;
use crate::{durable, fault};

/// Bytes between two notes of how much has arrived.
const NOTE_EVERY: u64 = 64 << 20;

/// Name of the note.
const NOTE: &str = "arrived.json";

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Landing {
    /// A new state.
    State,
    /// A new snapshot of a state that was there.
    Snapshot,
}

/// What was made of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// What it is.
    pub landing: Landing,
    /// The snapshot, if the stream is of one.
    pub snapshot: Option<Name>,
    /// Length of the image; nothing if it has none.
    pub bytes: Option<u64>,
}

/// How much of which content has arrived.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: Uuid,
    at: u64,
}

impl Store {
    /// Reads a stream. One of everything makes the state `state`; one of changes makes a snapshot of
    /// it, next to the one that it changes.
    ///
    /// # Errors
    /// When the stream is damaged or breaks off, the name is taken, the snapshot that it changes is
    /// not there, or the host refuses. Only [`TransferError::Interrupted`] keeps what arrived.
    pub fn import(
        &self,
        state: &Name,
        from: impl Read,
        progress: Progress<'_>,
    ) -> Result<Imported, TransferError> {
        let (reader, header) = Reader::begin(from)?;
        let landing = match header.base {
            Some(base) => {
                self.import_changes(state, base, (reader, &header), progress)?;
                Landing::Snapshot
            }
            None => {
                self.import_state(state, (reader, &header), progress)?;
                Landing::State
            }
        };
        Ok(Imported {
            landing,
            snapshot: header.manifest.map(|manifest| manifest.snapshot),
            bytes: header.bytes,
        })
    }

    fn import_changes(
        &self,
        state: &Name,
        base: Uuid,
        (mut reader, header): (Reader<impl Read>, &Header),
        progress: Progress<'_>,
    ) -> Result<(), TransferError> {
        let damaged = |what| TransferError::Damaged { what };
        let manifest = header.manifest.as_ref();
        let manifest = manifest.ok_or_else(|| damaged("it changes a snapshot and is of none"))?;
        let bytes = header.bytes.ok_or_else(|| damaged("it has no image"))?;
        let (pending, base) = self.begin_changes(state, base, manifest)?;
        let to = (&base, pending.image_file(), pending.image_path());
        image::copy(to, self.method(), &|_, _| ())?;
        let image = pending.image_file();
        let failed = StoreError::at("write", pending.image_path());
        image.set_len(bytes).map_err(failed)?;
        while let Some(at) = apply(&mut reader, (image, pending.image_path()))? {
            progress(at, bytes);
        }
        Ok(pending.commit_as(&of_state(manifest, state))?)
    }

    fn begin_changes(
        &self,
        state: &Name,
        base: Uuid,
        manifest: &Manifest,
    ) -> Result<(Pending, File), TransferError> {
        let locked = self.lock()?;
        locked.require_state(state)?;
        let known = self.snapshots(state)?.into_iter();
        let mut known = known.filter_map(|it| it.manifest);
        let dir = known.find(|manifest| manifest.id == base);
        let kept = dir
            .map(|base| self.kept(state, &base.snapshot))
            .transpose()?;
        let image = kept
            .flatten()
            .map(|kept| image::open_shared(&kept.seen_image(locked.layout())?))
            .transpose()?;
        let image = image.flatten().ok_or_else(|| TransferError::NoBase {
            state: state.clone(),
            base,
        })?;
        let pending = snapshot::begin_locked(&locked, state, &manifest.snapshot)?;
        Ok((pending, image))
    }

    fn import_state(
        &self,
        state: &Name,
        (mut reader, header): (Reader<impl Read>, &Header),
        progress: Progress<'_>,
    ) -> Result<(), TransferError> {
        let mut arriving = Arriving::begin(&self.lock()?, state, header)?;
        // Also without an image: the end's digest says that the header is right.
        let bytes = header.bytes.unwrap_or_default();
        if let Err(error) = arriving.receive(&mut reader, bytes, progress) {
            return Err(arriving.give_up(error));
        }
        let in_data_sets = self.new_in_data_sets()?;
        match (in_data_sets, &header.manifest) {
            (Some(sets), Some(manifest)) => {
                let manifest = of_state(manifest, state);
                arriving.finish_in_data_set((self, sets), &manifest)
            }
            _ => arriving.finish(self, state, header),
        }
    }
}

/// The manifest as a snapshot of the state that the stream was imported as.
fn of_state(manifest: &Manifest, state: &Name) -> Manifest {
    Manifest {
        state: state.clone(),
        ..manifest.clone()
    }
}

/// A state that is arriving.
struct Arriving {
    /// Closed before what is being made goes: a data set with an open file cannot be destroyed.
    image: File,
    building: Building,
    image_path: PathBuf,
    id: Uuid,
    /// Everything before this offset has arrived.
    at: u64,
    /// Whether an interrupted stream can go on later: its content has to be the same then.
    is_fixed: bool,
}

impl Arriving {
    fn begin(locked: &Locked<'_>, state: &Name, header: &Header) -> Result<Self, TransferError> {
        locked.require_free(state)?;
        let place = locked.layout().state(state);
        let is_fixed = header.manifest.is_some();
        let part = beside(&place, PART);
        let note = if is_fixed { note(&part)? } else { None };
        let have = note.filter(|note| note.id == header.id);
        let have = have.map_or(0, |note| note.at);
        if header.from > have {
            let from = header.from;
            return Err(TransferError::Gap { from, have });
        }
        let building = if is_fixed {
            if header.from == 0 {
                crate::building::refuse_while_alive(&part)?;
                durable::remove_tree(&part)?;
            }
            Building::go_on(locked, &place, part)?
        } else {
            Building::begin_state(locked, state)?
        };
        let image_path = building.dir().join(IMAGE);
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&image_path)
            .map_err(StoreError::at("create", &image_path))?;
        durable::inherit_owner(&image_path, building.dir())?;
        fault::point("an imported image is empty");
        Ok(Self {
            building,
            image,
            image_path,
            id: header.id,
            at: header.from,
            is_fixed,
        })
    }

    fn receive(
        &mut self,
        reader: &mut Reader<impl Read>,
        bytes: u64,
        progress: Progress<'_>,
    ) -> Result<(), TransferError> {
        let failed = StoreError::at("write", &self.image_path);
        self.image.set_len(bytes).map_err(failed)?;
        let mut noted = self.at;
        while let Some(at) = apply(reader, (&self.image, &self.image_path))? {
            fault::point("a record has arrived");
            self.at = at;
            progress(at, bytes);
            if self.is_fixed && at.saturating_sub(noted) >= NOTE_EVERY {
                self.note()?;
                noted = at;
            }
        }
        Ok(())
    }

    /// Writes down how much is durable.
    fn note(&self) -> Result<(), StoreError> {
        let failed = StoreError::at("write to disk", &self.image_path);
        self.image.sync_data().map_err(failed)?;
        let note = Note {
            id: self.id,
            at: self.at,
        };
        write_json(&self.building.dir().join(NOTE), &note)
    }

    /// Keeps what arrived if more of it can follow.
    fn give_up(self, error: TransferError) -> TransferError {
        let broke_off = matches!(&error, TransferError::Stream { .. });
        if !self.is_fixed || !broke_off || self.at == 0 || self.note().is_err() {
            return error;
        }
        let at = self.at;
        drop(self.building.keep());
        TransferError::Interrupted {
            at,
            source: Box::new(error),
        }
    }

    /// What could go on after a break lies in a directory; now it becomes a data set.
    fn finish_in_data_set(
        self,
        (store, sets): (&Store, &DataSets),
        manifest: &Manifest,
    ) -> Result<(), TransferError> {
        let building = Building::begin_state(&store.lock()?, &manifest.state)?;
        if manifest.bytes.is_some() {
            let path = building.dir().join(IMAGE);
            let places = (path.as_path(), self.image_path.as_path());
            image::copy_new(&self.image, places, Method::Auto, &|_, _| ())?;
        }
        sets.snapshot(manifest, None)?;
        Ok(building.finish(store)?)
    }

    fn finish(self, store: &Store, state: &Name, header: &Header) -> Result<(), TransferError> {
        let dir = self.building.dir();
        self.image
            .sync_all()
            .map_err(StoreError::at("write to disk", &self.image_path))?;
        if header.bytes.is_none() {
            durable::remove_file(&self.image_path)?;
        }
        if let Some(manifest) = &header.manifest {
            let snapshots = dir.join("snapshots");
            durable::ensure_dir(&snapshots)?;
            let place = snapshots.join(manifest.snapshot.as_str());
            durable::remove_tree(&place)?;
            durable::ensure_dir(&place)?;
            if header.bytes.is_some() {
                let copy = place.join(IMAGE);
                let places = (copy.as_path(), self.image_path.as_path());
                image::copy_new(&self.image, places, store.method(), &|_, _| ())?;
                image::protect(&copy)?;
            }
            snapshot::write_manifest(&place, &of_state(manifest, state))?;
            durable::sync_dir(&snapshots)?;
        }
        durable::remove_file(&dir.join(NOTE))?;
        // An open file would keep a data set where it is.
        drop(self.image);
        Ok(self.building.finish(store)?)
    }
}

fn note(part: &Path) -> Result<Option<Note>, StoreError> {
    read_json(
        &part.join(NOTE),
        "a note of what arrived; remove its directory to start over",
    )
}

/// Writes the next record to the image and says where it ends; nothing at the end of the stream.
fn apply(
    reader: &mut Reader<impl Read>,
    (image, path): (&File, &Path),
) -> Result<Option<u64>, TransferError> {
    let failed = StoreError::at("write", path);
    match reader.next()? {
        Record::End => Ok(None),
        Record::Data(at, data) => {
            image.write_all_at(data, at).map_err(failed)?;
            Ok(Some(at.saturating_add(data.len() as u64)))
        }
        Record::Zeroes(at, length) => {
            zero(image, at, length).map_err(failed)?;
            Ok(Some(at.saturating_add(length)))
        }
    }
}

/// Makes a hole where the file system can, else writes zeroes.
fn zero(image: &File, at: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(image, flags, at, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if length <= MAX_DATA as u64 => {
            let zeroes = vec![0; usize::try_from(length).unwrap_or(MAX_DATA)];
            image.write_all_at(&zeroes, at)
        }
        result => Ok(result?),
    }
}
