//! All images at stable paths, for tests and people.
//!
//! ```text
//! kernels/<name>/{bzImage,vmlinux,initrd,release}   name: 6.1-cloud, 6.1-generic, 6.12-…
//! mini/<name>.squashfs                              /boot layout, zstd
//! mini/6.1-cloud-{gzip,xz,zstd,lz4}.squashfs        /boot layout
//! mini/6.1-cloud-{boot,bootspec,system,store}.squashfs
//! demo/{bookworm,trixie}.squashfs, demo/id          the demo guest, and the key of its root
//! programs/fio.squashfs                             a disk with fio, `run` in it
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::Layout;
use super::{Compressor, Demo, Mini, fio};
use crate::cache::Cache;
use crate::kernels::{Kernel, KernelId};
use crate::packages::Suite;
use crate::tools::Tools;

/// Names the directory in the environment of jobs.
pub const IMAGES_VARIABLE: &str = "LAB_IMAGES";

/// The directory of links to all images.
#[derive(Clone, Debug)]
pub struct Images {
    dir: PathBuf,
}

impl Images {
    /// Builds whatever is missing and links everything.
    ///
    /// # Errors
    /// When an image cannot be built.
    pub fn ensure(cache: &Cache, tools: &Tools) -> Result<Self> {
        let mut links = Vec::new();
        for id in KernelId::ALL {
            let kernel = Kernel::ensure(cache, tools, id)?;
            let mini = Mini::ensure(cache, tools, &kernel)?;
            let name = id.name();
            links.push((format!("kernels/{name}/bzImage"), kernel.bzimage()));
            links.push((format!("kernels/{name}/vmlinux"), kernel.vmlinux()));
            links.push((format!("kernels/{name}/initrd"), mini.initrd()));
            links.push((format!("mini/{name}.squashfs"), mini.bootstrap()));
            if id == KernelId::ALL[0] {
                links.extend(variants(cache, tools, &mini)?);
            }
        }
        for suite in [Suite::Bookworm, Suite::Trixie] {
            let demo = Demo::ensure(cache, tools, suite)?;
            links.push((format!("demo/{suite}.squashfs"), demo.bootstrap()));
            links.push(("demo/id".to_owned(), demo.key().to_owned()));
        }
        links.push((
            "programs/fio.squashfs".to_owned(),
            fio::image(cache, tools)?,
        ));
        let _lock = cache.lock("images")?;
        let images = Self::existing(cache);
        links
            .iter()
            .try_for_each(|(name, target)| link(&images.dir.join(name), target))?;
        Ok(images)
    }

    /// The directory, without building anything: images may be missing from it.
    #[must_use]
    pub fn existing(cache: &Cache) -> Self {
        Self {
            dir: cache.root().join("images"),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn variants(cache: &Cache, tools: &Tools, mini: &Mini) -> Result<Vec<(String, PathBuf)>> {
    let kernel = KernelId::ALL[0].name();
    let compressions = Compressor::ALL.map(|by| (by.to_string(), (Layout::Boot, by)));
    let layouts = Layout::ALL.map(|layout| (layout.name().to_owned(), (layout, Compressor::Zstd)));
    compressions
        .into_iter()
        .chain(layouts)
        .map(|(name, how)| {
            Ok((
                format!("mini/{kernel}-{name}.squashfs"),
                mini.variant(cache, tools, how)?,
            ))
        })
        .collect()
}

/// Makes `path` a link to `target`, at once, whatever it was.
fn link(path: &Path, target: &Path) -> Result<()> {
    if fs::read_link(path).is_ok_and(|known| known == target) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = path.with_extension("new");
    let _absent = fs::remove_file(&new);
    symlink(target, &new)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("Cannot link {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        for target in ["/one", "/two", "/two"] {
            link(&path, Path::new(target)).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
