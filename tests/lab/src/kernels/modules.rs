//! A kernel's modules and their dependencies, from `modules.dep` and `modules.builtin`.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The modules of one kernel.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    /// Module name → its path below `dir`.
    paths: HashMap<String, String>,
    /// Module name → the names it needs, nearest first, as depmod writes them.
    needs: HashMap<String, Vec<String>>,
    builtin: Vec<String>,
}

/// One module, ready to insert.
#[derive(Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The object, not compressed.
    pub object: Vec<u8>,
}

impl Modules {
    /// Reads the index in `dir` (`/lib/modules/<release>`).
    ///
    /// # Errors
    /// When an index file cannot be read.
    pub fn open(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))
        };
        let (paths, needs) = parse_dep(&read("modules.dep")?);
        let builtin = read("modules.builtin")?.lines().map(module_name).collect();
        Ok(Self {
            dir: dir.to_owned(),
            paths,
            needs,
            builtin,
        })
    }

    /// `wanted` and all they need, in an order in which they insert. Built-in ones are left out.
    ///
    /// # Errors
    /// When the kernel has no such module.
    pub fn closure(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let mut order: Vec<String> = Vec::new();
        for name in wanted {
            if self.builtin.iter().any(|builtin| builtin == name) {
                continue;
            }
            let Some(needs) = self.needs.get(*name) else {
                bail!("No module {name} in {}", self.dir.display());
            };
            for need in needs.iter().rev().map(String::as_str).chain([*name]) {
                if !order.iter().any(|known| known == need) {
                    order.push(need.to_owned());
                }
            }
        }
        Ok(order)
    }

    /// Reads the module called `name`, decompressing it.
    ///
    /// # Errors
    /// When there is none or it cannot be read.
    pub fn load(&self, name: &str) -> Result<Module> {
        let path = self
            .paths
            .get(name)
            .with_context(|| format!("No module {name}"))?;
        let bytes =
            fs::read(self.dir.join(path)).with_context(|| format!("Cannot read module {path}"))?;
        let object = if path.ends_with(".xz") {
            let mut out = Vec::new();
            liblzma::read::XzDecoder::new(&bytes[..]).read_to_end(&mut out)?;
            out
        } else if path.ends_with(".zst") {
            zstd::decode_all(&bytes[..])?
        } else {
            bytes
        };
        Ok(Module {
            name: name.to_owned(),
            object,
        })
    }
}

type Index = (HashMap<String, String>, HashMap<String, Vec<String>>);

fn parse_dep(text: &str) -> Index {
    let mut paths = HashMap::new();
    let mut needs = HashMap::new();
    for (path, rest) in text.lines().filter_map(|line| line.split_once(':')) {
        let name = module_name(path);
        needs.insert(
            name.clone(),
            rest.split_whitespace().map(module_name).collect(),
        );
        paths.insert(name, path.to_owned());
    }
    (paths, needs)
}

/// `kernel/drivers/net/virtio-net.ko.xz` → `virtio_net`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> (tempfile::TempDir, Modules) {
        let dir = tempfile::tempdir().unwrap();
        let dep = "kernel/net_failover.ko: kernel/failover.ko\nkernel/failover.ko:\n\
                   kernel/virtio-net.ko.xz: kernel/net_failover.ko kernel/failover.ko\n";
        fs::write(dir.path().join("modules.dep"), dep).unwrap();
        fs::write(
            dir.path().join("modules.builtin"),
            "kernel/drivers/virtio.ko\n",
        )
        .unwrap();
        let modules = Modules::open(dir.path()).unwrap();
        (dir, modules)
    }

    #[test]
    fn needed_modules_come_first_and_once() {
        let (_dir, modules) = modules();
        let order = modules
            .closure(&["failover", "virtio_net", "virtio"])
            .unwrap();
        assert_eq!(order, ["failover", "net_failover", "virtio_net"]);
    }

    #[test]
    fn unknown_module_is_an_error() {
        let (_dir, modules) = modules();
        assert!(modules.closure(&["nonsense"]).is_err());
    }
}
