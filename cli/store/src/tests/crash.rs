//! Every verb is killed at every fault point: the store is as before or as after.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::tree::{ACTS, Tree, furnish, hidden, tree};
use super::{forks, memory_dir, open};
use crate::fsck::Mode;

/// Fewest kills that count as a test of everything.
const ENOUGH: u32 = 200;

/// Not a test of its own: what the others start as a process that can be killed.
#[test]
fn child() {
    let (Ok(root), Ok(verb)) = (env::var("STORE_ROOT"), env::var("STORE_VERB")) else {
        return;
    };
    let (_, act) = ACTS.iter().find(|(name, _)| *name == verb).unwrap();
    let result = act(&open(Path::new(&root)));
    println!("result: {result:?}");
}

/// Runs a verb in a process that dies at a fault point, if it has so many.
fn run(root: &Path, verb: &str, die_at: u32) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::crash::child", "--nocapture"])
        .env("STORE_ROOT", root)
        .env("STORE_VERB", verb)
        .env("STORE_FAULT_AT", die_at.to_string())
        .output()
        .unwrap()
}

/// Puts a copy of `template` in place of `root`, which it was made at.
fn reset(template: &Path, root: &Path) {
    if root.exists() {
        fs::remove_dir_all(root).unwrap();
    }
    let copied = Command::new("cp").arg("-a").args([template, root]).status();
    assert!(copied.unwrap().success());
}

/// Kills a verb at each of its points and returns how many there are.
fn kill_everywhere(verb: &str) -> u32 {
    let dir = memory_dir();
    let (root, template) = (dir.path().join("store"), dir.path().join("template"));
    fs::create_dir(&root).unwrap();
    furnish(&root);
    let before = tree(&root);
    reset(&root, &template);
    let whole = run(&root, verb, u32::MAX);
    let output = String::from_utf8_lossy(&whole.stdout);
    assert!(output.contains("result: Ok"), "{verb}: {output}");
    let after = tree(&root);
    let points = String::from_utf8_lossy(&whole.stderr);
    let points: Vec<_> = points
        .lines()
        .filter(|line| line.starts_with("fault point"))
        .collect();
    for (number, point) in points.iter().enumerate() {
        reset(&template, &root);
        let killed = run(&root, verb, u32::try_from(number).unwrap());
        assert!(
            killed.status.code().is_none(),
            "{verb} survived {number}, {point}"
        );
        check(
            &root,
            (&before, &after),
            &format!("{verb}, killed at {number}, {point}"),
        );
    }
    u32::try_from(points.len()).unwrap()
}

fn check(root: &Path, (before, after): (&Tree, &Tree), what: &str) {
    let store = open(root);
    // What arrived of a snapshot stays on purpose.
    let part = root.join("states/.part-new");
    if part.exists() {
        assert_eq!(store.fsck(Mode::Look).unwrap().len(), 1, "{what}");
        fs::remove_dir_all(part).unwrap();
    }
    // Looking changes nothing and finds what repairing then mends.
    let found = store.fsck(Mode::Look).unwrap();
    assert_eq!(found, store.fsck(Mode::Look).unwrap(), "{what}");
    store.states().unwrap();
    drop(store.lock().unwrap());
    let now = tree(root);
    assert!(now == *before || now == *after, "{what}: {now:#?}");
    assert_eq!(hidden(root), Vec::<String>::new(), "{what}: {found:#?}");
    assert_eq!(store.fsck(Mode::Repair).unwrap(), [], "{what}");
}

#[test]
fn killed_verbs_leave_what_was_or_what_is_wanted() {
    let _alone = forks();
    let kills: Vec<_> = ACTS
        .iter()
        .map(|(verb, _)| (*verb, kill_everywhere(verb)))
        .collect();
    println!("{kills:?}");
    let total: u32 = kills.iter().map(|(_, kills)| kills).sum();
    assert!(total >= ENOUGH, "{total} kills: {kills:?}");
}

#[test]
fn repair_alone_mends_what_a_kill_leaves() {
    let _alone = forks();
    let dir = memory_dir();
    let (root, template) = (dir.path().join("store"), dir.path().join("template"));
    fs::create_dir(&root).unwrap();
    furnish(&root);
    reset(&root, &template);
    let verb = "assign what another slot has";
    for number in 0.. {
        reset(&template, &root);
        if run(&root, verb, number).status.code().is_some() {
            break;
        }
        let store = open(&root);
        let looked = store.fsck(Mode::Look).unwrap().len();
        assert_eq!(store.fsck(Mode::Repair).unwrap().len(), looked);
        assert_eq!(store.fsck(Mode::Look).unwrap(), []);
        assert_eq!(hidden(&root), Vec::<String>::new());
    }
}
