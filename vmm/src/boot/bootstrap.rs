//! Finds kernel, initrd and parameters in a tree of files, in this order:
//!
//! 1. the toplevel the configuration chose;
//! 2. `/boot.json`, or the root being a NixOS toplevel itself;
//! 3. the system profile, then the only NixOS toplevel in the store, each by its `boot.json` or
//!    else by its files;
//! 4. `/boot`: `vmlinuz`, `bzImage`, `vmlinux` or `kernel`, as they are or followed by `-VERSION`,
//!    the newest version winning; the initrd of the same version; parameters in `/boot/cmdline`.

use std::cmp::Ordering;

use super::error::OpenError;
use super::source::{Tree, View};
use super::{toplevel, version};

/// Directory of the fourth way.
const BOOT: &str = "/boot";
/// Names of kernels there, the preferred first.
const KERNELS: [&str; 4] = ["vmlinuz", "bzImage", "vmlinux", "kernel"];
/// Parameters of the kernel there.
const CMDLINE: &str = "/boot/cmdline";

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Its path without symlinks.
    pub(super) path: String,
    /// Its length in bytes.
    pub(super) len: u64,
}

/// What a tree of files boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The kernel.
    pub(super) kernel: Member,
    /// The initrd.
    pub(super) initrd: Option<Member>,
    /// Parameters, on one line.
    pub(super) params: String,
    /// Path of init in the guest.
    pub(super) init: Option<String>,
    /// Which way they were found.
    pub(super) found_by: String,
}

/// Searches an image.
pub(super) fn find(tree: &dyn Tree, chosen: Option<&str>) -> Result<Found, OpenError> {
    let view = View::new(tree);
    if let Some(path) = chosen {
        return toplevel::chosen(&view, path);
    }
    if let Some(found) = toplevel::find(&view)? {
        return Ok(found);
    }
    match in_boot(&view)? {
        Some(found) => Ok(found),
        None => Err(OpenError::NoKernel {
            path: tree.path().to_owned(),
        }),
    }
}

/// A kernel's name in `/boot`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    /// Place of its base name in [`KERNELS`].
    rank: usize,
    version: Option<String>,
    name: String,
}

impl Candidate {
    fn parse(name: &str) -> Option<Self> {
        if version::is_left_over(name) {
            return None;
        }
        KERNELS.iter().enumerate().find_map(|(rank, base)| {
            let rest = name.strip_prefix(base)?;
            let version = match rest.strip_prefix('-') {
                Some(version) if !version.is_empty() => Some(version.to_owned()),
                None if rest.is_empty() => None,
                _ => return None,
            };
            let name = name.to_owned();
            Some(Self {
                rank,
                version,
                name,
            })
        })
    }

    /// The better one is greater: a plain name, then the newest version, then the earlier base.
    fn order(&self, other: &Self) -> Ordering {
        let by_version = match (&self.version, &other.version) {
            (Some(a), Some(b)) => version::compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        by_version.then(other.rank.cmp(&self.rank))
    }

    /// Names its initrd may have.
    fn initrds(&self) -> Vec<String> {
        match &self.version {
            Some(v) => vec![
                format!("initrd.img-{v}"),
                format!("initrd-{v}"),
                format!("initrd-{v}.img"),
                format!("initramfs-{v}.img"),
            ],
            None => ["initrd", "initrd.img", "initramfs.img", "initrd.cpio"]
                .map(str::to_owned)
                .into(),
        }
    }
}

fn in_boot(view: &View<'_>) -> Result<Option<Found>, OpenError> {
    let boot = match view.resolve(BOOT)? {
        Some(resolved) => resolved.path,
        None => return Ok(None),
    };
    let names = view.tree().names(&boot);
    let mut candidates: Vec<Candidate> = names.iter().filter_map(|n| Candidate::parse(n)).collect();
    candidates.sort_by(|a, b| b.order(a));
    for candidate in candidates {
        let path = toplevel::inside(BOOT, &candidate.name);
        let Some((path, len)) = view.file(&path)? else {
            continue;
        };
        return Ok(Some(Found {
            kernel: Member { path, len },
            initrd: initrd_of(view, &candidate, &names)?,
            params: toplevel::read_params(view, CMDLINE)?.unwrap_or_default(),
            init: None,
            found_by: format!("{BOOT}/{}", candidate.name),
        }));
    }
    Ok(None)
}

/// The initrd that belongs to a kernel. One of another version does not fit: its modules are for
/// that other kernel.
fn initrd_of(
    view: &View<'_>,
    kernel: &Candidate,
    names: &[String],
) -> Result<Option<Member>, OpenError> {
    let present: Vec<&String> = names
        .iter()
        .filter(|n| n.starts_with("initrd") || n.starts_with("initramfs"))
        .filter(|n| !version::is_left_over(n))
        .collect();
    let fits = kernel.initrds();
    let plain = || present.iter().copied().find(|n| !n.contains('-'));
    let name = match fits.iter().find(|name| present.contains(name)) {
        Some(name) => name,
        None => match (present.as_slice(), plain()) {
            ([], _) => return Ok(None),
            // Without a version in the kernel's name, a single initrd is meant for it; without
            // one in the initrd's name, it is meant for any kernel.
            ([only], _) if kernel.version.is_none() => *only,
            (_, Some(plain)) => plain,
            _ => {
                let expected = fits.first().map_or("initrd", String::as_str);
                return Err(OpenError::Missing {
                    path: view.tree().path().to_owned(),
                    member: toplevel::inside(BOOT, expected),
                    named_by: toplevel::inside(BOOT, &kernel.name),
                });
            }
        },
    };
    let kernel = toplevel::inside(BOOT, &kernel.name);
    toplevel::needed(view, &toplevel::inside(BOOT, name), &kernel).map(Some)
}
