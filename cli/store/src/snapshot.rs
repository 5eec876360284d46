//! A snapshot: `snapshots/<name>/` with `data.img` and `manifest.json`.
//!
//! ```text
//! begin ─▶ snapshots/.new-<name>/data.img ─ filled by whoever ─▶ commit ─▶ snapshots/<name>/
//!                     │
//!                     └─ dropped, or its maker dies ─▶ removed
//! ```
//!
//! The manifest is written when the image is complete and durable. So a directory whose manifest
//! fits its image is a snapshot, even if its maker died before giving it its name: see `recover`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::building::{self, Building};
use crate::durable;
use crate::error::StoreError;
use crate::fault;
use crate::image;
use crate::layout::{IMAGE, MANIFEST, NEW};
use crate::name::Name;
use crate::store::{Locked, Store};

/// The version of the manifest that is written.
const FORMAT: u32 = 1;

/// Most bytes of a manifest that are read.
const MAX_MANIFEST: u64 = 64 << 10;

/// Snapshots are read and removed, never written.
pub(crate) const IMAGE_MODE: u32 = 0o400;

/// What the content of a snapshot is worth to a guest that boots from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// No guest ran: the image is what it left when it was powered off, or crashed.
    Stopped,
    /// As after a power cut: file systems replay their journals.
    Crash,
    /// File systems were frozen: nothing to replay.
    Filesystem,
}

/// What whoever filled a snapshot knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What it is worth.
    pub consistency: Consistency,
    /// The slot that ran, or that the state was assigned to.
    pub slot: Option<String>,
    /// How long the guest was halted, in microseconds; nothing if none ran, 0 if it ran on.
    pub pause_us: Option<u64>,
    /// Bytes that were copied; the rest is shared with the state or is holes.
    pub copied_bytes: u64,
}

impl Facts {
    /// Of a snapshot that halted nobody and copied nothing. `slot` has the state, if one has.
    pub(crate) fn unhalted(consistency: Consistency, slot: Option<&Name>) -> Self {
        Self {
            consistency,
            slot: slot.map(ToString::to_string),
            pause_us: None,
            copied_bytes: 0,
        }
    }
}

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's format, 1.
    pub format: u32,
    /// Identity of the content. It stays the same on another host.
    pub id: Uuid,
    /// The state that the snapshot is of.
    pub state: Name,
    /// Its name.
    pub snapshot: Name,
    /// When it was taken: seconds since 1970-01-01 UTC.
    pub created: u64,
    /// Length of the image in bytes; nothing if the state had no image yet.
    pub bytes: Option<u64>,
    /// What whoever filled it knows.
    #[serde(flatten)]
    pub facts: Facts,
}

impl Manifest {
    /// Reads the manifest in `dir`.
    ///
    /// # Errors
    /// When it is absent, too large or not a manifest of this version.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(MANIFEST);
        let damaged = |source| StoreError::Damaged {
            path: path.clone(),
            expected: "a snapshot's manifest",
            source,
        };
        let file = File::open(&path).map_err(StoreError::at("open", &path))?;
        let limited = io::Read::take(file, MAX_MANIFEST);
        let manifest: Self = serde_json::from_reader(limited).map_err(damaged)?;
        manifest.known().map_err(damaged)
    }

    /// Reads a manifest that is a line of text.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).and_then(Self::known)
    }

    fn known(self) -> serde_json::Result<Self> {
        if self.format == FORMAT {
            return Ok(self);
        }
        let version = format!("format {} instead of {FORMAT}", self.format);
        Err(serde::de::Error::custom(version))
    }

    /// The manifest of a snapshot that is taken now, of an image of so many bytes.
    pub(crate) fn now((state, snapshot): (&Name, &Name), bytes: Option<u64>, facts: Facts) -> Self {
        Self {
            format: FORMAT,
            id: Uuid::new_v4(),
            state: state.clone(),
            snapshot: snapshot.clone(),
            created: now(),
            bytes,
            facts,
        }
    }
}

/// A snapshot that is being filled. Dropped, it is gone.
#[derive(Debug)]
pub struct Pending {
    building: Building,
    state: Name,
    snapshot: Name,
    image: File,
    image_path: PathBuf,
}

/// Begins a snapshot of `state`: an empty image to be filled. The store is locked only while this
/// runs; until it is committed or dropped, the state cannot be deleted.
///
/// # Errors
/// When there is no such state, the name is taken or being taken, or the host refuses.
pub fn begin(store: &Store, state: &Name, snapshot: &Name) -> Result<Pending, StoreError> {
    begin_locked(&store.lock()?, state, snapshot)
}

/// As [`begin`], for a command that holds the store's lock.
pub(crate) fn begin_locked(
    locked: &Locked<'_>,
    state: &Name,
    snapshot: &Name,
) -> Result<Pending, StoreError> {
    locked.require_state(state)?;
    require_free(locked, state, snapshot)?;
    let place = locked.layout().snapshot(state, snapshot);
    durable::ensure_dir(&locked.layout().snapshots(state))?;
    let building = Building::begin(locked, &place)?;
    let image_path = building.dir().join(IMAGE);
    let image = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&image_path)
        .map_err(StoreError::at("create", &image_path))?;
    durable::inherit_owner(&image_path, &locked.layout().state(state))?;
    fault::point("a snapshot's image is empty");
    Ok(Pending {
        building,
        state: state.clone(),
        snapshot: snapshot.clone(),
        image,
        image_path,
    })
}

/// Fails when the name of a new snapshot is taken.
pub(crate) fn require_free(
    locked: &Locked<'_>,
    state: &Name,
    snapshot: &Name,
) -> Result<(), StoreError> {
    if locked.store().kept(state, snapshot)?.is_none() {
        return Ok(());
    }
    Err(StoreError::SnapshotExists {
        state: state.clone(),
        snapshot: snapshot.clone(),
    })
}

impl Pending {
    /// The image to be filled.
    pub fn image_path(&self) -> &Path {
        &self.image_path
    }

    /// The image to be filled, empty and open for reading and writing.
    pub fn image_file(&self) -> &File {
        &self.image
    }

    /// Makes the image durable, writes the manifest and gives the snapshot its name.
    ///
    /// # Errors
    /// When the host refuses; then the snapshot is gone.
    pub fn commit(self, facts: Facts) -> Result<Manifest, StoreError> {
        let path = &self.image_path;
        fault::point("a snapshot's image is filled");
        self.image
            .set_permissions(Permissions::from_mode(IMAGE_MODE))
            .and_then(|()| self.image.sync_all())
            .map_err(StoreError::at("write to disk", path))?;
        let metadata = self.image.metadata();
        let bytes = metadata.map_err(StoreError::at("inspect", path))?.len();
        let manifest = self.describe(Some(bytes), facts);
        self.finish(&manifest)?;
        Ok(manifest)
    }

    /// As [`Self::commit`], for a copy of a snapshot that was taken elsewhere.
    pub(crate) fn commit_as(self, manifest: &Manifest) -> Result<(), StoreError> {
        image::protect(&self.image_path)?;
        self.image
            .sync_all()
            .map_err(StoreError::at("write to disk", &self.image_path))?;
        self.finish(manifest)
    }

    /// As [`Self::commit`], for a state that has no image yet.
    ///
    /// # Errors
    /// When the host refuses; then the snapshot is gone.
    pub fn commit_without_image(self, facts: Facts) -> Result<Manifest, StoreError> {
        durable::remove_file(&self.image_path)?;
        let manifest = self.describe(None, facts);
        self.finish(&manifest)?;
        Ok(manifest)
    }

    /// Makes a state's image, which the caller has claimed, the snapshot's. The state is without an
    /// image from the rename on, and from then on this is a whole snapshot.
    pub(crate) fn commit_by_moving(
        self,
        (path, claimed): (&Path, &File),
        facts: Facts,
    ) -> Result<(), StoreError> {
        let metadata = claimed.sync_all().and_then(|()| claimed.metadata());
        let bytes = metadata
            .map_err(StoreError::at("write to disk", path))?
            .len();
        durable::remove_file(&self.image_path)?;
        write_manifest(self.building.dir(), &self.describe(Some(bytes), facts))?;
        // Once the image is in it, dropping the directory would remove the only copy.
        let building = self.building.keep();
        durable::rename(path, &self.image_path)?;
        image::protect(&self.image_path)?;
        building.finish_as_directory()
    }

    fn describe(&self, bytes: Option<u64>, facts: Facts) -> Manifest {
        Manifest::now((&self.state, &self.snapshot), bytes, facts)
    }

    fn finish(self, manifest: &Manifest) -> Result<(), StoreError> {
        write_manifest(self.building.dir(), manifest)?;
        self.building.finish_as_directory()
    }
}

/// Writes `manifest.json` into the directory of a snapshot.
pub(crate) fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let path = dir.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| StoreError::at("describe", &path)(error.into()))?;
    text.push(b'\n');
    durable::write(&path, &text)?;
    durable::inherit_owner(&path, dir)
}

/// Seconds since 1970-01-01 UTC; 0 on a host whose clock is before that.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).unwrap_or_default()
}

/// Whether the content of a `.new-` directory is a whole snapshot.
pub(crate) fn is_complete(dir: &Path) -> bool {
    let length = fs::metadata(dir.join(IMAGE)).map(|image| image.len()).ok();
    Manifest::read(dir).is_ok_and(|manifest| manifest.bytes == length)
}

/// Gives whole snapshots of dead makers their names, and removes what else such makers left.
pub(crate) fn recover(locked: &Locked<'_>, state: &Name) -> Result<(), StoreError> {
    let dir = locked.layout().snapshots(state);
    for path in building::leftovers(&dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name.strip_prefix(NEW)
            && is_complete(&path)
        {
            image::protect(&path.join(IMAGE))?;
            durable::rename_new(&path, &dir.join(name))?;
        }
    }
    building::clear_leftovers(locked, &dir)
}
