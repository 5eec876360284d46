//! What a slot boots: source, parameters, discovery.

use std::path::PathBuf;

use hostnet::slot::SlotNet;
use serde::Serialize;
use vmm::boot::DefaultParam;

use super::{Nic, params};
use crate::config::{
    AbsolutePath, BootFile, Discovery, HostFile, Identity, LoadedSlot, Located, Problem, Profile,
    Setting,
};

/// What a slot boots.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Boot {
    /// Where kernel and initrd come from.
    pub(crate) source: BootSource,
    /// First program of the guest, or nothing for the image's own.
    pub(crate) init: Option<String>,
    /// Kernel parameters added to the image's own.
    pub(crate) params: Vec<String>,
    /// Kernel parameters added where the image does not set them.
    #[serde(serialize_with = "texts")]
    pub(crate) defaults: Vec<DefaultParam>,
    /// Which of those there are.
    pub(crate) profile: Profile,
    /// How the guest finds its devices.
    #[serde(serialize_with = "discovery_name")]
    pub(crate) discovery: Discovery,
}

/// Where kernel and initrd come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BootSource {
    /// A squashfs image.
    Bootstrap {
        /// The image.
        image: PathBuf,
        /// The NixOS system in it, or nothing when it holds only one.
        toplevel: Option<String>,
    },
    /// A NixOS system on the host.
    Toplevel {
        /// Its directory.
        path: PathBuf,
    },
    /// Plain files on the host.
    Files {
        /// The kernel.
        kernel: PathBuf,
        /// The initrd.
        initrd: Option<PathBuf>,
    },
}

impl Boot {
    /// The bootstrap image, when that is what it boots.
    pub(crate) fn image(&self) -> Option<&PathBuf> {
        match &self.source {
            BootSource::Bootstrap { image, .. } => Some(image),
            BootSource::Toplevel { .. } | BootSource::Files { .. } => None,
        }
    }
}

fn texts<S: serde::Serializer>(
    defaults: &[DefaultParam],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(defaults.iter().map(|default| &default.text))
}

fn discovery_name<S: serde::Serializer>(
    discovery: &Discovery,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match discovery {
        Discovery::Acpi => "acpi",
        Discovery::Cmdline => "cmdline",
    })
}

/// Resolves `[boot]`. A slot that names a source of its own takes no part of the preset one.
pub(super) fn resolve(
    host: &HostFile,
    loaded: &LoadedSlot,
    (net, nics): (&SlotNet, &[Nic]),
    problems: &mut Vec<Problem>,
) -> Option<Boot> {
    let own = &loaded.file.common.boot;
    let preset = &host.defaults.boot;
    let from = if own.has_source() || own.initrd.is_some() {
        own
    } else {
        preset
    };
    let source = source(from, loaded, problems)?;
    let given = own.params.as_ref().or(preset.params.as_ref());
    let given: Vec<&str> = given
        .iter()
        .flat_map(|set| &set.value)
        .map(|param| param.0.as_str())
        .collect();
    let identity = value(&own.identity, &preset.identity);
    let profile = value(&own.profile, &preset.profile);
    Some(Boot {
        source,
        init: own.init.as_ref().or(preset.init.as_ref()).map(text),
        params: params::of_slot(net, nics, identity, &given),
        defaults: params::defaults(profile),
        profile,
        discovery: value(&own.discovery, &preset.discovery),
    })
}

fn value<T: Copy + Default>(own: &Setting<T>, preset: &Setting<T>) -> T {
    own.as_ref()
        .or(preset.as_ref())
        .map_or_else(T::default, |set| set.value)
}

/// Configuration files are UTF-8, so nothing is lost.
fn text(set: &Located<AbsolutePath>) -> String {
    set.value.0.to_string_lossy().into_owned()
}

fn source(file: &BootFile, loaded: &LoadedSlot, problems: &mut Vec<Problem>) -> Option<BootSource> {
    let path = |set: &Located<AbsolutePath>| set.value.0.clone();
    match (&file.bootstrap, &file.toplevel, &file.kernel, &file.initrd) {
        (Some(image), toplevel, None, None) => Some(BootSource::Bootstrap {
            image: path(image),
            toplevel: toplevel.as_ref().map(text),
        }),
        (None, Some(toplevel), None, None) => Some(BootSource::Toplevel {
            path: path(toplevel),
        }),
        (None, None, Some(kernel), initrd) => Some(BootSource::Files {
            kernel: path(kernel),
            initrd: initrd.as_ref().map(path),
        }),
        (None, None, None, Some(initrd)) => {
            problems.push(initrd.problem("an initrd alone does not boot: add `boot.kernel`"));
            None
        }
        (None, None, None, None) => {
            problems.push(nothing_to_boot(loaded));
            None
        }
        (_, _, Some(extra), _) | (_, _, None, Some(extra)) => {
            problems.push(extra.problem(
                "expected one source: a bootstrap or toplevel brings its own kernel and initrd; \
                 remove one of them",
            ));
            None
        }
    }
}

fn nothing_to_boot(loaded: &LoadedSlot) -> Problem {
    let place = match &loaded.path {
        Some(path) => format!("{}, or", path.display()),
        None => format!("a file slots/{}.toml, or", loaded.name),
    };
    Problem {
        at: None,
        key: "boot.bootstrap".to_owned(),
        message: format!(
            "slot {} has nothing to boot: set `boot.bootstrap` in {place} for every slot \
             `defaults.boot.bootstrap` in host.toml",
            loaded.name
        ),
    }
}

/// Whether the guest is to be told its identity; here so that [`Identity`] has one reader.
pub(super) fn tells_identity(identity: Identity) -> bool {
    match identity {
        Identity::KernelParams => true,
        Identity::None => false,
    }
}
