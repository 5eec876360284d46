//! Two commands at once, for every pair of verbs: they end as if one had waited for the other.

use std::path::Path;
use std::sync::Barrier;
use std::thread;

use super::tree::{ACTS, Act, Tree, furnish, tree};
use super::{memory_dir, no_forks, open};
use crate::fsck::Mode;

/// A furnished store at a fixed place, so that trees can be compared.
fn store_at(root: &Path) {
    std::fs::create_dir(root).unwrap();
    furnish(root);
}

fn one_after_the_other(root: &Path, acts: [Act; 2]) -> Tree {
    store_at(root);
    for act in acts {
        // Which of them fails when both cannot be is no matter; the tree is.
        let _ = act(&open(root));
    }
    let seen = tree(root);
    std::fs::remove_dir_all(root).unwrap();
    seen
}

fn both_at_once(root: &Path, acts: [Act; 2]) -> Tree {
    store_at(root);
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        for act in acts {
            let ready = &ready;
            scope.spawn(move || {
                ready.wait();
                let _ = act(&open(root));
            });
        }
    });
    // Nothing hidden stays either.
    assert_eq!(open(root).fsck(Mode::Look).unwrap(), []);
    let seen = tree(root);
    std::fs::remove_dir_all(root).unwrap();
    seen
}

#[test]
fn racing_verbs_end_as_if_one_had_waited() {
    let _alone = no_forks();
    let dir = memory_dir();
    let root = dir.path().join("store");
    let alone = |act: Act| one_after_the_other(&root, [act, |_| Ok(())]);
    let ends: Vec<Tree> = ACTS.iter().map(|(_, act)| alone(*act)).collect();
    for (i, (first, act)) in ACTS.iter().enumerate() {
        for (j, (second, other)) in ACTS.iter().enumerate().skip(i) {
            let seen = both_at_once(&root, [*act, *other]);
            // A command that needs what another one is using says so and does nothing.
            let as_one = seen == ends[i] || seen == ends[j];
            assert!(
                as_one
                    || seen == one_after_the_other(&root, [*act, *other])
                    || seen == one_after_the_other(&root, [*other, *act]),
                "{first} and {second}: {seen:#?}"
            );
        }
    }
}
