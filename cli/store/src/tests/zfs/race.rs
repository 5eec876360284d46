//! Two commands at once, for every pair of verbs, on states that are data sets: they end as if one had
//! waited for the other.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Barrier;
use std::thread;

use tempfile::TempDir;

use super::super::tree::{ACTS, Act, furnish_store};
use super::super::{memory_dir, no_forks};
use super::{READY, Victim, View, command, open, view};
use crate::Store;
use crate::fsck::Mode;

/// Places in [`ACTS`].
type Pair = [usize; 2];

/// Every verb with itself and with those after it.
fn pairs() -> impl Iterator<Item = Pair> {
    let rivals = |first| (first..ACTS.len()).map(move |second| [first, second]);
    (0..ACTS.len()).flat_map(rivals)
}

/// What is seen after verbs that waited for each other, on the model.
struct Ends {
    _dir: TempDir,
    root: PathBuf,
    alone: Vec<View>,
}

impl Ends {
    fn new() -> Self {
        let dir = memory_dir();
        let mut ends = Self {
            root: dir.path().join("store"),
            _dir: dir,
            alone: Vec::new(),
        };
        ends.alone = ACTS.iter().map(|(_, act)| ends.in_turn(&[*act])).collect();
        ends
    }

    /// What is seen after `change` on a store with the states of [`ACTS`].
    fn after(&self, change: impl FnOnce(&dyn Fn() -> Store)) -> View {
        fs::create_dir(&self.root).unwrap();
        furnish_store(&open(&self.root));
        change(&|| open(&self.root));
        let seen = whole(&open(&self.root));
        fs::remove_dir_all(&self.root).unwrap();
        seen
    }

    fn in_turn(&self, acts: &[Act]) -> View {
        self.after(|open| {
            for act in acts {
                // Which of them fails when both cannot be is no matter; what is seen is.
                let _ = act(&open());
            }
        })
    }

    /// Whether `seen` is what a pair of verbs can end with.
    fn have(&self, pair: Pair, seen: &View) -> bool {
        let [act, rival] = pair.map(|place| ACTS[place].1);
        // A command that needs what another one is using says so and does nothing.
        pair.iter().any(|place| self.alone[*place] == *seen)
            || self.in_turn(&[act, rival]) == *seen
            || self.in_turn(&[rival, act]) == *seen
    }
}

/// What is seen of a victim after the verbs of a pair, in each order and each alone.
fn ends_of(victim: &impl Victim, [first, second]: Pair) -> impl Iterator<Item = View> {
    let turns = [
        vec![first, second],
        vec![second, first],
        vec![first],
        vec![second],
    ];
    turns.into_iter().map(|turn| {
        victim.furnish();
        for place in turn {
            let _ = ACTS[place].1(&victim.open());
        }
        whole(&victim.open())
    })
}

/// What is seen of a store in which nothing hidden is left.
fn whole(store: &Store) -> View {
    assert_eq!(store.fsck(Mode::Look).unwrap(), []);
    view(store)
}

#[test]
fn racing_verbs_end_as_if_one_had_waited() {
    let _alone = no_forks();
    let ends = Ends::new();
    for pair in pairs() {
        let seen = ends.after(|open| {
            let ready = Barrier::new(2);
            thread::scope(|scope| {
                for place in pair {
                    let (ready, store, act) = (&ready, open(), ACTS[place].1);
                    scope.spawn(move || {
                        ready.wait();
                        let _ = act(&store);
                    });
                }
            });
        });
        let verbs = pair.map(|place| ACTS[place].0);
        assert!(ends.have(pair, &seen), "{verbs:?}: {seen:#?}");
    }
}

/// A verb's process that waits to begin.
struct Racer {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Racer {
    fn new(victim: &impl Victim, verb: &str) -> Self {
        let mut command = command(victim, verb);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let is_ready = |line: &String| line.ends_with(READY);
        let begun = output
            .by_ref()
            .lines()
            .map(Result::unwrap)
            .any(|line| is_ready(&line));
        assert!(begun, "{verb} never begins");
        Self { process, output }
    }

    /// How the verb ended.
    fn end(mut self) -> String {
        let mut printed = String::new();
        self.output.read_to_string(&mut printed).unwrap();
        self.process.wait().unwrap();
        let result = printed.lines().find(|line| line.starts_with("result: "));
        result.unwrap_or_else(|| panic!("{printed}")).to_owned()
    }
}

/// Races the processes of every pair of verbs, or of one pair in so many, and returns how many pairs.
pub(in super::super) fn race_everywhere(victim: &impl Victim, stride: usize) -> usize {
    let ends = Ends::new();
    let raced = pairs().skip(stride - 1).step_by(stride);
    raced
        .map(|pair| {
            victim.furnish();
            let mut racers = pair.map(|place| Racer::new(victim, ACTS[place].0));
            for racer in &mut racers {
                racer.process.stdin = None;
            }
            let verbs = pair.map(|place| ACTS[place].0);
            println!("{verbs:?}: {:?}", racers.map(Racer::end));
            let seen = whole(&victim.open());
            // The model has all snapshots of one second and all images in one file system: where that
            // matters, the victim itself is asked.
            let as_one = ends.have(pair, &seen) || ends_of(victim, pair).any(|end| end == seen);
            assert!(as_one, "{verbs:?}: {seen:#?}");
        })
        .count()
}
