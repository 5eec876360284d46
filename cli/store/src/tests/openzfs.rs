//! What a real OpenZFS was asked and said. `openzfs.jsonl` is the transcript of [`story`] on one: a
//! line with its version, then a line for each command with its exit code and what it printed.
//!
//! Where there is no OpenZFS, the story is told to the transcript: each command has to be the one that
//! OpenZFS was given at this point, and the answer is OpenZFS's. The model does what was asked as
//! well, and has to say the same. `cargo lab zfs` runs it all on a real OpenZFS, and with `--record`
//! writes the transcript anew.

mod pool;
mod replay;

use std::env;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use self::pool::RealPool;
use self::replay::{Replay, masked};
use super::pool::BASE;
use super::tree::{Off, furnish_store, write_image};
use super::zfs::race::race_everywhere;
use super::zfs::{Victim as _, kill_everywhere};
use super::{forks, memory_dir, name, no_forks};
use crate::fsck::Mode;
use crate::identity::Identity;
use crate::snapshot::Consistency;
use crate::zfs::{Answer, Program, Runner};
use crate::{Conflict, DataSets, Keep, Retention, Store, StoreError};

/// What is kept of a run on a real OpenZFS.
const TRANSCRIPT: &str = include_str!("openzfs.jsonl");

/// Stands for the store's directory in the transcript.
const ROOT: &str = "@STORE@";

/// The first line of the transcript.
#[derive(Debug, Serialize, Deserialize)]
struct Title {
    openzfs: String,
}

/// A command and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Exchange {
    zfs: Vec<String>,
    exit: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    out: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    err: String,
}

/// A real OpenZFS, and all that it was asked.
#[derive(Debug)]
struct Recorder {
    program: Program,
    root: PathBuf,
    kept: Mutex<Vec<Exchange>>,
}

impl Runner for Recorder {
    fn run(&self, arguments: &[&str]) -> std::io::Result<Answer> {
        let output = self.program.output(arguments)?;
        let root = self.root.display().to_string();
        let general = |text: &str| text.replace(&root, ROOT);
        let printed = |bytes: &[u8]| general(&String::from_utf8_lossy(bytes));
        self.kept.lock().unwrap().push(Exchange {
            zfs: arguments.iter().map(|word| general(word)).collect(),
            exit: output.status.code().unwrap_or(-1),
            out: printed(&output.stdout),
            err: printed(&output.stderr),
        });
        Ok(output.into())
    }
}

/// A store whose states are data sets, and the way to ZFS past it.
struct Teller {
    store: Store,
    sets: DataSets,
    zfs: Arc<dyn Runner>,
}

impl Teller {
    fn new(root: &Path, zfs: Arc<dyn Runner>) -> Self {
        let store = super::open(root);
        let sets = DataSets::with_runner(zfs.clone(), BASE.to_owned(), &store.layout().states());
        Self {
            store: store.with_data_sets(Some(sets.clone())),
            sets,
            zfs,
        }
    }

    /// What somebody else has ZFS do, which refuses.
    fn refused(&self, arguments: &[&str], why: &str) {
        match self.zfs.run(arguments).unwrap() {
            Answer::Refused(said) => assert!(said.contains(why), "{arguments:?}: {said}"),
            Answer::Done(_) => panic!("{arguments:?} was not refused"),
        }
    }

    fn clone_of(&self, state: &str, new: &str) {
        let source = (&name(state), Identity::Keep);
        let cloned = self.store.clone_state(source, &name(new), &|_, _| ());
        cloned.unwrap();
    }

    fn restore(&self, snapshot: &str, new: &str) {
        let source = (&snapshot.parse().unwrap(), Identity::Keep);
        let restored = self.store.restore(source, &name(new), &|_, _| ());
        restored.unwrap();
    }

    fn image(&self, state: &str) -> Vec<u8> {
        fs::read(self.store.layout().image(&name(state))).unwrap()
    }

    /// Finds `leftovers`, mends them, and finds nothing then.
    fn mend(&self, leftovers: usize) {
        let found = self.store.fsck(Mode::Repair).unwrap();
        assert_eq!(found.len(), leftovers, "{found:#?}");
        assert_eq!(self.store.fsck(Mode::Look).unwrap(), []);
    }
}

/// Every command that we give ZFS, and the ways in which it refuses.
fn story(teller: &Teller) {
    furnish_store(&teller.store);
    copies(teller);
    deletions(teller);
    snapshots(teller);
    moves(teller);
    leftovers(teller);
}

fn copies(teller: &Teller) {
    teller.clone_of("web", "new");
    assert!(teller.image("new") == teller.image("web"));
    write_image(&teller.store.layout().image(&name("new")), 99);
    assert!(teller.image("new") != teller.image("web"));
    for (snapshot, state) in [("db@base", "one"), ("db@base", "two"), ("web", "three")] {
        teller.restore(snapshot, state);
    }
    teller.clone_of("one", "four");
    // What happens when others take the names meanwhile.
    let taken = teller.sets.snapshot_hidden((&name("web"), "base"));
    let said = taken.unwrap_err().to_string();
    assert!(said.contains("already exists"), "{said}");
    let set = format!("{BASE}/web");
    teller.refused(
        &["create", "-o", "mountpoint=/nowhere", &set],
        "already exists",
    );
    teller.refused(&["promote", &set], "not a cloned filesystem");
    let base = format!("{BASE}/db@base");
    teller.refused(&["destroy", &base], "has dependent clones");
    teller.refused(
        &["destroy", "-r", &format!("{BASE}/db")],
        "has dependent clones",
    );
}

fn deletions(teller: &Teller) {
    let store = &teller.store;
    let (two, four) = (teller.image("two"), teller.image("four"));
    // A name that the heir has as well.
    let again = store.snapshot(&name("one"), &name("base"), &|_, _| ());
    again.unwrap();
    store.delete_snapshot(&"db@base".parse().unwrap()).unwrap();
    for state in ["db", "one"] {
        store.delete(&name(state)).unwrap();
        assert_eq!(store.fsck(Mode::Look).unwrap(), [], "after {state}");
    }
    assert!(two == teller.image("two") && four == teller.image("four"));
    for state in ["two", "four", "new"] {
        store.delete(&name(state)).unwrap();
    }
}

fn snapshots(teller: &Teller) {
    let (store, web, slot) = (&teller.store, name("web"), name("slot1"));
    let kept = Keep::Snapshot(name("kept"));
    assert!(store.reset(&web, &kept).unwrap());
    let image = store.layout().image(&web);
    assert!(!image.exists());
    write_image(&image, 40);
    let file = OpenOptions::new().read(true).write(true).open(&image);
    let file = file.unwrap();
    crate::lock::try_lock(&file, crate::lock::Access::Exclusive).unwrap();
    let taken = store.snapshot_running(&slot, (&web, &name("now")), Consistency::Crash);
    assert_eq!(taken.unwrap().unwrap().facts.pause_us, Some(0));
    let taken = store.snapshot(&web, &name("later"), &|_, _| ());
    assert!(matches!(taken, Err(StoreError::InUse { .. })), "{taken:?}");
    drop(file);
    let removed = store.gc(&web, &Retention::newest(2)).unwrap();
    assert_eq!(removed.len(), 2);
    let left = store.snapshots(&web).unwrap();
    let left: Vec<_> = left.into_iter().map(|it| it.snapshot).collect();
    assert_eq!(left, [name("kept"), name("now")]);
}

fn moves(teller: &Teller) {
    let (store, web) = (&teller.store, name("web"));
    store.migrate(&web, &name("slot3"), &Off).unwrap();
    assert_eq!(store.state_of(&name("slot3")).unwrap(), Some(web));
    let taken = store.assign(&name("slot2"), &name("web"), Conflict::Refuse);
    assert!(
        matches!(taken, Err(StoreError::Assigned { .. })),
        "{taken:?}"
    );
}

/// What commands leave that are killed, and what becomes of it.
fn leftovers(teller: &Teller) {
    let sets = &teller.sets;
    sets.create(&name("begun")).unwrap();
    teller.mend(1);
    teller.clone_of("web", "copy");
    sets.hide(&name("copy")).unwrap();
    teller.mend(1);
    sets.snapshot_hidden((&name("web"), ".new-begun")).unwrap();
    teller.mend(1);
    let three = format!("{BASE}/three");
    let unmounted = teller.zfs.run(&["unmount", &three]).unwrap();
    assert_eq!(unmounted, Answer::Done(String::new()));
    teller.mend(1);
    assert!(!teller.image("three").is_empty());
}

/// The store in `root`, on the host's own ZFS.
pub(super) fn open(root: &Path) -> Store {
    Teller::new(root, Arc::new(Program::of_host())).store
}

/// The version and the exchanges of the transcript.
fn kept() -> (String, Vec<Exchange>) {
    let mut lines = TRANSCRIPT.lines();
    let title: Title = serde_json::from_str(lines.next().unwrap()).unwrap();
    let exchanges = lines.map(|line| serde_json::from_str(line).unwrap());
    (title.openzfs, exchanges.collect())
}

#[test]
fn transcript_of_openzfs_is_what_we_ask_and_the_model_says() {
    let _no_forks = no_forks();
    let dir = memory_dir();
    let (version, exchanges) = kept();
    let count = exchanges.len();
    let replay = Arc::new(Replay::new(dir.path(), exchanges));
    story(&Teller::new(dir.path(), replay.clone()));
    replay.expect_told();
    println!("a transcript of OpenZFS {version}: {count} commands, no ZFS was here");
}

/// What says that there is no OpenZFS.
const SKIPPED: &str = "skipped: there is no OpenZFS here; its transcript and a model stand for it, \
                       `cargo lab zfs` has one";

/// Of all steps at which commands can be killed, every so many is taken on a real OpenZFS, which is
/// slow where it is emulated; `STORE_ZFS_STRIDE` says how many instead.
const STRIDE: usize = 7;

/// The same for pairs of verbs and `STORE_ZFS_RACE_STRIDE`.
const RACE_STRIDE: usize = 11;

/// The number in a variable, if it is set.
fn stride(variable: &str, usual: usize) -> usize {
    let set = env::var(variable).ok();
    set.map_or(usual, |stride| stride.parse().unwrap())
}

#[test]
fn killed_verbs_leave_what_was_or_what_is_wanted_on_openzfs() {
    if env::var_os("LAB_ZFS").is_none() {
        println!("{SKIPPED}");
        return;
    }
    let _alone = forks();
    let kills = kill_everywhere(&RealPool::new(), stride("STORE_ZFS_STRIDE", STRIDE));
    println!("{kills} kills on OpenZFS");
}

#[test]
fn racing_verbs_end_as_if_one_had_waited_on_openzfs() {
    if env::var_os("LAB_ZFS").is_none() {
        println!("{SKIPPED}");
        return;
    }
    let _alone = forks();
    let stride = stride("STORE_ZFS_RACE_STRIDE", RACE_STRIDE);
    let pairs = race_everywhere(&RealPool::new(), stride);
    println!("{pairs} pairs of verbs raced on OpenZFS");
}

#[test]
fn openzfs_is_asked_and_says_what_the_transcript_has() {
    let Ok(version) = env::var("LAB_ZFS") else {
        println!("{SKIPPED}");
        return;
    };
    let _alone = forks();
    let pool = RealPool::new();
    pool.empty();
    let recorder = Arc::new(Recorder {
        program: Program::of_host(),
        root: pool.root().to_owned(),
        kept: Mutex::default(),
    });
    story(&Teller::new(pool.root(), recorder.clone()));
    let told = recorder.kept.lock().unwrap().clone();
    println!("OpenZFS {version}: {} commands", told.len());
    if let Some(results) = env::var_os("LAB_RESULTS") {
        return record(&Path::new(&results).join("openzfs.jsonl"), version, &told);
    }
    let before = kept().1;
    for (now, before) in told.iter().zip(&before) {
        assert_eq!(masked(now), masked(before), "{now:?}");
    }
    assert_eq!(told.len(), before.len());
}

/// Writes a transcript.
fn record(path: &Path, openzfs: String, told: &[Exchange]) {
    let title = serde_json::to_string(&Title { openzfs });
    let lines = told.iter().map(serde_json::to_string);
    let lines = [title].into_iter().chain(lines).map(Result::unwrap);
    let lines: Vec<_> = lines.collect();
    fs::write(path, lines.join("\n") + "\n").unwrap();
}
