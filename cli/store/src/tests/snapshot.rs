//! Snapshots on their way.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::{Fixture, name};
use crate::snapshot::{Consistency, Facts, Manifest, begin};
use crate::{Name, StoreError};

fn facts() -> Facts {
    Facts {
        consistency: Consistency::Crash,
        slot: Some("slot1".to_owned()),
        pause_us: Some(900),
        copied_bytes: 0,
    }
}

#[test]
fn committed_snapshot_has_its_name_and_says_what_it_is() {
    let fixture = Fixture::new();
    fixture.state("web", b"old");
    let pending = begin(&fixture.store, &name("web"), &name("one")).unwrap();
    pending.image_file().write_all(b"bytes").unwrap();
    let written = pending.commit(facts()).unwrap();
    let dir = fixture.path("states/web/snapshots/one");
    assert_eq!(fs::read(dir.join("data.img")).unwrap(), b"bytes");
    let mode = fs::metadata(dir.join("data.img")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o400);
    let read = Manifest::read(&dir).unwrap();
    assert_eq!(read, written);
    assert_eq!((read.bytes, read.facts), (Some(5), facts()));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
}

#[test]
fn dropped_snapshot_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.state("web", b"old");
    let pending = begin(&fixture.store, &name("web"), &name("one")).unwrap();
    pending.image_file().write_all(b"half").unwrap();
    drop(pending);
    let left = fs::read_dir(fixture.path("states/web/snapshots")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn name_that_is_taken_or_being_taken_is_refused() {
    let fixture = Fixture::new();
    fixture.state("web", b"old");
    let (web, one) = (name("web"), name("one"));
    let first = begin(&fixture.store, &web, &one).unwrap();
    let error = begin(&fixture.store, &web, &one).unwrap_err();
    assert!(matches!(error, StoreError::BeingMade { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()));
    first.commit(facts()).unwrap();
    let error = begin(&fixture.store, &web, &one).unwrap_err();
    assert!(
        matches!(error, StoreError::SnapshotExists { .. }),
        "{error}"
    );
}

#[test]
fn leftovers_of_dead_makers_are_removed_and_whole_snapshots_kept() {
    let fixture = Fixture::new();
    fixture.state("web", b"old");
    let pending = begin(&fixture.store, &name("web"), &name("one")).unwrap();
    pending.image_file().write_all(b"bytes").unwrap();
    pending.commit(facts()).unwrap();
    let snapshots = fixture.path("states/web/snapshots");
    // As if the maker had died just before the last rename.
    fs::rename(snapshots.join("one"), snapshots.join(".new-one")).unwrap();
    fs::create_dir(snapshots.join(".new-half")).unwrap();
    fs::write(snapshots.join(".new-half/data.img"), b"ha").unwrap();
    fs::create_dir(snapshots.join(".old-gone")).unwrap();
    drop(begin(&fixture.store, &name("web"), &name("two")).unwrap());
    let left: Vec<_> = fs::read_dir(&snapshots).unwrap().flatten().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(fs::read(snapshots.join("one/data.img")).unwrap(), b"bytes");
}

#[test]
fn manifest_of_another_format_is_not_read() {
    let fixture = Fixture::new();
    fixture.state("web", b"old");
    let pending = begin(&fixture.store, &name("web"), &name("one")).unwrap();
    pending.commit_without_image(facts()).unwrap();
    let dir = fixture.path("states/web/snapshots/one");
    let path = dir.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let error = Manifest::read(&dir).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn snapshot_of_no_state_is_refused() {
    let fixture = Fixture::new();
    let absent: Name = name("absent");
    let error = begin(&fixture.store, &absent, &name("one")).unwrap_err();
    assert!(matches!(error, StoreError::NoState { .. }), "{error}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for text in ["", ".", "..", "a/b", ".new-x", "-x", "a b", "a\0", "a@b"] {
        assert!(text.parse::<Name>().is_err(), "{text:?}");
    }
}

#[test]
fn slot_has_what_the_file_says_then_its_link_then_its_name() {
    let fixture = Fixture::new();
    for state in ["slot1", "slot2", "web"] {
        fixture.state(state, b"");
    }
    let state_of = |slot: &str| {
        let state = fixture.store.state_of(&name(slot)).unwrap();
        state.map(|state| state.to_string())
    };
    assert_eq!(state_of("slot1").as_deref(), Some("slot1"));
    fs::write(
        fixture.path("assignments.json"),
        r#"{"slot1":"web","slot3":"slot2"}"#,
    )
    .unwrap();
    assert_eq!(state_of("slot1").as_deref(), Some("web"));
    assert_eq!(
        state_of("slot2"),
        None,
        "another slot has the state of this name"
    );
    assert_eq!(state_of("slot9"), None);
}
