//! `state`, `snapshot` and `vm-state` as a user sees them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Ended, Host};

/// A host whose assignments lie in its directory, with slot1 to slot3.
fn host() -> Host {
    let host = Host::new();
    let settings = fs::read_to_string(host.path("etc/host.toml")).unwrap();
    let place = host.path("assignments.json");
    let settings = format!("assignments = \"{}\"\n{settings}", place.display());
    host.write("etc/host.toml", &settings);
    for slot in ["slot1", "slot2", "slot3"] {
        host.write(&format!("etc/slots/{slot}.toml"), "");
    }
    host
}

/// Writes what a guest would.
fn write_image(host: &Host, state: &str, text: &[u8]) {
    let image = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(host.path(&format!("state/states/{state}/data.img")))
        .unwrap();
    image.set_len(1 << 20).unwrap();
    image.write_all_at(text, 4096).unwrap();
}

fn read_image(host: &Host, state: &str) -> String {
    let image = fs::read(host.path(&format!("state/states/{state}/data.img"))).unwrap();
    let text = image[4096..4112].split(|byte| *byte == 0).next().unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

fn done(host: &Host, arguments: &[&str]) -> Ended {
    let ended = host.run(arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended
}

fn link(host: &Host, slot: &str) -> PathBuf {
    let target = fs::read_link(host.path(&format!("state/{slot}/data.img"))).unwrap();
    target
        .strip_prefix(host.path("state/states"))
        .unwrap()
        .to_owned()
}

#[test]
fn workflow_of_the_guide_works_to_its_end() {
    let host = host();
    done(&host, &["state", "create", "baseline"]);
    done(&host, &["state", "assign", "slot1", "baseline"]);
    write_image(&host, "baseline", b"first");
    done(&host, &["state", "clone", "slot:slot1", "dev-env"]);
    done(&host, &["state", "migrate", "dev-env", "slot3"]);
    assert_eq!(link(&host, "slot3"), PathBuf::from("dev-env/data.img"));
    write_image(&host, "dev-env", b"changed");
    done(&host, &["snapshot", "slot3", "good"]);
    write_image(&host, "dev-env", b"broken!");
    done(&host, &["state", "restore", "dev-env@good", "slot1-new"]);
    done(&host, &["state", "assign", "slot1", "slot1-new"]);
    assert_eq!(read_image(&host, "slot1-new"), "changed");
    assert_eq!(read_image(&host, "baseline"), "first");
    done(&host, &["state", "migrate", "dev-env", "slot2"]);
    assert!(fs::symlink_metadata(host.path("state/slot3/data.img")).is_err());
    let refused = host.run(&["state", "delete", "dev-env", "--yes"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("assigned to slot2"), "{refused:?}");
    done(&host, &["state", "delete", "baseline", "--yes"]);
    assert!(!host.path("state/states/baseline").exists());
    done(&host, &["state", "fsck"]);
}

#[test]
fn list_shows_slots_states_and_snapshots() {
    let host = host();
    done(&host, &["state", "assign", "slot1", "web"]);
    write_image(&host, "web", b"x");
    done(&host, &["snapshot", "slot1", "one"]);
    let listed = done(&host, &["state", "list"]).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "SLOT   STATE  RUNNING");
    assert_eq!(lines[1], "slot1  web    no");
    assert!(
        lines[5].starts_with("STATE  SLOT   SIZE  ALLOCATED  SNAPSHOTS  CREATED"),
        "{listed}"
    );
    assert!(
        lines[6].starts_with("web    slot1  1.0M  4.0K       1          20"),
        "{listed}"
    );
    assert!(lines[9].starts_with("web@one   stopped  4.0K"), "{listed}");
    let json = done(&host, &["state", "list", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["states"][0]["bytes"], 1 << 20);
    assert_eq!(
        json["states"][0]["snapshots"][0]["manifest"]["consistency"],
        "stopped"
    );
}

#[test]
fn existing_directory_is_adopted_as_it_is() {
    let host = host();
    for (slot, state) in [("slot1", "slot1"), ("slot2", "prod")] {
        fs::create_dir_all(host.path(&format!("state/states/{state}"))).unwrap();
        fs::create_dir(host.path(&format!("state/{slot}"))).unwrap();
        write_image(&host, state, state.as_bytes());
        let image = host.path(&format!("state/states/{state}/data.img"));
        symlink(image, host.path(&format!("state/{slot}/data.img"))).unwrap();
    }
    host.write("assignments.json", "{\"slot2\":\"prod\"}");
    done(&host, &["state", "fsck"]);
    let json = done(&host, &["state", "list", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["slots"][0]["state"], "slot1");
    assert_eq!(json["slots"][1]["state"], "prod");
    done(&host, &["state", "clone", "slot:slot1", "copy"]);
    assert_eq!(read_image(&host, "copy"), "slot1");
}

#[test]
fn copy_is_told_that_it_is_another_machine() {
    let host = host();
    done(&host, &["state", "create", "web"]);
    write_image(&host, "web", b"x");
    for (copy, argument) in [("same", None), ("other", Some("--reset-identity"))] {
        let arguments = ["state", "clone", "web", copy];
        let arguments: Vec<&str> = arguments.into_iter().chain(argument).collect();
        done(&host, &arguments);
        done(&host, &["state", "assign", "slot1", copy]);
        let planned = done(&host, &["run", "slot1", "--dry-run", "--ignore-cpu-check"]);
        let is_told = planned.stdout.contains("slotvmm.reset_identity=");
        assert_eq!(is_told, argument.is_some(), "{planned:?}");
    }
}

#[test]
fn image_of_a_slot_becomes_its_state() {
    let host = host();
    fs::create_dir_all(host.path("state/slot2")).unwrap();
    host.write("state/slot2/data.img", "what the guest wrote");
    let made = done(&host, &["state", "create", "dev", "--from-slot", "slot2"]);
    assert_eq!(
        made.stdout,
        "State 'dev' has the image of slot2, and slot2 has the state\n"
    );
    assert_eq!(link(&host, "slot2"), PathBuf::from("dev/data.img"));
    let text = fs::read_to_string(host.path("state/states/dev/data.img")).unwrap();
    assert_eq!(text, "what the guest wrote");
    let refused = host.run(&["state", "create", "other", "--from-slot", "slot2"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("slot2 has no image of its own"));
}

#[test]
fn deletion_asks_first() {
    let host = host();
    done(&host, &["state", "create", "old"]);
    let answer = |text: &str| {
        let mut child = host
            .command(&["state", "delete", "old"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        host.ended(child.wait_with_output().unwrap())
    };
    for text in ["", "yes\n", "delete\n"] {
        let ended = answer(text);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains("Type 'DELETE' to confirm:"),
            "{ended:?}"
        );
        assert!(host.path("state/states/old").exists());
    }
    assert_eq!(answer("DELETE\n").code, Some(0));
    assert!(!host.path("state/states/old").exists());
}

#[test]
fn state_in_use_is_refused_with_its_user() {
    let host = host();
    done(&host, &["state", "create", "web"]);
    write_image(&host, "web", b"x");
    let image = host.path("state/states/web/data.img");
    let image = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .unwrap();
    store::lock::try_lock(&image, store::lock::Access::Exclusive).unwrap();
    for arguments in [
        &["state", "delete", "web", "--yes"][..],
        &["state", "clone", "web", "new"],
        &["state", "assign", "slot1", "web"],
    ] {
        let ended = host.run(arguments);
        assert_eq!(ended.code, Some(32), "{ended:?}");
        assert!(
            ended
                .stderr
                .contains(&format!("process {}", std::process::id())),
            "{ended:?}"
        );
    }
}

#[test]
fn state_without_an_image_gets_one_at_the_first_start() {
    let host = host();
    done(&host, &["state", "assign", "slot1", "fresh"]);
    let template = host.path("template");
    fs::write(&template, [1; 4096]).unwrap();
    let settings = format!("[data]\ntemplate = \"{}\"\n", template.display());
    host.write("etc/slots/slot1.toml", &settings);
    let planned = done(&host, &["run", "slot1", "--dry-run", "--ignore-cpu-check"]);
    assert!(planned.stdout.contains("will be"), "{planned:?}");
}

#[test]
fn gc_keeps_what_the_host_file_says() {
    let host = host();
    let settings = fs::read_to_string(host.path("etc/host.toml")).unwrap();
    host.write(
        "etc/host.toml",
        &format!("{settings}\n[snapshot]\nkeep = 2\n"),
    );
    done(&host, &["state", "assign", "slot1", "web"]);
    for name in ["a", "b", "c"] {
        done(&host, &["snapshot", "slot1", name]);
    }
    let would = done(&host, &["state", "gc", "--dry-run"]);
    assert_eq!(would.stdout, "Would remove web@a\n");
    let removed = done(&host, &["state", "gc", "web", "--keep", "1"]);
    assert_eq!(removed.stdout, "Removed web@a\nRemoved web@b\n");
    let wrong = host.run(&["state", "gc", "--keep", "often"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[test]
fn reset_keeps_the_image_as_a_snapshot() {
    let host = host();
    done(&host, &["state", "assign", "slot1", "web"]);
    write_image(&host, "web", b"precious");
    let reset = done(&host, &["state", "reset", "slot1", "--json"]).stdout;
    let reset: serde_json::Value = serde_json::from_str(&reset).unwrap();
    done(
        &host,
        &["state", "restore", reset["kept"].as_str().unwrap(), "again"],
    );
    assert_eq!(read_image(&host, "again"), "precious");
}

/// The program under the name `vm-state`.
fn vm_state(host: &Host, arguments: &[&str]) -> Ended {
    let program = host.path("vm-state");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_slotvmm"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command
        .env("SLOTVMM_CONFIG", host.path("etc"))
        .args(arguments);
    command.stdin(Stdio::null());
    host.ended(command.output().unwrap())
}

#[test]
fn vm_state_speaks_as_it_always_did() {
    let host = host();
    let said = |arguments: &[&str]| vm_state(&host, arguments).stdout;
    assert_eq!(
        said(&["create", "dev-env"]),
        "[INFO] Creating state 'dev-env'...\n\
         [OK] State 'dev-env' created at /HOST/state/states/dev-env\n\
         [INFO] Assign it to a slot with: vm-state assign <slot> dev-env\n"
    );
    let assigned = said(&["assign", "slot2", "dev-env"]);
    assert!(
        assigned.starts_with("[OK] Assigned state 'dev-env' to slot2\n"),
        "{assigned}"
    );
    let snapshot = said(&["snapshot", "slot2", "before-update"]);
    assert!(snapshot.contains("[INFO] Creating snapshot of state 'dev-env' (from slot2)..."));
    let restored = said(&["restore", "before-update", "recovered"]);
    assert!(
        restored.contains("[OK] Snapshot restored to state 'recovered'"),
        "{restored}"
    );
    let listed = said(&[]);
    assert!(
        listed.starts_with(
            "[INFO] States and assignments:\n\nSLOT            STATE           RUNNING"
        )
    );
    assert!(
        listed.contains("\nslot2           dev-env         no"),
        "{listed}"
    );
    assert!(
        listed.contains("[INFO] Snapshots:\ndev-env@before-update\n"),
        "{listed}"
    );
    let aborted = vm_state(&host, &["delete", "recovered"]);
    assert_eq!(aborted.code, Some(1));
    assert!(
        aborted
            .stderr
            .contains("Type 'DELETE' to confirm: [ERROR] Aborted"),
        "{aborted:?}"
    );
}

#[test]
fn vm_state_explains_what_it_does_not_understand() {
    let host = host();
    let said = |arguments: &[&str]| {
        let ended = vm_state(&host, arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.stderr
    };
    assert_eq!(
        said(&["frobnicate"]),
        "[ERROR] Unknown command: frobnicate. Use 'vm-state help' for usage.\n"
    );
    assert_eq!(said(&["create"]), "[ERROR] Usage: vm-state create <name>\n");
    assert!(said(&["delete", "none"]).starts_with("[ERROR] State 'none' does not exist"));
    assert!(
        vm_state(&host, &["help"])
            .stdout
            .contains("migrate <state> <slot>")
    );
}

#[test]
fn state_moves_to_another_host_through_a_pipe() {
    let (here, there) = (host(), host());
    done(&here, &["state", "assign", "slot1", "dev"]);
    write_image(&here, "dev", b"monday");
    done(&here, &["snapshot", "slot1", "monday"]);
    write_image(&here, "dev", b"tuesday");
    done(&here, &["snapshot", "slot1", "tuesday"]);
    let pipe = |arguments: &[&str]| {
        let mut export = here
            .command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stream = export.stdout.take().unwrap();
        let import = there
            .command(&["state", "import", "dev"])
            .stdin(stream)
            .output()
            .unwrap();
        assert!(export.wait().unwrap().success());
        there.ended(import)
    };
    let whole = pipe(&["state", "export", "dev@monday"]);
    assert_eq!(
        whole.stdout, "State 'dev' imported, with its snapshot monday\n",
        "{whole:?}"
    );
    let changes = pipe(&["state", "export", "dev@tuesday", "--since", "monday"]);
    assert_eq!(
        changes.stdout, "Snapshot dev@tuesday imported\n",
        "{changes:?}"
    );
    assert_eq!(read_image(&there, "dev"), "monday");
    done(&there, &["state", "restore", "tuesday", "next"]);
    assert_eq!(read_image(&there, "next"), "tuesday");
}

#[test]
fn state_moves_through_a_file() {
    let host = host();
    done(&host, &["state", "create", "dev"]);
    write_image(&host, "dev", b"kept");
    let file = host.path("dev.state");
    let file = file.to_str().unwrap();
    done(&host, &["state", "export", "dev", file]);
    done(&host, &["state", "import", "again", file]);
    assert_eq!(read_image(&host, "again"), "kept");
    fs::write(file, "something else").unwrap();
    let refused = host.run(&["state", "import", "third", file]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("does not begin like an exported state"),
        "{refused:?}"
    );
    let refused = host.run(&["state", "export", "dev", "--since", "x"]);
    assert!(
        refused.stderr.contains("export a snapshot of it"),
        "{refused:?}"
    );
}
