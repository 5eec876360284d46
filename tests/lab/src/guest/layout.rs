//! Arrangements of kernel, initrd and parameters inside a bootstrap: every one that `slotvmm` is
//! meant to find, as NixOS and microvm.nix make them and as plain distributions do.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// An arrangement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `/boot/vmlinuz`, `/boot/initrd` and `/boot/cmdline`.
    Boot,
    /// A bootspec document `/boot.json` at the root of a whole system.
    Bootspec,
    /// A whole system with a NixOS toplevel in its `/nix/store`, named by the system profile.
    System,
    /// The root directory is a `/nix/store` itself.
    Store,
}

/// What is arranged.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The kernel's image.
    pub kernel: &'a Path,
    /// Its initrd.
    pub initrd: &'a Path,
    /// Its parameters.
    pub parameters: &'a str,
}

/// Store names, with hashes as long as real ones.
const TOPLEVEL: &str = "0v1y2bnm3c4x5z6a7s8d9f0g1h2j3k4l-nixos-system-slot1-24.11";
const LINUX: &str = "1a2s3d4f5g6h7j8k9l0z1x2c3v4b5n6m-linux";
const INITRD: &str = "2q3w4r5y6i7p8a9s0d1f2g3h4j5k6l7z-initrd-linux";

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Boot, Self::Bootspec, Self::System, Self::Store];

    /// Its short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Bootspec => "bootspec",
            Self::System => "system",
            Self::Store => "store",
        }
    }

    /// Arranges `parts` in the new directory `tree`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write(self, parts: &Parts<'_>, tree: &Path) -> Result<()> {
        fs::create_dir(tree).with_context(|| format!("Cannot create {}", tree.display()))?;
        match self {
            Self::Boot => boot(parts, &tree.join("boot")),
            Self::Bootspec => {
                whole_system(tree)?;
                store(parts, &tree.join("nix/store"))?;
                write(&tree.join("boot.json"), &bootspec(parts))
            }
            Self::System => {
                whole_system(tree)?;
                store(parts, &tree.join("nix/store"))?;
                let profiles = tree.join("nix/var/nix/profiles");
                fs::create_dir_all(&profiles)?;
                symlink("system-1-link", profiles.join("system"))?;
                symlink(in_store(TOPLEVEL), profiles.join("system-1-link"))?;
                Ok(())
            }
            Self::Store => store(parts, tree),
        }
    }
}

/// The path of a store entry as the running system sees it.
fn in_store(name: &str) -> PathBuf {
    Path::new("/nix/store").join(name)
}

fn boot(parts: &Parts<'_>, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    copy(parts.kernel, &dir.join("vmlinuz"))?;
    copy(parts.initrd, &dir.join("initrd"))?;
    write(&dir.join("cmdline"), &format!("{}\n", parts.parameters))
}

/// Directories by which a root is known as that of a whole system.
fn whole_system(tree: &Path) -> Result<()> {
    for dir in [
        "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var",
    ] {
        fs::create_dir(tree.join(dir))?;
    }
    write(
        &tree.join("etc/os-release"),
        "ID=nixos\nNAME=NixOS\nVERSION_ID=\"24.11\"\n",
    )
}

/// A store with a toplevel whose parts are absolute links to other entries.
fn store(parts: &Parts<'_>, dir: &Path) -> Result<()> {
    let toplevel = dir.join(TOPLEVEL);
    for entry in [&toplevel, &dir.join(LINUX), &dir.join(INITRD)] {
        fs::create_dir_all(entry)?;
    }
    copy(parts.kernel, &dir.join(LINUX).join("bzImage"))?;
    copy(parts.initrd, &dir.join(INITRD).join("initrd"))?;
    symlink(in_store(LINUX).join("bzImage"), toplevel.join("kernel"))?;
    symlink(in_store(INITRD).join("initrd"), toplevel.join("initrd"))?;
    let init = toplevel.join("init");
    write(&init, "#!/bin/sh\nexec /bin/sh\n")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o555))?;
    write(&toplevel.join("kernel-params"), parts.parameters)?;
    write(&toplevel.join("boot.json"), &bootspec(parts))?;
    write(&toplevel.join("nixos-version"), "24.11")?;
    write(&toplevel.join("system"), "x86_64-linux")
}

/// The bootspec document of the toplevel (NixOS RFC 125).
fn bootspec(parts: &Parts<'_>) -> String {
    let toplevel = in_store(TOPLEVEL);
    let parameters: Vec<&str> = parts.parameters.split_whitespace().collect();
    let document = json!({
        "org.nixos.bootspec.v1": {
            "init": toplevel.join("init"),
            "initrd": in_store(INITRD).join("initrd"),
            "kernel": in_store(LINUX).join("bzImage"),
            "kernelParams": parameters,
            "label": "NixOS slot1 24.11",
            "system": "x86_64-linux",
            "toplevel": toplevel,
        },
        "org.nixos.specialisation.v1": {},
    });
    format!("{document:#}\n")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("Cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(layout: Layout) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, initrd) = (dir.path().join("k"), dir.path().join("i"));
        fs::write(&kernel, "kernel").unwrap();
        fs::write(&initrd, "initrd").unwrap();
        let parts = Parts {
            kernel: &kernel,
            initrd: &initrd,
            parameters: "quiet panic=-1",
        };
        let tree = dir.path().join("tree");
        layout.write(&parts, &tree).unwrap();
        (dir, tree)
    }

    #[test]
    fn store_links_are_absolute_and_lead_to_its_entries() {
        let (_dir, tree) = tree(Layout::Store);
        let link = fs::read_link(tree.join(TOPLEVEL).join("kernel")).unwrap();
        let inside = link.strip_prefix("/nix/store").unwrap();
        assert_eq!(fs::read_to_string(tree.join(inside)).unwrap(), "kernel");
    }

    #[test]
    fn bootspec_names_what_is_there() {
        let (_dir, tree) = tree(Layout::Bootspec);
        let text = fs::read_to_string(tree.join("boot.json")).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let spec = &document["org.nixos.bootspec.v1"];
        let initrd = spec["initrd"].as_str().unwrap().trim_start_matches('/');
        assert_eq!(fs::read_to_string(tree.join(initrd)).unwrap(), "initrd");
        assert_eq!(spec["kernelParams"], json!(["quiet", "panic=-1"]));
    }

    #[test]
    fn profile_of_a_whole_system_leads_to_its_toplevel() {
        let (_dir, tree) = tree(Layout::System);
        let profiles = tree.join("nix/var/nix/profiles");
        let generation = fs::read_link(profiles.join("system")).unwrap();
        assert_eq!(
            fs::read_link(profiles.join(generation)).unwrap(),
            in_store(TOPLEVEL)
        );
    }
}
