//! The disks of a slot. The bootstrap is at position 0, the data image at 1, others where they say:
//! adding a disk never renames another in the guest.

use std::path::PathBuf;

use serde::Serialize;

use super::boot::Boot;
use super::paths::SlotPaths;
use crate::config::{DataFile, DiskFile, DiskTuning, Engine, HostFile, LoadedSlot, Problem};

/// Size of a new data image.
const DEFAULT_DATA_MIB: u64 = 65536;

/// Label of a new data image's file system, as users have it.
const DEFAULT_LABEL: &str = "microvm-root";

/// Position of the bootstrap image.
const BOOTSTRAP_POSITION: u8 = 0;

/// Position of the data image.
const DATA_POSITION: u8 = 1;

/// A disk.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Disk {
    /// Its name in logs.
    pub(crate) id: String,
    /// Its place on the machine.
    pub(crate) position: u8,
    /// Image or block device.
    pub(crate) path: PathBuf,
    /// How the guest may use it.
    #[serde(rename = "use")]
    pub(crate) usage: Use,
    /// Serial number that the guest sees.
    pub(crate) serial: Option<String>,
    /// How I/O is done.
    #[serde(serialize_with = "engine_name")]
    pub(crate) engine: Engine,
    /// Whether the guest may give space back.
    pub(crate) discard: bool,
    /// How to make the image when it is absent, or nothing when that is an error.
    pub(crate) create: Option<Create>,
}

impl Disk {
    /// Whether it is the slot's own image, that of its state.
    pub(crate) fn is_data(&self) -> bool {
        self.position == DATA_POSITION
    }
}

/// How the guest may use a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Use {
    /// Opened and offered read-only; any number of slots share it.
    ReadOnly,
    /// Writable; exactly one process has it.
    Exclusive,
}

/// How to make an absent image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Create {
    /// Size in MiB. With a template, nothing means the template's own size.
    pub(crate) size_mib: Option<u64>,
    /// Image to copy, or nothing for an empty ext4 file system.
    pub(crate) template: Option<PathBuf>,
    /// Label of a new file system.
    pub(crate) label: String,
    /// The one directory above the image that is made when absent, or nothing when it must exist.
    pub(crate) directory: Option<PathBuf>,
}

fn engine_name<S: serde::Serializer>(engine: &Engine, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match engine {
        Engine::Auto => "auto",
        Engine::IoUring => "io_uring",
        Engine::Sync => "sync",
    })
}

/// Resolves bootstrap, `[data]` and `[[disk]]`.
pub(super) fn resolve(
    host: &HostFile,
    loaded: &LoadedSlot,
    paths: &SlotPaths,
    boot: &Boot,
    problems: &mut Vec<Problem>,
) -> Vec<Disk> {
    let mut disks = Vec::new();
    disks.extend(boot.image().map(|image| Disk {
        id: "bootstrap".to_owned(),
        position: BOOTSTRAP_POSITION,
        path: image.clone(),
        usage: Use::ReadOnly,
        serial: None,
        engine: Engine::Auto,
        discard: false,
        create: None,
    }));
    let (own, preset) = (&loaded.file.common.data, &host.defaults.data);
    let enabled = own.enabled.as_ref().or(preset.enabled.as_ref());
    if enabled.is_none_or(|enabled| enabled.value) {
        disks.push(data(preset, own, paths, problems));
    }
    disks.extend(loaded.file.disks.iter().filter_map(extra));
    disks.sort_by_key(|disk| disk.position);
    disks
}

fn data(preset: &DataFile, own: &DataFile, paths: &SlotPaths, problems: &mut Vec<Problem>) -> Disk {
    if let Some(path) = &preset.path {
        problems.push(path.problem("one image cannot serve every slot: set it in a slot's file"));
    }
    let path = own.path.as_ref().map(|path| path.value.0.clone());
    let template = own.template.as_ref().or(preset.template.as_ref());
    let size = own
        .size
        .as_ref()
        .or(preset.size.as_ref())
        .map(|size| size.value.0);
    let label = own.label.as_ref().or(preset.label.as_ref());
    let create = Create {
        size_mib: size.or_else(|| template.is_none().then_some(DEFAULT_DATA_MIB)),
        template: template.map(|template| template.value.0.clone()),
        label: label.map_or_else(|| DEFAULT_LABEL.to_owned(), |label| label.value.0.clone()),
        directory: path.is_none().then(|| paths.slot_dir.clone()),
    };
    let tuning = Tuning::of(&own.tuning, &preset.tuning);
    Disk {
        id: "data".to_owned(),
        position: DATA_POSITION,
        path: path.unwrap_or_else(|| paths.slot_dir.join("data.img")),
        usage: Use::Exclusive,
        serial: tuning.serial,
        engine: tuning.engine,
        discard: tuning.discard,
        create: Some(create),
    }
}

/// A disk whose path or position is missing was reported when the file was read.
fn extra(file: &DiskFile) -> Option<Disk> {
    let path = file.path.as_ref()?;
    let position = u8::try_from(file.position.as_ref()?.value.0).ok()?;
    let readonly = file
        .readonly
        .as_ref()
        .is_some_and(|readonly| readonly.value);
    let tuning = Tuning::of(&file.tuning, &DiskTuning::default());
    Some(Disk {
        id: format!("disk{position}"),
        position,
        path: path.value.0.clone(),
        usage: if readonly {
            Use::ReadOnly
        } else {
            Use::Exclusive
        },
        serial: tuning.serial,
        engine: tuning.engine,
        discard: tuning.discard && !readonly,
        create: None,
    })
}

struct Tuning {
    serial: Option<String>,
    engine: Engine,
    discard: bool,
}

impl Tuning {
    fn of(own: &DiskTuning, preset: &DiskTuning) -> Self {
        let serial = own.serial.as_ref().or(preset.serial.as_ref());
        let engine = own.engine.as_ref().or(preset.engine.as_ref());
        let discard = own.discard.as_ref().or(preset.discard.as_ref());
        Self {
            serial: serial.map(|serial| serial.value.0.clone()),
            engine: engine.map_or(Engine::Auto, |engine| engine.value),
            discard: discard.is_none_or(|discard| discard.value),
        }
    }
}
