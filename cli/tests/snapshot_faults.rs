//! Snapshots of a running slot of which every step is killed or fails, on either side: the state is as
//! before, the snapshot is whole or not there, and a guest that was not killed writes on.
//!
//! The guest is a kernel of a few instructions that writes to its disk all the time, on any KVM that
//! answers. `SLOTVMM_KILLS` says how many processes are killed, at every step again and again; without
//! it, each step that has a name is killed once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, Host};

/// Blocks of 4 KiB of the disk.
const BLOCKS: usize = 1024;

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A step that was passed, and in which process.
#[derive(Debug, Clone)]
struct Step {
    side: Side,
    /// Its place in a snapshot that nothing happened to.
    number: usize,
    name: String,
    /// How it is found in others, which have more or fewer clusters that a write waits for.
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Number,
    /// The first one of that name.
    Name,
}

impl Step {
    fn place(&self) -> String {
        match self.by {
            By::Number => self.number.to_string(),
            By::Name => self.name.clone(),
        }
    }

    /// Whether it was passed, when these were.
    fn is_among(&self, passed: &[&str]) -> bool {
        match self.by {
            By::Number => passed.len() > self.number,
            By::Name => passed.contains(&self.name.as_str()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// `slotvmm run`.
    Slot,
    /// `slotvmm snapshot`.
    Client,
    /// The store's steps in `slotvmm snapshot`.
    Store,
}

/// A host with slot1, whose guest writes to its state `dev`.
struct Bench {
    host: Host,
    slot: Option<Slot>,
}

/// The slot's process, and its guest's serial port.
struct Slot {
    child: Child,
    serial: UnixStream,
    asked: u8,
}

/// What the image holds, whatever the guest has written.
fn content() -> Vec<u8> {
    let bytes = |block: usize| [0x30 + u8::try_from(block % 8).unwrap(); 4096];
    (0..BLOCKS).flat_map(bytes).collect()
}

/// Builds the guest; one that is built already may be named instead.
fn guest() -> PathBuf {
    if let Some(built) = env::var_os("SLOTVMM_TINY_GUEST") {
        return built.into();
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/tiny-guest");
    let target = source.join("target");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status();
    assert!(built.unwrap().success());
    target.join("release/tiny-guest")
}

impl Bench {
    /// Nothing where KVM cannot be used.
    fn new(backend: &str) -> Option<Self> {
        if !common::kvm_opens() {
            return None;
        }
        let host = Host::new();
        let settings = fs::read_to_string(host.path("etc/host.toml")).unwrap();
        let place = host.path("assignments.json");
        let settings = settings.replace(
            &host.path("vmlinux").display().to_string(),
            &guest().display().to_string(),
        );
        let settings =
            format!("assignments = {place:?}\n{settings}[snapshot]\nbackend = {backend:?}\n");
        host.write("etc/host.toml", &settings);
        host.write(
            "etc/slots/slot1.toml",
            "net = []\n[machine]\nmemory = 64\n[vsock]\nenabled = false\n[boot]\nparams = [\"tiny=write\"]\n",
        );
        let bench = Self { host, slot: None };
        for arguments in [
            &["state", "create", "dev"],
            &["state", "assign", "slot1", "dev"][..],
        ] {
            let ended = bench.host.run(arguments);
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        fs::write(bench.image(), content()).unwrap();
        Some(bench)
    }

    fn image(&self) -> PathBuf {
        self.host.path("state/states/dev/data.img")
    }

    fn log(&self, side: Side) -> PathBuf {
        self.host.path(&format!("{side:?}"))
    }

    /// The slot, started when it does not run.
    fn slot(&mut self) -> &mut Slot {
        if self.slot.is_none() {
            self.slot = Some(Slot::start(&self.host, &self.log(Side::Slot)));
        }
        self.slot.as_mut().unwrap()
    }

    /// Takes a snapshot in which one step goes wrong; returns how it ended. The slot may still be
    /// busy with one that was given up.
    fn snapshot(&mut self, fault: Option<(&Step, &str)>) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.try_snapshot(fault);
            if !ended.stderr.contains("Another snapshot is being taken") {
                return ended;
            }
            assert!(Instant::now() < deadline, "the slot stays busy: {ended:?}");
        }
    }

    fn try_snapshot(&mut self, fault: Option<(&Step, &str)>) -> Ended {
        self.slot();
        let mut command = self.host.command(&["snapshot", "slot1", "s", "--json"]);
        for side in [Side::Slot, Side::Client] {
            let order = self.log(side).with_extension("do");
            let _ = fs::remove_file(&order);
            fs::write(self.log(side), "").unwrap();
            if let Some((step, deed)) = fault.filter(|(step, _)| step.side == side) {
                fs::write(order, format!("{deed} {}", step.place())).unwrap();
            }
        }
        let store = fault.filter(|(step, _)| step.side == Side::Store);
        let store = store.map_or(usize::MAX, |(step, _)| step.number);
        command
            .env("SLOTVMM_FAIL_POINTS", self.log(Side::Client))
            .env("STORE_FAULT_AT", store.to_string());
        self.host.ended(command.output().unwrap())
    }

    /// Every step of a snapshot that nothing happens to.
    fn steps(&mut self) -> Vec<Step> {
        let whole = self.snapshot(None);
        assert_eq!(whole.code, Some(0), "{whole:?}");
        let mut steps = Vec::new();
        for side in [Side::Slot, Side::Client] {
            let log = fs::read_to_string(self.log(side)).unwrap();
            let names = log.lines().enumerate();
            steps.extend(names.map(|(number, name)| Step {
                side,
                number,
                name: name.to_owned(),
                by: By::Number,
            }));
        }
        let store = whole
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("fault point: "));
        steps.extend(store.enumerate().map(|(number, name)| Step {
            side: Side::Store,
            number,
            name: name.to_owned(),
            by: By::Number,
        }));
        self.check("nothing happened");
        steps
    }

    /// The snapshot is whole or not there, the state is as it was, and a slot that is there works.
    /// True when there was a snapshot.
    fn check(&mut self, what: &str) -> bool {
        if let Some(slot) = &mut self.slot {
            if slot.has_ended() {
                self.slot = None;
            } else {
                slot.writes_on(what);
            }
        }
        // The next command that changes the store clears up.
        let mended = self.host.run(&["state", "fsck", "--repair"]);
        assert_eq!(mended.code, Some(0), "{what}: {mended:?}");
        let names = self.host.files("state/states/dev/snapshots");
        let whole = ["s", "s/data.img", "s/manifest.json"];
        assert!(names.is_empty() || names == whole, "{what}: {names:?}");
        if !names.is_empty() {
            let copy = fs::read(self.host.path("state/states/dev/snapshots/s/data.img")).unwrap();
            assert!(
                copy == content(),
                "{what}: the snapshot is not what the state was"
            );
            let deleted = self.host.run(&["state", "delete", "dev@s", "--yes"]);
            assert_eq!(deleted.code, Some(0), "{what}: {deleted:?}");
        }
        assert!(
            fs::read(self.image()).unwrap() == content(),
            "{what}: the state changed"
        );
        !names.is_empty()
    }

    /// The slot takes snapshots, whatever happened to the one before.
    fn works(&mut self, what: &str) {
        let ended = self.snapshot(None);
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
        assert!(self.check(what), "{what}: there is no snapshot");
    }

    /// Whether the slot was killed at this step, once it is known.
    fn has_died_at(&mut self, step: &Step) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.log(Side::Slot)).unwrap();
            let passed: Vec<&str> = log.lines().collect();
            if step.is_among(&passed) {
                let ended = self.slot.as_mut().unwrap().child.wait().unwrap();
                assert_eq!(ended.code(), None, "{step:?}: {ended:?}");
                return true;
            }
            if passed.last() == Some(&"after the last report") {
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "{step:?}: the snapshot does not end: {passed:?}"
            );
        }
    }
}

impl Slot {
    fn start(host: &Host, log: &Path) -> Self {
        let mut child = host
            .command(&["run", "slot1", "--ignore-cpu-check"])
            .env("SLOTVMM_FAIL_POINTS", log)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"W\n") {
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).unwrap(), 1, "it says {seen:?}");
            seen.extend(byte);
        }
        // What the guest writes from here on goes to the socket as well.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let serial = UnixStream::connect(host.path("run/slot1/console.sock")).unwrap();
        serial.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            child,
            serial,
            asked: b'a',
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Has the guest answer, which it does once it has written a round of blocks.
    fn writes_on(&mut self, what: &str) {
        self.asked = if self.asked == b'z' {
            b'a'
        } else {
            self.asked + 1
        };
        self.serial.write_all(&[self.asked]).unwrap();
        let mut byte = [0];
        while byte != [self.asked] {
            let read = self.serial.read(&mut byte);
            assert!(
                matches!(read, Ok(1)),
                "{what}: the guest does not answer: {read:?}"
            );
            assert_ne!(byte, *b"!", "{what}: the guest had an I/O error");
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first step of each name.
fn named(steps: &[Step]) -> Vec<Step> {
    let mut seen = std::collections::HashSet::new();
    let first = steps
        .iter()
        .filter(|step| seen.insert((format!("{:?}", step.side), &step.name)));
    let by_name = |step: &Step| Step {
        by: By::Name,
        ..step.clone()
    };
    first.map(by_name).collect()
}

fn kill_everywhere(backend: &str) {
    let Some(mut bench) = Bench::new(backend) else {
        return;
    };
    let steps = bench.steps();
    let wanted = env::var("SLOTVMM_KILLS")
        .ok()
        .map(|count| count.parse::<usize>().unwrap());
    let steps = if wanted.is_some() {
        steps
    } else {
        named(&steps)
    };
    let mut kills = 0_usize;
    let mut whole = 0_usize;
    for step in steps
        .iter()
        .cycle()
        .take(4 * wanted.unwrap_or_default().max(steps.len()))
    {
        if kills >= wanted.unwrap_or(steps.len()) {
            break;
        }
        let what = format!("{backend}: {step:?} killed");
        let ended = bench.snapshot(Some((step, "kill")));
        let killed = match step.side {
            // It may be told of the end before it has died of it.
            Side::Slot => bench.has_died_at(step),
            Side::Client | Side::Store => ended.code.is_none(),
        };
        kills += usize::from(killed);
        let there = bench.check(&what);
        whole += usize::from(there);
        if ended.code == Some(0) {
            assert!(there, "{what}: {ended:?}");
        }
    }
    bench.works("after all kills");
    println!(
        "{backend}: {kills} kills at {} steps, {whole} snapshots were whole",
        steps.len()
    );
    assert!(kills >= wanted.unwrap_or(20), "only {kills} kills");
}

#[test]
fn killed_snapshots_by_copying_are_whole_or_absent() {
    kill_everywhere("copy");
}

/// Where temporary files share blocks; `TMPDIR` may name an XFS or btrfs.
#[test]
fn killed_snapshots_by_sharing_are_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, content()).unwrap();
    let shared = Command::new("cp")
        .arg("--reflink=always")
        .args([from, to])
        .output();
    if !shared.is_ok_and(|shared| shared.status.success()) {
        eprintln!(
            "skipped: files in {} share no blocks",
            env::temp_dir().display()
        );
        return;
    }
    kill_everywhere("reflink");
}

/// Steps of which an error fails the snapshot; the others cannot fail.
const FALLIBLE: [&str; 10] = [
    "flush",
    "prepared",
    "drained",
    "resumed",
    "taken was told",
    "copier starts",
    "size the copy",
    "read",
    "write",
    "sync the copy",
];

/// What a host says, and how.
const ERRORS: [(&str, &str); 4] = [
    ("5", "Input/output error"),
    ("28", "No space left on device"),
    ("110", "timed out"),
    ("panic", "panicked"),
];

#[test]
fn failing_snapshots_leave_a_guest_that_writes_on() {
    let Some(mut bench) = Bench::new("copy") else {
        return;
    };
    let steps = bench.steps();
    let pid = bench.slot().child.id();
    let steps = named(&steps)
        .into_iter()
        .filter(|step| step.side == Side::Slot);
    let fallible = steps.filter(|step| FALLIBLE.contains(&step.name.as_str()));
    let mut tried = 0;
    for step in fallible {
        for (deed, message) in ERRORS {
            let what = format!("{step:?}: {message}");
            let ended = bench.snapshot(Some((&step, deed)));
            ended.failed_with(1, "slot1 took no snapshot");
            assert!(ended.stderr.contains(message), "{what}: {ended:?}");
            assert!(!bench.check(&what), "{what}: {ended:?}");
            tried += 1;
        }
        bench.works(&step.name);
    }
    assert_eq!(
        tried,
        FALLIBLE.len() * ERRORS.len(),
        "not every step was tried"
    );
    assert_eq!(bench.slot().child.id(), pid, "the slot is another process");
}

#[test]
fn a_pause_limit_that_cannot_be_kept_fails_the_snapshot_alone() {
    let Some(mut bench) = Bench::new("copy") else {
        return;
    };
    bench.slot();
    let ended = bench
        .host
        .run(&["snapshot", "slot1", "s", "--pause-limit", "0"]);
    ended.failed_with(1, "slot1 took no snapshot");
    assert!(!bench.check("no time to pause"));
    bench.works("after a pause that took too long");
}
