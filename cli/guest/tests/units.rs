//! The unit files for guests, as systemd reads them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Each is a file below `systemd/guest/`.
const UNITS: [&str; 6] = [
    "slotvmm-creds.service",
    "slotvmm-creds.socket",
    "slotvmm-creds@.service",
    "slotvmm-freeze.socket",
    "slotvmm-freeze@.service",
    "slotvmm-ready.service",
];

#[test]
fn systemd_finds_nothing_wrong() {
    let program = env!("CARGO_BIN_EXE_slotvmm-guest");
    let directory = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd/guest");
        // The program is not installed where tests run.
        let text = fs::read_to_string(source.join(unit)).unwrap();
        let text = text.replace("/usr/bin/slotvmm-guest", program);
        fs::write(directory.path().join(unit), text).unwrap();
    }
    for unit in UNITS {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=one"])
            .arg(directory.path().join(unit.replace('@', "@1")))
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
