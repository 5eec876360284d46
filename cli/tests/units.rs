//! The unit files, as systemd reads them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The units of the host's network. Each is a file below `systemd/`.
const UNITS: [&str; 2] = ["slotvmm-net.service", "slotvmm-net@.service"];

#[test]
fn systemd_finds_nothing_wrong() {
    let program = Path::new(env!("CARGO_BIN_EXE_slotvmm")).display();
    let directory = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../systemd")
            .join(unit);
        // The program is not installed where tests run.
        let text = fs::read_to_string(source).unwrap();
        let text = text.replace("/usr/bin/slotvmm", &program.to_string());
        let instance = unit.replace('@', "@slot1");
        fs::write(directory.path().join(unit), &text).unwrap();
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=one"])
            .arg(directory.path().join(instance))
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: systemd-analyze does not start: {error}"),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.trim().is_empty(),
            "{unit}: {said}"
        );
    }
}
