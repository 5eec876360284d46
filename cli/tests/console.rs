//! `console` on a terminal and as a pipe, against a socket that a test serves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};

use common::Host;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A slot's console socket, served by the test.
fn serve(host: &Host) -> UnixListener {
    std::fs::create_dir_all(host.path("run/slot1")).unwrap();
    UnixListener::bind(host.path("run/slot1/console.sock")).unwrap()
}

/// A terminal with `slotvmm console slot1` on it.
struct Attached {
    host: Host,
    keyboard: File,
    terminal: OwnedFd,
    before: Termios,
    guest: UnixStream,
    child: Child,
}

impl Attached {
    /// Attaches, and returns once the terminal is in use.
    fn new() -> Self {
        let host = Host::new();
        let listener = serve(&host);
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = host
            .command(&["console", "slot1"])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let (guest, _) = listener.accept().unwrap();
        let keyboard = File::from(pty.master);
        let mut attached = Self {
            host,
            keyboard,
            terminal: pty.slave,
            before,
            guest,
            child,
        };
        // What the guest says arrives only once the terminal is raw.
        attached.guest.write_all(b"ready").unwrap();
        attached.see("ready");
        assert!(!attached.is_cooked());
        attached
    }

    /// Reads the screen until `text` appears.
    fn see(&mut self, text: &str) {
        let mut seen = Vec::new();
        let mut buffer = [0; 256];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = self.keyboard.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
        }
    }

    fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut heard = vec![0; count];
        self.guest.read_exact(&mut heard).unwrap();
        heard
    }

    fn is_cooked(&self) -> bool {
        let now = tcgetattr(&self.terminal).unwrap();
        now.local_flags
            .contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    /// Waits for the end, and checks that the terminal is exactly as it was.
    fn ended_with(mut self, code: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after, self.before);
        drop(self.host);
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }
}

#[test]
fn keys_reach_the_guest_and_the_escape_does_not() {
    let mut attached = Attached::new();
    attached
        .keyboard
        .write_all(b"ls\r\x03\x01\x01\x01cx")
        .unwrap();
    assert_eq!(attached.hear(8), b"ls\r\x03\x01\x01cx");
    attached.keyboard.write_all(b"\x01x").unwrap();
    attached.see("Detached from slot1");
    assert_eq!(attached.guest.read(&mut [0]).unwrap(), 0);
    attached.ended_with(0);
}

#[test]
fn the_end_of_the_guest_brings_the_terminal_back() {
    let mut attached = Attached::new();
    attached.guest.shutdown(std::net::Shutdown::Both).unwrap();
    attached.see("slot1 has ended");
    attached.ended_with(0);
}

#[test]
fn a_signal_brings_the_terminal_back() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ] {
        let attached = Attached::new();
        kill(attached.pid(), signal).unwrap();
        attached.ended_with(1);
    }
}

#[test]
fn a_stopped_console_leaves_a_usable_terminal() {
    let mut attached = Attached::new();
    kill(attached.pid(), Signal::SIGTSTP).unwrap();
    let stopped = waitpid(attached.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(
        stopped,
        WaitStatus::Stopped(attached.pid(), Signal::SIGSTOP)
    );
    assert!(attached.is_cooked());
    kill(attached.pid(), Signal::SIGCONT).unwrap();
    attached.guest.write_all(b"again").unwrap();
    attached.see("again");
    assert!(!attached.is_cooked());
    attached.keyboard.write_all(b"\x01x").unwrap();
    attached.see("Detached");
    attached.ended_with(0);
}

#[test]
fn a_pipe_is_passed_on_as_it_is() {
    let host = Host::new();
    let listener = serve(&host);
    let mut child = host
        .command(&["console", "slot1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut guest, _) = listener.accept().unwrap();
    // Ctrl-A x among data is data, and the end of the input is not the end of the output.
    let sent: Vec<u8> = (0..=255u8).cycle().take(100_000).chain(*b"\x01x").collect();
    let mut input = child.stdin.take().unwrap();
    let typed = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(&typed));
    let mut heard = vec![0; sent.len()];
    guest.read_exact(&mut heard).unwrap();
    assert!(heard == sent);
    writer.join().unwrap().unwrap();
    guest.write_all(&[0, 255, b'\n']).unwrap();
    drop(guest);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), ended.stdout.as_slice()),
        (Some(0), &[0, 255, b'\n'][..])
    );
    assert!(
        ended.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}
