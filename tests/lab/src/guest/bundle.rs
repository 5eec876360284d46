//! Programs out of Debian's packages that run anywhere: one directory with all that each needs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::packages::{Apt, Suite, unpack};
use crate::process;

const LOADER: &str = "ld-linux-x86-64.so.2";

/// Starts the program beside it with the C library beside it.
const START: &str = "#!/bin/sh\ncd \"${0%/*}\" && exec ./ld-linux-x86-64.so.2 --library-path . ./";

/// Puts the program of the package called `program`, its libraries and a script `run` that starts it
/// into the new directory `target`.
///
/// # Errors
/// When the package cannot be fetched or unpacked.
pub(super) fn bundle(cache: &Cache, program: &str, target: &Path) -> Result<()> {
    let (archives, root) = (
        target.with_extension("archives"),
        target.with_extension("root"),
    );
    Apt::open(cache, Suite::Trixie)?.download_closure(&[program], &archives)?;
    unpack(&archives, &root)?;
    let lib = root.join("usr/lib/x86_64-linux-gnu");
    let file = root.join("usr/bin").join(program);
    fs::create_dir(target)?;
    // The C library loads the last one by name, to end a thread.
    let mut files = vec![file.clone(), lib.join(LOADER), lib.join("libgcc_s.so.1")];
    files.extend(libraries(&lib, &file)?);
    for file in &files {
        let Some(name) = file.file_name() else {
            bail!("{} is no file", file.display())
        };
        fs::copy(file, target.join(name))
            .with_context(|| format!("Cannot copy {}", file.display()))?;
    }
    let run = target.join("run");
    fs::write(&run, format!("{START}{program} \"$@\"\n"))?;
    fs::set_permissions(run, fs::Permissions::from_mode(0o755))?;
    fs::remove_dir_all(&archives)?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// The libraries that `program` is linked against, in `lib` or one directory below it: lines of the form
/// `name => path (address)`.
fn libraries(lib: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut places = vec![lib.display().to_string()];
    for entry in fs::read_dir(lib)? {
        let path = entry?.path();
        if path.is_dir() {
            places.push(path.display().to_string());
        }
    }
    let mut list = Command::new(lib.join(LOADER));
    list.arg("--library-path").arg(places.join(":"));
    let listed = process::output(list.arg("--list").arg(program))?;
    let paths = listed.lines().filter_map(|line| {
        let path = line.split_once("=> ")?.1.split(' ').next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths
        .filter(|path| path.file_name() != Some(LOADER.as_ref()))
        .collect())
}
