//! What each verb does, and what it refuses.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::tree::{furnish, tree, write_image};
use super::{Fixture, name};
use crate::building::{Building, beside};
use crate::fsck::Mode;
use crate::identity::{self, Identity};
use crate::layout::PART;
use crate::lock::{Access, try_lock};
use crate::store::Locked;
use crate::{Assignments, Conflict, Keep, Name, StoreError};

fn furnished() -> Fixture {
    let fixture = Fixture::new();
    furnish(fixture.dir.path());
    fixture
}

fn linked(fixture: &Fixture, slot: &str) -> Option<String> {
    let target = fs::read_link(fixture.path(slot).join("data.img")).ok()?;
    let target = target.strip_prefix(fixture.dir.path()).unwrap();
    Some(target.display().to_string())
}

#[test]
fn clone_is_independent_and_bit_identical() {
    let fixture = furnished();
    fixture
        .store
        .clone_state((&name("web"), Identity::Keep), &name("new"), &|_, _| ())
        .unwrap();
    let (web, new) = (
        fixture.path("states/web/data.img"),
        fixture.path("states/new/data.img"),
    );
    let original = fs::read(&web).unwrap();
    assert!(original == fs::read(&new).unwrap());
    write_image(&new, 99);
    assert!(original == fs::read(&web).unwrap());
}

#[test]
fn copy_that_is_to_be_another_machine_says_so_until_its_own_copies_do() {
    let fixture = furnished();
    let number = |state: &str| {
        let image = fs::File::open(fixture.path(&format!("states/{state}/data.img")));
        identity::number_of(&image.unwrap())
    };
    let clone = |(from, identity), to| {
        let from = name(from);
        let copied = fixture
            .store
            .clone_state((&from, identity), &name(to), &|_, _| ());
        copied.unwrap();
    };
    clone(("web", Identity::Keep), "same");
    assert_eq!(number("same"), None);
    clone(("web", Identity::Reset), "other");
    assert!(number("other").is_some());
    clone(("other", Identity::Keep), "copy");
    assert_eq!(number("copy"), number("other"));
    clone(("other", Identity::Reset), "third");
    assert_ne!(number("third"), number("other"));
    let link = fixture.path("slot1/data.img");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(fixture.path("states/other/data.img"), &link).unwrap();
    assert_eq!(identity::number_at(&link), number("other"));
}

#[test]
fn slot_s_own_image_becomes_a_state_without_being_copied() {
    let fixture = furnished();
    let (slot, new) = (name("slot2"), name("new"));
    let inode = |path| fs::metadata(fixture.path(path)).unwrap().ino();
    let before = inode("slot2/data.img");
    fixture.store.adopt(&slot, &new, &|_, _| ()).unwrap();
    assert_eq!(inode("states/new/data.img"), before);
    assert_eq!(
        linked(&fixture, "slot2").unwrap(),
        "states/new/data.img",
        "the slot boots with it"
    );
    assert_eq!(fixture.store.state_of(&slot).unwrap(), Some(new));
    // There is nothing left to be made a state.
    let again = fixture.store.adopt(&slot, &name("newer"), &|_, _| ());
    assert!(matches!(again, Err(StoreError::NoOwnImage { .. })));
}

#[test]
fn slot_s_own_image_on_another_file_system_is_copied_and_kept() {
    let (fixture, elsewhere) = (furnished(), tempfile::tempdir_in("/tmp").unwrap());
    let (slot, new) = (name("slot2"), name("new"));
    let own = fixture.path("slot2");
    let moved = elsewhere.path().join("slot2");
    fs::create_dir(&moved).unwrap();
    fs::copy(own.join("data.img"), moved.join("data.img")).unwrap();
    if fs::metadata(&own).unwrap().dev() == fs::metadata(&moved).unwrap().dev() {
        println!("skipped: /tmp and /dev/shm are one file system");
        return;
    }
    let content = fs::read(own.join("data.img")).unwrap();
    fs::remove_dir_all(&own).unwrap();
    std::os::unix::fs::symlink(&moved, &own).unwrap();
    let adopted = fixture.store.adopt(&slot, &new, &|_, _| ()).unwrap();
    assert!(content == fs::read(fixture.path("states/new/data.img")).unwrap());
    assert!(content == fs::read(adopted.backup.unwrap()).unwrap());
    assert_eq!(fixture.store.state_of(&slot).unwrap(), Some(new));
}

#[test]
fn image_in_use_is_not_made_a_state() {
    let fixture = furnished();
    let own = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(fixture.path("slot2/data.img"))
        .unwrap();
    try_lock(&own, Access::Exclusive).unwrap();
    let before = tree(fixture.dir.path());
    let refused = fixture
        .store
        .adopt(&name("slot2"), &name("new"), &|_, _| ());
    assert!(matches!(refused, Err(StoreError::InUse { .. })));
    assert_eq!(tree(fixture.dir.path()), before);
}

#[test]
fn restored_state_has_what_the_snapshot_had() {
    let fixture = furnished();
    let original = fs::read(fixture.path("states/web/data.img")).unwrap();
    write_image(&fixture.path("states/web/data.img"), 99);
    let snapshot = "web@base".parse().unwrap();
    fixture
        .store
        .restore((&snapshot, Identity::Keep), &name("new"), &|_, _| ())
        .unwrap();
    assert!(original == fs::read(fixture.path("states/new/data.img")).unwrap());
}

#[test]
fn bare_name_of_a_snapshot_must_be_unique() {
    let fixture = furnished();
    let restore = |text: &str| {
        let snapshot = text.parse().unwrap();
        fixture
            .store
            .restore((&snapshot, Identity::Keep), &name("new"), &|_, _| ())
    };
    let error = restore("base").unwrap_err();
    assert!(matches!(error, StoreError::Ambiguous { .. }));
    assert!(error.to_string().contains("db@base, web@base"), "{error}");
    assert!(matches!(
        restore("none"),
        Err(StoreError::NoSnapshot { .. })
    ));
    assert!(matches!(
        restore("db@web"),
        Err(StoreError::NoSnapshot { .. })
    ));
    restore("db").unwrap();
}

#[test]
fn assigning_keeps_a_slots_own_image_as_a_backup() {
    let fixture = furnished();
    let own = fs::read(fixture.path("slot2/data.img")).unwrap();
    for backup in ["data.img.backup", "data.img.backup2"] {
        fixture
            .store
            .assign(&name("slot2"), &name("db"), Conflict::Refuse)
            .unwrap();
        assert_eq!(linked(&fixture, "slot2").unwrap(), "states/db/data.img");
        assert!(own == fs::read(fixture.path("slot2").join(backup)).unwrap());
        fixture.store.unassign(&name("slot2")).unwrap();
        fs::write(fixture.path("slot2/data.img"), &own).unwrap();
    }
}

#[test]
fn state_of_another_slot_is_only_moved_when_that_is_wanted() {
    let fixture = furnished();
    let before = tree(fixture.dir.path());
    let error = fixture
        .store
        .assign(&name("slot9"), &name("web"), Conflict::Refuse);
    assert!(matches!(error, Err(StoreError::Assigned { slot, .. }) if slot == name("slot1")));
    assert_eq!(tree(fixture.dir.path()), before);
    let done = fixture
        .store
        .assign(&name("slot9"), &name("web"), Conflict::Move)
        .unwrap();
    assert_eq!(done.taken_from, Some(name("slot1")));
    assert_eq!(linked(&fixture, "slot9").unwrap(), "states/web/data.img");
    assert_eq!(linked(&fixture, "slot1"), None);
}

#[test]
fn linked_state_without_an_entry_is_taken_as_assigned() {
    let fixture = furnished();
    fs::remove_file(fixture.path("assignments.json")).unwrap();
    let error = fixture.store.delete(&name("web"));
    assert!(matches!(error, Err(StoreError::Assigned { slot, .. }) if slot == name("slot1")));
}

#[test]
fn image_in_use_is_left_alone_and_its_user_named() {
    let fixture = furnished();
    let image = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(fixture.path("states/db/data.img"))
        .unwrap();
    try_lock(&image, Access::Exclusive).unwrap();
    let before = tree(fixture.dir.path());
    let (store, db, new) = (&fixture.store, name("db"), name("new"));
    let errors = [
        store.delete(&db).unwrap_err(),
        store.snapshot(&db, &new, &|_, _| ()).unwrap_err(),
        store
            .clone_state((&db, Identity::Keep), &new, &|_, _| ())
            .unwrap_err(),
        store.reset(&db, &Keep::Nothing).unwrap_err(),
        store
            .assign(&name("slot1"), &db, Conflict::Refuse)
            .unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        let pid = std::process::id().to_string();
        assert!(error.to_string().contains(&pid), "{error}");
    }
    assert_eq!(tree(fixture.dir.path()), before);
}

#[test]
fn reset_keeps_the_image_as_a_snapshot() {
    let fixture = furnished();
    let original = fs::read(fixture.path("states/web/data.img")).unwrap();
    let keep = Keep::Snapshot(name("kept"));
    assert!(fixture.store.reset(&name("web"), &keep).unwrap());
    assert!(!fixture.path("states/web/data.img").exists());
    assert!(original == fs::read(fixture.path("states/web/snapshots/kept/data.img")).unwrap());
    assert!(!fixture.store.reset(&name("web"), &keep).unwrap());
}

#[test]
fn everything_in_the_store_is_listed() {
    let fixture = furnished();
    let states = fixture.store.states().unwrap();
    let names: Vec<_> = states.iter().map(|state| state.state.as_str()).collect();
    assert_eq!(names, ["db", "spare", "web"]);
    let web = states.last().unwrap();
    assert_eq!(web.bytes, Some(256 << 10));
    assert!(web.allocated_bytes < 256 << 10, "holes are no data");
    assert_eq!(web.slot, Some(name("slot1")));
    assert_eq!(web.snapshots.len(), 2);
    let slots = fixture.store.slots().unwrap();
    let of = |slot: &str| slots.iter().find(|it| it.slot == name(slot)).unwrap();
    assert_eq!(of("slot1").state, Some(name("web")));
    assert_eq!(of("slot2").state, None);
}

#[test]
fn state_that_is_being_made_is_waited_for_by_whoever_wants_it() {
    waited_for(|locked, state| Building::begin_state(locked, state).unwrap());
}

#[test]
fn state_that_is_being_imported_is_waited_for_by_whoever_wants_it() {
    waited_for(|locked, state| {
        let place = locked.layout().state(state);
        let part = beside(&place, PART);
        Building::go_on(locked, &place, part).unwrap()
    });
}

fn waited_for(begin: fn(&Locked<'_>, &Name) -> Building) {
    let fixture = furnished();
    let (store, new) = (&fixture.store, name("new"));
    let before = tree(fixture.dir.path());
    let building = begin(&store.lock().unwrap(), &new);
    let assign = || store.assign(&name("slot4"), &new, Conflict::Refuse);
    let refused = [
        assign().map(drop),
        store.create(&new),
        store.adopt(&name("slot2"), &new, &|_, _| ()).map(drop),
        store
            .clone_state((&name("web"), Identity::Keep), &new, &|_, _| ())
            .map(drop),
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(StoreError::BeingMade { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(store.fsck(Mode::Look).unwrap(), []);
    assert_eq!(tree(fixture.dir.path()), before);
    building.finish(store).unwrap();
    assign().unwrap();
    let assignments = Assignments::read(store.layout()).unwrap();
    assert_eq!(
        assignments.state_of(store.layout(), &name("slot4")),
        Some(new)
    );
}
