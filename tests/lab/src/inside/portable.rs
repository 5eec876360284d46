//! Programs in memory: what a monitor under measurement opens must not come from the machine's disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Directories of QEMU's firmware below the root of the lab's tools.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Copies a program of one file to `dir`.
pub(super) fn program(program: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let copy = dir.join(name);
    fs::copy(program, &copy).with_context(|| format!("Cannot copy {}", program.display()))?;
    executable(&copy)?;
    Ok(copy)
}

/// Copies QEMU out of the lab's tools below `root` to `dir`, with its libraries and firmware.
pub(super) fn qemu(root: &Path, dir: &Path) -> Result<PathBuf> {
    let (libraries, firmware) = (dir.join("lib"), dir.join("firmware"));
    fs::create_dir_all(&libraries)?;
    fs::create_dir_all(&firmware)?;
    let search = root.join("usr/lib/x86_64-linux-gnu");
    let loader = search.join("ld-linux-x86-64.so.2");
    let program = root.join("usr/bin/qemu-system-x86_64");
    let mut list = Command::new(&loader);
    list.arg("--library-path").arg(&search).arg("--list");
    let listed = process::output(list.arg(&program))?;
    for library in libraries_in(&listed) {
        copy_into(Path::new(library), &libraries)?;
    }
    copy_into(&loader, dir)?;
    copy_into(&program, dir)?;
    for place in FIRMWARE {
        for entry in fs::read_dir(root.join(place))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|kind| kind == "bin" || kind == "rom")
            {
                copy_into(&path, &firmware)?;
            }
        }
    }
    let start = dir.join("qemu-system-x86_64.sh");
    let own = dir.display();
    let script = format!(
        "#!/bin/sh\nexec {own}/ld-linux-x86-64.so.2 --argv0 qemu-system-x86_64 --library-path {own}/lib \
         {own}/qemu-system-x86_64 -L {own}/firmware \"$@\"\n"
    );
    fs::write(&start, script)?;
    executable(&start)?;
    Ok(start)
}

/// Files in what the dynamic loader lists: `libz.so.1 => /path/libz.so.1 (0x…)`.
fn libraries_in(listed: &str) -> impl Iterator<Item = &str> {
    let paths = listed
        .lines()
        .filter_map(|line| line.split_once("=>")?.1.split_whitespace().next());
    paths.filter(|path| path.starts_with('/'))
}

fn copy_into(file: &Path, dir: &Path) -> Result<()> {
    let name = file.file_name().context("A file without a name")?;
    fs::copy(file, dir.join(name)).with_context(|| format!("Cannot copy {}", file.display()))?;
    Ok(())
}

fn executable(file: &Path) -> Result<()> {
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_the_loader_lists() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /lib/libz.so.1 (0x2)\n\
                      \tlibm.so.6 => /lib/libm.so.6 (0x3)\n\t/lib64/ld-linux-x86-64.so.2 (0x4)\n";
        let found: Vec<&str> = libraries_in(listed).collect();
        assert_eq!(found, ["/lib/libz.so.1", "/lib/libm.so.6"]);
    }

    #[test]
    fn copied_program_runs() {
        let dir = tempfile::tempdir().unwrap();
        let copy = program(Path::new("/bin/true"), dir.path(), "yes").unwrap();
        assert!(Command::new(copy).status().unwrap().success());
    }
}
