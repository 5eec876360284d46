//! What a user sees of a store, for comparing, and the verbs that are tried on it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{name, open};
use crate::identity::Identity;
use crate::transfer::{Export, TransferError};
use crate::{
    Conflict, ControlError, Keep, MigrateError, Name, Retention, SlotControl, Store, StoreError,
};

/// Path and content of everything whose name does not begin with a dot.
pub(crate) type Tree = BTreeMap<String, String>;

/// Looks at a store. What differs from run to run in a manifest is left out.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, dir: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_name().to_str().unwrap().starts_with('.') {
            continue;
        }
        let kind = entry.file_type().unwrap();
        let content = if kind.is_dir() {
            walk(root, &path, tree);
            // Only states are something when they are empty.
            if dir != root.join("states") {
                continue;
            }
            "state".to_owned()
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            target.strip_prefix(root).unwrap().display().to_string()
        } else if path.ends_with("manifest.json") {
            let text = fs::read_to_string(&path).unwrap();
            let varies = |line: &&str| !line.contains("\"id\"") && !line.contains("\"created\"");
            text.lines().filter(varies).collect()
        } else {
            digest(&fs::read(&path).unwrap())
        };
        let place = path.strip_prefix(root).unwrap().display().to_string();
        tree.insert(place, content);
    }
}

/// Length and FNV-1a hash.
fn digest(bytes: &[u8]) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{} {hash:x}", bytes.len())
}

/// Names in the store that begin with a dot, but for the store's lock.
pub(crate) fn hidden(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(hidden(&path));
        }
        if name.starts_with('.') && name != ".lock" {
            found.push(path.display().to_string());
        }
    }
    found
}

/// An image of three ranges of data and holes between them.
pub(crate) fn write_image(path: &Path, seed: u8) {
    let file = fs::File::create(path).unwrap();
    file.set_len(256 << 10).unwrap();
    for range in 0..3_u8 {
        let data = vec![seed.wrapping_add(range); 4096];
        file.write_all_at(&data, u64::from(range) * (96 << 10))
            .unwrap();
    }
}

/// Fills an empty directory: `web` (slot1) and `db` with two snapshots each, `spare` (slot3)
/// without an image, and slot2 with an image of its own.
pub(crate) fn furnish(root: &Path) {
    furnish_store(&open(root));
}

/// The same in an empty store.
pub(crate) fn furnish_store(store: &Store) {
    let root = &store.layout().root;
    for (state, seed) in [("web", 10), ("db", 20)] {
        store.create(&name(state)).unwrap();
        write_image(&store.layout().image(&name(state)), seed);
        for snapshot in ["base", state] {
            store
                .snapshot(&name(state), &name(snapshot), &|_, _| ())
                .unwrap();
        }
    }
    store
        .assign(&name("slot1"), &name("web"), Conflict::Refuse)
        .unwrap();
    store
        .assign(&name("slot3"), &name("spare"), Conflict::Refuse)
        .unwrap();
    fs::create_dir(root.join("slot2")).unwrap();
    write_image(&root.join("slot2/data.img"), 30);
}

/// A host on which no slot runs, and none can.
pub(crate) struct Off;

impl SlotControl for Off {
    fn is_running(&self, _slot: &Name) -> Result<bool, ControlError> {
        Ok(false)
    }

    fn stop(&self, _slot: &Name) -> Result<(), ControlError> {
        Ok(())
    }

    fn start(&self, _slot: &Name) -> Result<bool, ControlError> {
        Ok(false)
    }
}

/// Imports what is exported, as `new`.
fn import(store: &Store, what: &Export) -> Result<(), StoreError> {
    let store_error = |error| match error {
        TransferError::Store(error) => error,
        other => unreachable!("{other}"),
    };
    let exported = store
        .export(what, Vec::new(), &|_, _| ())
        .map_err(store_error)?;
    let imported = store.import(&name("new"), exported.as_slice(), &|_, _| ());
    imported.map(drop).map_err(store_error)
}

/// A verb on a furnished store.
pub(crate) type Act = fn(&Store) -> Result<(), StoreError>;

/// Every verb that changes a store, in each of its ways.
pub(crate) const ACTS: [(&str, Act); 22] = [
    ("create", |store| store.create(&name("new"))),
    ("snapshot", |store| {
        store
            .snapshot(&name("web"), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("snapshot without an image", |store| {
        store
            .snapshot(&name("spare"), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("clone", |store| {
        store
            .clone_state((&name("web"), Identity::Keep), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("clone without an image", |store| {
        store
            .clone_state((&name("spare"), Identity::Keep), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("restore", |store| {
        let snapshot = "web@base".parse().unwrap();
        store
            .restore((&snapshot, Identity::Keep), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("restore by its name alone", |store| {
        let snapshot = "db".parse().unwrap();
        store
            .restore((&snapshot, Identity::Keep), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("assign", |store| {
        store
            .assign(&name("slot1"), &name("db"), Conflict::Refuse)
            .map(drop)
    }),
    ("assign a new state", |store| {
        store
            .assign(&name("slot4"), &name("new"), Conflict::Refuse)
            .map(drop)
    }),
    ("assign to a slot with its own image", |store| {
        store
            .assign(&name("slot2"), &name("db"), Conflict::Refuse)
            .map(drop)
    }),
    ("assign what another slot has", |store| {
        store
            .assign(&name("slot2"), &name("web"), Conflict::Move)
            .map(drop)
    }),
    ("adopt", |store| {
        store
            .adopt(&name("slot2"), &name("new"), &|_, _| ())
            .map(drop)
    }),
    ("unassign", |store| store.unassign(&name("slot1"))),
    ("delete", |store| store.delete(&name("db"))),
    ("delete a snapshot", |store| {
        store
            .delete_snapshot(&"web@base".parse().unwrap())
            .map(drop)
    }),
    ("reset", |store| {
        store.reset(&name("web"), &Keep::Nothing).map(drop)
    }),
    ("reset into a snapshot", |store| {
        store
            .reset(&name("web"), &Keep::Snapshot(name("new")))
            .map(drop)
    }),
    ("migrate", |store| {
        let moved = store.migrate(&name("web"), &name("slot3"), &Off);
        // Without slots that run, only the store can refuse.
        moved.map(drop).map_err(|error| match error {
            MigrateError::Store(error) => error,
            other => unreachable!("{other}"),
        })
    }),
    ("gc", |store| {
        store.gc(&name("web"), &Retention::newest(1)).map(drop)
    }),
    ("import", |store| import(store, &Export::State(name("web")))),
    ("import a snapshot", |store| {
        let whole = Export::Snapshot {
            snapshot: "web@base".parse().unwrap(),
            since: None,
            from: 0,
        };
        import(store, &whole)
    }),
    ("repair", |store| {
        store.fsck(crate::fsck::Mode::Repair).map(drop)
    }),
];
