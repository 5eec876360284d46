//! `run` with a kernel of a few instructions, on any KVM that answers: no hardware virtualisation
//! is needed for so little.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use common::Host;
use nix::sys::termios::{Termios, tcgetattr};

/// `mov dx, 0x3f8; mov al, 'k'; out dx, al; mov al, '\n'; out dx, al`
const HELLO: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'k', 0xee, 0xb0, b'\n', 0xee];
/// `mov al, 0xfe; out 0x64, al; hlt`: the keyboard controller's reset.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4];
/// `jmp $`
const SPIN: &[u8] = &[0xeb, 0xfe];

/// A host with a slot that runs `code`, or nothing where KVM cannot be used.
fn host(code: &[&[u8]]) -> Option<Host> {
    if !common::kvm_opens() {
        return None;
    }
    let host = Host::with_kernel(&code.concat());
    host.write(
        "etc/slots/slot1.toml",
        "net = []\n[data]\nenabled = false\n[machine]\nmemory = 64\n",
    );
    Some(host)
}

const RUN: [&str; 3] = ["run", "slot1", "--ignore-cpu-check"];

/// Starts the slot and waits for its first line.
fn start(host: &Host) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = host
        .command(&RUN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    if line != "k\n" {
        let mut error = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut error)
            .unwrap();
        panic!("expected the guest's line, found {line:?} and {error}");
    }
    (child, output)
}

#[test]
fn a_guest_that_resets_ends_with_10() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let ended = host.run(&RUN);
    assert_eq!(ended.code, Some(10), "{ended:?}");
    assert_eq!(ended.stdout, "k\n");
    assert_eq!(ended.stderr, "slot1: the guest asked for a reboot\n");
    assert_eq!(host.files("run/slot1"), ["last-boot.json", "lock"]);
}

#[test]
fn phases_are_printed_when_the_guest_is_done() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let ended = host.run(&[&RUN[..], &["--phases"]].concat());
    for phase in [
        "exec",
        "config",
        "vm created",
        "kernel loaded",
        "vcpu run",
        "first serial byte",
    ] {
        assert!(
            ended.stdout.contains(phase),
            "{phase} is missing: {ended:?}"
        );
    }
    let ended = host.run(&[&RUN[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(json["outcome"], "reboot");
    let times: Vec<u64> = json["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stamp| stamp["at_us"].as_u64().unwrap())
        .collect();
    assert!(times.len() > 6 && times.is_sorted(), "{times:?}");
}

#[test]
fn a_running_slot_can_be_asked_paused_and_stopped() {
    let Some(host) = host(&[HELLO, SPIN]) else {
        return;
    };
    let (mut child, _output) = start(&host);
    let state = || {
        let status = host.run(&["status", "slot1", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        assert_eq!(json["pid"], child.id());
        json["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(), "running");
    assert_eq!(host.run(&["pause", "slot1"]).code, Some(0));
    assert_eq!(state(), "paused");
    host.run(&["pause", "slot1"])
        .failed_with(1, "slot1 refused PUT /v1/vm/pause: ");
    assert_eq!(host.run(&["resume", "slot1"]).code, Some(0));
    assert_eq!(state(), "running");
    assert!(host.run(&["list"]).stdout.contains("running"));
    let phases = host.run(&["status", "slot1", "--phases"]);
    assert!(phases.stdout.contains("vcpu run"), "{phases:?}");

    host.run(&RUN).failed_with(
        32,
        &format!(
            "is locked by the running slot slot1 (process {})",
            child.id()
        ),
    );

    // The guest does not listen to its power button.
    assert_eq!(
        host.run(&["stop", "slot1", "--timeout", "1"]).code,
        Some(22)
    );
    assert_eq!(child.wait().unwrap().code(), Some(22));
    host.run(&["status", "slot1"])
        .failed_with(1, "slot1 is not running");
}

#[test]
fn a_second_sigterm_stops_hard() {
    use nix::sys::signal::{Signal, kill};

    let Some(host) = host(&[HELLO, SPIN]) else {
        return;
    };
    let (mut child, _output) = start(&host);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    // The first one has been taken once the machine says so; two pending ones would be one.
    let stopping = || host.run(&["status", "slot1"]).stdout.contains("stopping");
    assert!(
        (0..200).any(|_| stopping()),
        "the machine never said that it is stopping"
    );
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(22));
}

#[test]
fn a_console_shows_what_was_said_before_it_came() {
    let Some(host) = host(&[HELLO, SPIN]) else {
        return;
    };
    let (mut child, _output) = start(&host);
    let mut console = host
        .command(&["console", "slot1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 2];
    console
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(&said, b"k\n");
    let mut raw = UnixStream::connect(host.path("run/slot1/console.sock")).unwrap();
    raw.write_all(b"typed").unwrap();
    raw.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"k\n");
    assert_eq!(
        host.run(&["stop", "slot1", "--timeout", "0"]).code,
        Some(22)
    );
    assert_eq!(child.wait().unwrap().code(), Some(22));
    // The end of the guest is the end of the console.
    assert_eq!(console.wait().unwrap().code(), Some(0));
}

#[test]
fn a_console_of_its_own_brings_the_terminal_back() {
    let Some(host) = host(&[HELLO, SPIN]) else {
        return;
    };
    let (mut screen, terminal, mut child) = start_on_terminal(&host);
    let before = screen.before.clone();
    screen.see("k\n");
    assert_ne!(tcgetattr(&terminal).unwrap(), before);
    screen.master.write_all(b"\x01x").unwrap();
    screen.see("Detached; the guest goes on");
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
    assert!(host.run(&["status", "slot1"]).stdout.contains("running"));
    assert_eq!(
        host.run(&["stop", "slot1", "--timeout", "0"]).code,
        Some(22)
    );
    assert_eq!(child.wait().unwrap().code(), Some(22));
}

#[test]
fn the_end_of_the_guest_finds_the_terminal_as_it_was() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let (mut screen, terminal, mut child) = start_on_terminal(&host);
    screen.see("asked for a reboot");
    assert_eq!(child.wait().unwrap().code(), Some(10));
    assert_eq!(tcgetattr(&terminal).unwrap(), screen.before);
}

struct Screen {
    master: std::fs::File,
    before: Termios,
}

impl Screen {
    /// Reads until `text` appears.
    fn see(&mut self, text: &str) {
        let mut seen = Vec::new();
        let mut buffer = [0; 256];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = self.master.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
        }
    }
}

fn start_on_terminal(host: &Host) -> (Screen, std::os::fd::OwnedFd, Child) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let arguments = [&RUN[..], &["--console"]].concat();
    let child = host
        .command(&arguments)
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    let master = std::fs::File::from(pty.master);
    (Screen { master, before }, pty.slave, child)
}
