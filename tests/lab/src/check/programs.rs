//! Test programs, as cargo builds them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::commands::workspace::cargo;

/// A program of tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestProgram {
    pub(super) name: String,
    pub(super) executable: PathBuf,
    /// Where its package is.
    pub(super) directory: PathBuf,
}

/// Builds the test programs of a package of the workspace at `root` that are of one kind: `test` for
/// integration tests, `lib` for those within a library.
pub(super) fn built(root: &Path, (package, kind): (&str, &str)) -> Result<Vec<TestProgram>> {
    let mut command = cargo();
    command.args(["test", "-p", package, "--no-run"]);
    command.arg("--message-format=json-render-diagnostics");
    let output = command
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("Cannot start cargo")?;
    if !output.status.success() {
        bail!("The tests of {package} do not build");
    }
    Ok(named(&String::from_utf8_lossy(&output.stdout), kind))
}

/// The part of cargo's messages that names test programs.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test programs of a kind among cargo's messages, by name.
fn named(messages: &str, kind: &str) -> Vec<TestProgram> {
    let mut programs: Vec<TestProgram> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| {
            let target = message.target?;
            let wanted = message.profile?.test && target.kind.iter().any(|its| its == kind);
            let directory = message
                .manifest_path
                .as_deref()
                .and_then(Path::parent)?
                .to_owned();
            let executable = message.executable?;
            wanted.then_some(TestProgram {
                name: target.name,
                executable,
                directory,
            })
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"boot","kind":["test"]},"profile":{"test":true},"executable":"/t/boot-1"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"fixture","kind":["lib"]},"profile":{"test":true},"executable":"/t/fixture-1"}
{"reason":"build-finished","success":true}"#;
        let expected = |name: &str| TestProgram {
            name: name.to_owned(),
            executable: format!("/t/{name}-1").into(),
            directory: "/w/tests".into(),
        };
        assert_eq!(named(messages, "test"), [expected("boot")]);
        assert_eq!(named(messages, "lib"), [expected("fixture")]);
    }
}
