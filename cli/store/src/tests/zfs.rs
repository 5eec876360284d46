//! States that are data sets, on a model of ZFS.

pub(super) mod race;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use tempfile::TempDir;

use super::pool::{BASE, Pool};
use super::tree::{ACTS, furnish_store, tree, write_image};
use super::{Fixture, forks, memory_dir, name, openzfs};
use crate::copy::Method;
use crate::fsck::Mode;
use crate::identity::Identity;
use crate::snapshot::Consistency;
use crate::transfer::Export;
use crate::{Conflict, DataSets, SnapshotRef, Store, StoreError};

/// Fewest kills that count as a test of everything.
const ENOUGH: u32 = 200;

/// What the process of a verb says before it begins.
const READY: &str = "ready";

/// The store in `root`, whose states are data sets.
fn open(root: &Path) -> Store {
    let pool = root.join(".pool");
    if !pool.exists() {
        fs::create_dir(&pool).unwrap();
        fs::create_dir(root.join("states")).unwrap();
    }
    let store = super::open(root);
    let runner = Arc::new(Pool { root: pool });
    let sets = DataSets::with_runner(runner, BASE.to_owned(), &store.layout().states());
    store.with_data_sets(Some(sets))
}

/// A fixture whose states are data sets, with the states of [`ACTS`].
fn furnished() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.store = open(fixture.dir.path());
    furnish_store(&fixture.store);
    fixture
}

/// What a user sees.
type View = BTreeMap<String, String>;

/// Files, and for each state its snapshots with what they hold.
fn view(store: &Store) -> View {
    let mut view = tree(&store.layout().root);
    for state in store.states().unwrap() {
        for snapshot in state.snapshots {
            let kept = store
                .kept(&state.state, &snapshot.snapshot)
                .unwrap()
                .unwrap();
            let image = fs::read(kept.image(store.layout())).ok();
            let facts = snapshot.manifest.map(|manifest| manifest.facts);
            let sum = image.map(|image| image.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            let what = format!("{}@{}", state.state, snapshot.snapshot);
            view.insert(what, format!("{sum:?} {facts:?}"));
        }
    }
    view
}

fn hidden(store: &Store) -> Vec<String> {
    let mut found = super::tree::hidden(&store.layout().root);
    found.retain(|path| !path.contains("/.pool") && !path.contains("/.zfs"));
    found
}

#[test]
fn snapshots_and_clones_are_those_of_zfs() {
    let fixture = furnished();
    let (store, web) = (&fixture.store, name("web"));
    assert!(!fixture.path("states/web/snapshots").exists());
    store
        .clone_state((&web, Identity::Keep), &name("new"), &|_, _| ())
        .unwrap();
    store
        .restore(
            (&"web@base".parse().unwrap(), Identity::Keep),
            &name("old"),
            &|_, _| (),
        )
        .unwrap();
    let read = |state: &str| fs::read(fixture.path(&format!("states/{state}/data.img"))).unwrap();
    assert!(read("new") == read("web") && read("old") == read("web"));
    write_image(&fixture.path("states/new/data.img"), 99);
    assert!(read("new") != read("web"));
    let shown: Vec<_> = store
        .snapshots(&web)
        .unwrap()
        .into_iter()
        .map(|it| it.snapshot)
        .collect();
    assert_eq!(shown, [name("base"), name("web")]);
    assert_eq!(store.fsck(Mode::Look).unwrap(), []);
}

#[test]
fn what_others_were_made_of_can_be_deleted() {
    let fixture = furnished();
    let store = &fixture.store;
    let db = fs::read(fixture.path("states/db/data.img")).unwrap();
    store
        .restore(
            (&"db@base".parse().unwrap(), Identity::Keep),
            &name("one"),
            &|_, _| (),
        )
        .unwrap();
    store
        .restore(
            (&"db@base".parse().unwrap(), Identity::Keep),
            &name("two"),
            &|_, _| (),
        )
        .unwrap();
    store
        .clone_state((&name("one"), Identity::Keep), &name("three"), &|_, _| ())
        .unwrap();
    // A name that the heir has as well.
    store
        .snapshot(&name("one"), &name("base"), &|_, _| ())
        .unwrap();
    store.delete_snapshot(&"db@base".parse().unwrap()).unwrap();
    for gone in ["db", "one"] {
        store.delete(&name(gone)).unwrap();
        assert_eq!(store.fsck(Mode::Look).unwrap(), [], "after {gone}");
    }
    for left in ["two", "three"] {
        assert_eq!(store.snapshots(&name(left)).unwrap(), []);
        assert!(db == fs::read(fixture.path(&format!("states/{left}/data.img"))).unwrap());
        store.delete(&name(left)).unwrap();
    }
    let pool = fs::read_to_string(fixture.path(".pool/pool.json")).unwrap();
    assert!(!pool.contains("/db"), "{pool}");
}

#[test]
fn names_that_are_taken_are_refused() {
    let fixture = furnished();
    let store = &fixture.store;
    let taken = store.snapshot(&name("web"), &name("base"), &|_, _| ());
    assert!(matches!(taken, Err(StoreError::SnapshotExists { .. })));
    let taken = store.clone_state((&name("web"), Identity::Keep), &name("db"), &|_, _| ());
    assert!(matches!(taken, Err(StoreError::StateExists { .. })));
    let ambiguous = store.restore(
        (&"base".parse().unwrap(), Identity::Keep),
        &name("new"),
        &|_, _| (),
    );
    assert!(matches!(ambiguous, Err(StoreError::Ambiguous { .. })));
}

#[test]
fn snapshot_that_is_not_to_be_seen_is_not_taken_for_one_without_an_image() {
    let fixture = furnished();
    let snapshot: SnapshotRef = "web@base".parse().unwrap();
    fs::remove_file(fixture.path("states/web/.zfs/snapshot/base/data.img")).unwrap();
    let what = Export::Snapshot {
        snapshot: snapshot.clone(),
        since: None,
        from: 0,
    };
    let exported = fixture.store.export(&what, Vec::new(), &|_, _| ());
    let exported = exported.unwrap_err().to_string();
    assert!(exported.contains("not to be seen"), "{exported}");
    let store = fixture.store.clone().with_method(Method::Copy);
    let source = (&snapshot, Identity::Keep);
    let restored = store.restore(source, &name("new"), &|_, _| ());
    assert!(
        matches!(restored, Err(StoreError::Unseen { .. })),
        "{restored:?}"
    );
    assert!(!fixture.path("states/new").exists());
}

#[test]
fn changes_to_a_snapshot_that_is_not_to_be_seen_are_refused() {
    let fixture = furnished();
    let (store, web, later) = (&fixture.store, name("web"), name("later"));
    store.snapshot(&web, &later, &|_, _| ()).unwrap();
    let reference: SnapshotRef = "web@later".parse().unwrap();
    let what = Export::Snapshot {
        snapshot: reference.clone(),
        since: Some(name("base")),
        from: 0,
    };
    let mut stream = Vec::new();
    store.export(&what, &mut stream, &|_, _| ()).unwrap();
    store.delete_snapshot(&reference).unwrap();
    let before = store.snapshots(&web).unwrap().len();
    let base = fixture.path("states/web/.zfs/snapshot/base/data.img");
    let hidden = fixture.path("hidden");
    fs::rename(&base, &hidden).unwrap();
    let refused = store.import(&web, stream.as_slice(), &|_, _| ());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("not to be seen"), "{refused}");
    assert_eq!(store.snapshots(&web).unwrap().len(), before);
    fs::rename(&hidden, &base).unwrap();
    store.import(&web, stream.as_slice(), &|_, _| ()).unwrap();
    assert_eq!(store.snapshots(&web).unwrap().len(), before + 1);
}

#[test]
fn running_slot_s_snapshot_is_taken_while_it_writes() {
    let fixture = furnished();
    let (slot, web, now) = (name("slot1"), name("web"), name("now"));
    let stopped = fixture
        .store
        .snapshot_running(&slot, (&web, &now), Consistency::Crash);
    assert!(
        matches!(stopped, Err(StoreError::OtherImage { .. })),
        "{stopped:?}"
    );
    let image = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(fixture.path("states/web/data.img"))
        .unwrap();
    crate::lock::try_lock(&image, crate::lock::Access::Exclusive).unwrap();
    let taken = fixture
        .store
        .snapshot_running(&slot, (&web, &now), Consistency::Crash)
        .unwrap()
        .unwrap();
    assert_eq!(taken.facts.consistency, crate::snapshot::Consistency::Crash);
    assert_eq!(taken.facts.pause_us, Some(0));
    assert_eq!(fixture.store.snapshots(&web).unwrap().len(), 3);
    let busy = fixture.store.snapshot(&web, &name("later"), &|_, _| ());
    assert!(matches!(busy, Err(StoreError::InUse { .. })), "{busy:?}");
}

#[test]
fn states_that_are_directories_live_beside_data_sets() {
    let fixture = furnished();
    let plain = super::open(fixture.dir.path());
    plain.create(&name("plain")).unwrap();
    write_image(&fixture.path("states/plain/data.img"), 7);
    plain
        .snapshot(&name("plain"), &name("file"), &|_, _| ())
        .unwrap();
    let store = &fixture.store;
    store
        .snapshot(&name("plain"), &name("later"), &|_, _| ())
        .unwrap();
    store
        .clone_state((&name("plain"), Identity::Keep), &name("set"), &|_, _| ())
        .unwrap();
    store
        .assign(&name("slot1"), &name("plain"), Conflict::Refuse)
        .unwrap();
    store
        .assign(&name("slot1"), &name("set"), Conflict::Refuse)
        .unwrap();
    store.delete(&name("plain")).unwrap();
    let read = |state: &str| fs::read(fixture.path(&format!("states/{state}/data.img"))).unwrap();
    assert_eq!(read("set")[0], 7);
    assert_eq!(store.fsck(Mode::Look).unwrap(), []);
}

/// Not a test of its own: what others start as a process that can be killed, or that begins together
/// with another one when its standard input ends.
#[test]
fn child() {
    let (Ok(root), Ok(verb)) = (env::var("STORE_ZFS_ROOT"), env::var("STORE_VERB")) else {
        return;
    };
    let (_, act) = ACTS.iter().find(|(name, _)| *name == verb).unwrap();
    let is_real = env::var("STORE_ZFS_KIND").is_ok_and(|kind| kind == "openzfs");
    let open = if is_real { openzfs::open } else { open };
    println!("{READY}");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    let result = act(&open(Path::new(&root)));
    println!("result: {result:?}");
}

/// A store whose commands are killed.
pub(super) trait Victim {
    /// Its directory.
    fn root(&self) -> &Path;
    /// Opens it.
    fn open(&self) -> Store;
    /// Makes it anew, with the states of [`ACTS`].
    fn furnish(&self);
    /// What drives its data sets: `model` or `openzfs`.
    fn kind(&self) -> &'static str;
}

/// A process that does what `verb` says.
fn command(victim: &impl Victim, verb: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "tests::zfs::child", "--nocapture"])
        .env("STORE_ZFS_ROOT", victim.root())
        .env("STORE_ZFS_KIND", victim.kind())
        .env("STORE_VERB", verb);
    command
}

/// Has a process do what `verb` says, and kills it at a step.
fn run(victim: &impl Victim, verb: &str, die_at: usize) -> Output {
    let mut command = command(victim, verb);
    command.env("STORE_FAULT_AT", die_at.to_string());
    command.output().unwrap()
}

/// Kills every verb at each of its steps, or at every so many of all steps, and returns how often.
pub(super) fn kill_everywhere(victim: &impl Victim, stride: usize) -> u32 {
    victim.furnish();
    let before = view(&victim.open());
    let (mut kills, mut steps) = (0_u32, 0_usize);
    for (verb, _) in ACTS {
        victim.furnish();
        let whole = run(victim, verb, usize::MAX >> 33);
        let output = String::from_utf8_lossy(&whole.stdout);
        assert!(output.contains("result: Ok"), "{verb}: {output}");
        let after = view(&victim.open());
        let points = String::from_utf8_lossy(&whole.stderr);
        let points = points
            .lines()
            .filter(|line| line.starts_with("fault point"));
        for (number, point) in points.enumerate() {
            steps += 1;
            if steps % stride != 0 {
                continue;
            }
            victim.furnish();
            let what = format!("{verb}, killed at {number}, {point}");
            assert!(run(victim, verb, number).status.code().is_none(), "{what}");
            kills += 1;
            expect_whole(victim, &what, [&before, &after]);
        }
    }
    kills
}

/// Checks that the store is repaired to one of the two views.
fn expect_whole(victim: &impl Victim, what: &str, views: [&View; 2]) {
    let store = victim.open();
    // What arrived of a snapshot stays on purpose.
    let _ = fs::remove_dir_all(victim.root().join("states/.part-new"));
    let found = store.fsck(Mode::Look).unwrap();
    assert_eq!(found, store.fsck(Mode::Look).unwrap(), "{what}");
    store.fsck(Mode::Repair).unwrap();
    let now = view(&store);
    assert!(views.contains(&&now), "{what}: {now:#?} {found:#?}");
    assert_eq!(hidden(&store), Vec::<String>::new(), "{what}: {found:#?}");
    assert_eq!(store.fsck(Mode::Look).unwrap(), [], "{what}");
}

/// A store on the model, which is copied from a template.
struct OnModel {
    dir: TempDir,
    root: PathBuf,
}

impl Victim for OnModel {
    fn root(&self) -> &Path {
        &self.root
    }

    fn open(&self) -> Store {
        open(&self.root)
    }

    fn furnish(&self) {
        let template = self.dir.path().join("template");
        if template.exists() {
            fs::remove_dir_all(&self.root).unwrap();
            copy(&template, &self.root);
        } else {
            fs::create_dir(&self.root).unwrap();
            furnish_store(&self.open());
            copy(&self.root, &template);
        }
    }

    fn kind(&self) -> &'static str {
        "model"
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn killed_verbs_leave_what_was_or_what_is_wanted() {
    let _alone = forks();
    let dir = memory_dir();
    let root = dir.path().join("store");
    let kills = kill_everywhere(&OnModel { dir, root }, 1);
    println!("{kills} kills");
    assert!(kills >= ENOUGH, "{kills} kills");
}
