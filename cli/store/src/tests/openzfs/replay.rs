//! A transcript that answers for OpenZFS, and the model beside it.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use super::{Exchange, ROOT};
use crate::tests::pool::Pool;
use crate::zfs::{Answer, Runner};

/// What stands for whatever is another one in each run.
const ANY: &str = "*";

/// What is left of a transcript.
#[derive(Debug)]
pub(super) struct Replay {
    root: PathBuf,
    pool: Pool,
    left: Mutex<VecDeque<Exchange>>,
}

impl Replay {
    /// The transcript `exchanges`, told to a store in the empty directory `root`.
    pub(super) fn new(root: &Path, exchanges: Vec<Exchange>) -> Self {
        let pool = root.join(".pool");
        fs::create_dir(&pool).unwrap();
        fs::create_dir(root.join("states")).unwrap();
        Self {
            root: root.to_owned(),
            pool: Pool { root: pool },
            left: Mutex::new(exchanges.into()),
        }
    }

    /// Checks that nothing is left of the transcript.
    pub(super) fn expect_told(&self) {
        let left = self.left.lock().unwrap();
        assert!(left.is_empty(), "never asked: {:?}", left.front());
    }
}

impl Runner for Replay {
    fn run(&self, arguments: &[&str]) -> std::io::Result<Answer> {
        let root = self.root.display().to_string();
        let general = |text: &str| text.replace(&root, ROOT);
        let next = self.left.lock().unwrap().pop_front();
        let next = next.unwrap_or_else(|| panic!("OpenZFS was not asked {arguments:?}"));
        let asked: Vec<_> = arguments.iter().map(|word| general(word)).collect();
        let same = asked.iter().map(|word| masked_word(word));
        let then = next.zfs.iter().map(|word| masked_word(word));
        assert_eq!(same.collect::<Vec<_>>(), then.collect::<Vec<_>>());
        let (exit, out, err) = match self.pool.run(arguments)? {
            Answer::Done(out) => (0, general(&out), String::new()),
            Answer::Refused(err) => (1, String::new(), general(&err)),
        };
        let model = Exchange {
            zfs: asked,
            exit,
            out,
            err,
        };
        assert_eq!(
            masked(&model),
            masked(&next),
            "the model says something else"
        );
        if next.exit == 0 {
            return Ok(Answer::Done(next.out.replace(ROOT, &root)));
        }
        Ok(Answer::Refused(next.err.replace(ROOT, &root)))
    }
}

/// The exchange without what differs from run to run.
pub(super) fn masked(exchange: &Exchange) -> Exchange {
    let guids = |line: &str| -> String {
        let columns: Vec<_> = line.split('\t').collect();
        match columns[..] {
            [name, _, _, _, deferred, clones, reset, manifest] => {
                let mut clones: Vec<_> = clones.split(',').collect();
                clones.sort_unstable();
                let reset = if reset == "-" { reset } else { ANY };
                let name = masked_name(name);
                let manifest = masked_manifest(manifest);
                format!("{name} {deferred} {clones:?} {reset} {manifest}")
            }
            _ => line.to_owned(),
        }
    };
    Exchange {
        zfs: exchange.zfs.iter().map(|word| masked_word(word)).collect(),
        exit: exchange.exit,
        out: exchange
            .out
            .lines()
            .map(|line| guids(line) + "\n")
            .collect(),
        // Advice follows.
        err: exchange.err.lines().take(1).collect(),
    }
}

fn masked_word(word: &str) -> String {
    if let Some(manifest) = word.strip_prefix("slotvmm:manifest=") {
        return masked_manifest(manifest);
    }
    if word.starts_with("slotvmm:reset=") {
        return ANY.to_owned();
    }
    masked_name(word)
}

/// Hidden snapshots have names with numbers of their own.
fn masked_name(name: &str) -> String {
    match name.split_once("@.old-") {
        Some((set, _)) => format!("{set}@.old-{ANY}"),
        None => name.to_owned(),
    }
}

fn masked_manifest(text: &str) -> String {
    let Ok(Value::Object(mut manifest)) = serde_json::from_str(text) else {
        return text.to_owned();
    };
    for key in ["id", "created"] {
        manifest.insert(key.to_owned(), ANY.into());
    }
    Value::Object(manifest).to_string()
}
