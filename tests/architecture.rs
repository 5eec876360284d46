//! What holds for the code as a whole: who may know whom, how long files get, where `unsafe` is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Lines of production code that a file may have.
const MAX_LINES: usize = 600;

/// Directories of code.
const CODE: [&str; 6] = ["cli", "vmm", "devices", "hostnet", "benches", "tests"];

fn root() -> Result<&'static Path> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().context("The tests are not in a workspace")
}

/// Names of what each package of the workspace needs to run.
fn dependencies() -> Result<BTreeMap<String, Vec<String>>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root()?)
        .output()
        .context("Cannot start cargo")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]).into_iter().map(|package| {
        let needed = list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| text(&dependency["name"]))
            .collect();
        (text(&package["name"]), needed)
    });
    Ok(packages.collect())
}

/// What each package must not need.
fn forbidden() -> [(&'static str, Vec<&'static str>); 7] {
    let kvm = ["kvm-ioctls", "kvm-bindings"];
    let netlink = ["rtnetlink", "netlink-packet-route", "nftables"];
    let memory = ["vm-memory", "virtio-queue"];
    let others = ["vmm", "devices", "hostnet", "slotvmm", "tokio"];
    [
        (
            "devices",
            [
                &["vmm", "hostnet", "slotvmm", "fs-backend"][..],
                &kvm,
                &netlink,
            ]
            .concat(),
        ),
        (
            "fs-backend",
            [
                &["vmm", "devices", "hostnet", "slotvmm", "tokio"][..],
                &kvm,
                &netlink,
            ]
            .concat(),
        ),
        (
            "vmm",
            [&["hostnet", "slotvmm", "fs-backend"][..], &netlink].concat(),
        ),
        (
            "hostnet",
            [
                &["vmm", "devices", "slotvmm", "fs-backend"][..],
                &kvm,
                &memory,
            ]
            .concat(),
        ),
        (
            "store",
            [&others[..], &["fs-backend"], &kvm, &netlink].concat(),
        ),
        ("boot-bench", [&others[..], &kvm, &netlink].concat()),
        ("slotvmm", kvm.to_vec()),
    ]
}

#[test]
fn crates_depend_in_one_direction() -> Result<()> {
    let dependencies = dependencies()?;
    for (package, forbidden) in forbidden() {
        let needed = dependencies
            .get(package)
            .with_context(|| format!("There is no package {package}"))?;
        for name in forbidden {
            assert!(
                !needed.iter().any(|n| n == name),
                "{package} depends on {name}"
            );
        }
    }
    Ok(())
}

/// Every file of Rust code in the workspace, by its path from the root.
fn code() -> Result<Vec<(PathBuf, String)>> {
    let root = root()?;
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = CODE.iter().map(|name| root.join(name)).collect();
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("Cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                files.push((path.strip_prefix(root)?.to_owned(), text));
            }
        }
    }
    ensure!(
        files.len() > 50,
        "Only {} files of code were found",
        files.len()
    );
    files.sort();
    Ok(files)
}

/// Whether a file holds tests and nothing else.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn files_are_short() -> Result<()> {
    let long: Vec<String> = code()?
        .iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| {
            let production = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or(text);
            (path, production.lines().count())
        })
        .filter(|(_, lines)| *lines >= MAX_LINES)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
    Ok(())
}

/// Whether a line opens an unsafe block or declares something unsafe.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["{", "fn ", "impl ", "extern ", "trait "]
        .iter()
        .any(|what| code.contains(&["unsafe", what].join(" ")))
}

#[test]
fn unsafe_code_is_in_sys_modules_only() -> Result<()> {
    let allowed = |path: &Path| {
        path.ends_with("sys.rs") || path.components().any(|part| part.as_os_str() == "sys")
    };
    let found: Vec<String> = code()?
        .iter()
        // Guests of instructions only and fuzzing are workspaces of their own.
        .filter(|(path, _)| !path.starts_with("benches/tiny-guest"))
        .filter(|(path, text)| !allowed(path) && text.lines().any(is_unsafe))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

#[test]
fn every_system_test_is_run() -> Result<()> {
    let tests = root()?.join("tests");
    let manifest = fs::read_to_string(tests.join("Cargo.toml"))?;
    let mut forgotten = Vec::new();
    for entry in fs::read_dir(&tests)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Cargo does not find them by itself where they lie.
        if name.ends_with(".rs") && !manifest.contains(&format!("path = \"{name}\"")) {
            forgotten.push(name);
        }
    }
    assert_eq!(forgotten, Vec::<String>::new());
    Ok(())
}

#[test]
fn every_crate_denies_unsafe_code_by_default() -> Result<()> {
    for name in [
        "cli/src/main.rs",
        "vmm/src/lib.rs",
        "devices/src/lib.rs",
        "devices/fs-backend/src/lib.rs",
        "hostnet/src/lib.rs",
        "cli/store/src/lib.rs",
    ] {
        let text = fs::read_to_string(root()?.join(name))?;
        let refuses = ["deny", "forbid"].map(|how| format!("#![{how}(unsafe_code)]"));
        assert!(
            refuses.iter().any(|line| text.contains(line)),
            "{name} allows unsafe code"
        );
    }
    Ok(())
}

#[test]
fn modules_say_what_they_are_for() -> Result<()> {
    let silent: Vec<String> = code()?
        .iter()
        .filter(|(path, _)| !is_test(path) || path.starts_with("tests"))
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(silent, Vec::<String>::new());
    Ok(())
}
