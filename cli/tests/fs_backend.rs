//! A backend in a process of its own, asked over vhost-user as a machine would.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use fs_backend::Spawned;
use fs_backend::abi::entry::EntryOut;
use fs_backend::abi::opcode::Opcode;
use fs_backend::testing::{Frontend, Notification, Reads};

const ROOT: u64 = 1;
const EROFS: i32 = 30;

/// A share and a backend that serves it.
struct Share {
    directory: tempfile::TempDir,
    backend: Spawned,
}

impl Share {
    fn serve(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("share")).unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        fs::write(directory.path().join("share/file"), "data of the file").unwrap();
        let source = directory.path().join("share");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_slotvmm"));
        let mut arguments = vec!["fs-backend", "--fd", "0", "--source"];
        arguments.push(source.to_str().unwrap());
        arguments.extend(options);
        let backend = fs_backend::spawn(&program, arguments, directory.path()).unwrap();
        Self { directory, backend }
    }

    fn frontend(&self) -> Frontend {
        self.frontend_with(Notification::Always, Reads::Wait)
    }

    fn frontend_with(&self, notification: Notification, reads: Reads) -> Frontend {
        let connection = self.backend.connection.try_clone().unwrap();
        Frontend::with(connection, notification, reads).unwrap()
    }

    /// Closes the connection and waits for the process; its exit code.
    fn end(mut self) -> Option<i32> {
        self.backend
            .connection
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
        self.backend.child.wait().unwrap().code()
    }
}

fn ask(frontend: &mut Frontend, opcode: Opcode, node: u64, body: &[u8]) -> Vec<u8> {
    let reply = frontend.ask(opcode as u32, node, body, 1 << 20).unwrap();
    reply.unwrap_or_else(|error| panic!("{opcode:?}: {error}"))
}

fn lookup(frontend: &mut Frontend, name: &[u8]) -> EntryOut {
    let reply = ask(frontend, Opcode::Lookup, ROOT, name);
    zerocopy::FromBytes::read_from_bytes(&reply).unwrap()
}

fn read(frontend: &mut Frontend, node: u64) -> Vec<u8> {
    let mut body = [0; 40];
    body[16..20].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    ask(frontend, Opcode::Read, node, &body)
}

#[test]
fn every_sandbox_serves_and_ends_with_its_frontend() {
    for sandbox in ["namespace", "landlock", "none"] {
        let share = Share::serve(&["--sandbox", sandbox]);
        let mut frontend = share.frontend();
        let file = lookup(&mut frontend, b"file\0").nodeid;
        assert_eq!(read(&mut frontend, file), b"data of the file", "{sandbox}");
        let refused = frontend.ask(16, file, &[0; 40], 100).unwrap();
        assert_eq!(refused.unwrap_err().raw_os_error(), EROFS);
        drop(frontend);
        assert_eq!(share.end(), Some(0), "{sandbox}");
    }
}

/// Files of `/proc` about the process that serves: the child of the one that was spawned.
fn serving(pid: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_process_that_serves_has_nothing_to_lose() {
    let share = Share::serve(&[]);
    let mut frontend = share.frontend();
    lookup(&mut frontend, b"file\0");
    let pid = serving(share.backend.child.id());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let its = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(own(namespace), its(namespace), "{namespace}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / ro,nosuid,nodev,noexec"), "{mounts}");
    let root = format!("/proc/{pid}/root");
    assert_eq!(
        fs::read(Path::new(&root).join("file")).unwrap(),
        b"data of the file"
    );
    assert!(!Path::new(&root).join("secret").exists());
    drop(frontend);
    share.end();
}

#[test]
fn a_backend_whose_frontend_is_gone_before_it_begins_ends() {
    let Share { directory, backend } = Share::serve(&[]);
    let Spawned {
        mut child,
        connection,
    } = backend;
    drop(connection);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(directory);
}

#[test]
fn a_killed_backend_breaks_the_connection_at_once() {
    let mut share = Share::serve(&[]);
    let mut frontend = share.frontend();
    lookup(&mut frontend, b"file\0");
    share.backend.child.kill().unwrap();
    let status = share.backend.child.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    // Reading sees the end: whoever served is gone as well.
    let mut connection = &share.backend.connection;
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut connection, &mut rest).unwrap();
}

#[test]
fn garbage_on_the_socket_ends_the_backend_and_nothing_else() {
    let mut share = Share::serve(&[]);
    share.backend.connection.write_all(&[0xff; 4096]).unwrap();
    let code = share.backend.child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
}

#[test]
fn garbage_in_a_queue_is_given_back() {
    let share = Share::serve(&[]);
    let mut frontend = share.frontend();
    for queue in [0, 1] {
        for message in [&b""[..], b"x", &[0; 39], &[0xff; 40], &[0xff; 60000]] {
            for room in [0, 1, 15, 16, 4096] {
                if message.is_empty() && room == 0 {
                    continue;
                }
                let reply = frontend.exchange(queue, message, room).unwrap();
                assert!(reply.is_empty() || reply.len() == 16, "{reply:?}");
            }
        }
    }
    let file = lookup(&mut frontend, b"file\0").nodeid;
    assert_eq!(read(&mut frontend, file), b"data of the file");
    drop(frontend);
    assert_eq!(share.end(), Some(0));
}

#[test]
fn twenty_thousand_files_are_read_with_a_thousand_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..20_000 {
        fs::write(
            directory.path().join(number.to_string()),
            number.to_string(),
        )
        .unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let script = format!(
        "ulimit -n 1024; exec {} fs-backend --fd 0 --source {}",
        env!("CARGO_BIN_EXE_slotvmm"),
        directory.path().display()
    );
    let shell = Path::new("/bin/sh");
    let mut backend = fs_backend::spawn(shell, ["-c", &script], place.path()).unwrap();
    let mut frontend = Frontend::new(backend.connection.try_clone().unwrap()).unwrap();
    for number in 0..20_000 {
        let name = format!("{number}\0");
        let file = lookup(&mut frontend, name.as_bytes()).nodeid;
        let data = read(&mut frontend, file);
        assert_eq!(data, number.to_string().as_bytes());
    }
    let pid = serving(backend.child.id());
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open <= 1024, "{open} descriptors");
    drop(frontend);
    backend
        .connection
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    backend.child.wait().unwrap();
}

#[test]
fn a_user_without_privileges_shares_a_store_of_root() {
    let directory = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), everyone).unwrap();
    fs::write(directory.path().join("file"), "data").unwrap();
    if !is_of_root(&directory) {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let program = place.path().join("slotvmm");
    // By another process: a child that is being forked here would hold a copy that we write open, and
    // nobody could execute that.
    let ours = env!("CARGO_BIN_EXE_slotvmm");
    let copied = Command::new("cp").arg(ours).arg(&program).status().unwrap();
    assert!(copied.success());
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.path(), everyone).unwrap();
    let source = directory.path().to_str().unwrap();
    let arguments = [
        "--reuid=12345",
        "--regid=12345",
        "--clear-groups",
        program.to_str().unwrap(),
        "fs-backend",
        "--fd",
        "0",
        "--source",
        source,
    ];
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        eprintln!("skipped: setpriv is not there");
        return;
    }
    let mut backend = fs_backend::spawn(setpriv, arguments, place.path()).unwrap();
    let mut frontend = Frontend::new(backend.connection.try_clone().unwrap()).unwrap();
    let entry = lookup(&mut frontend, b"file\0");
    assert_eq!((entry.attr.uid, entry.attr.gid), (0, 0));
    assert_eq!(read(&mut frontend, entry.nodeid), b"data");
    drop(frontend);
    backend
        .connection
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    assert_eq!(backend.child.wait().unwrap().code(), Some(0));
}

/// Whether files that are made here belong to root.
fn is_of_root(directory: &tempfile::TempDir) -> bool {
    let metadata = fs::metadata(directory.path()).unwrap();
    std::os::unix::fs::MetadataExt::uid(&metadata) == 0
}

#[test]
fn a_socket_is_made_in_place_of_an_old_one_and_of_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    fs::write(&socket, "precious").unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotvmm"));
        command.args(["fs-backend", "--source", "/", "--socket"]);
        command.arg(&socket);
        command
    };
    let ended = run().output().unwrap();
    assert_eq!(ended.status.code(), Some(31));
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
    fs::remove_file(&socket).unwrap();
    for _ in 0..2 {
        let mut child = run().spawn().unwrap();
        let connection = loop {
            match UnixStream::connect(&socket) {
                Ok(connection) => break connection,
                Err(_) => assert!(child.try_wait().unwrap().is_none()),
            }
        };
        let mut frontend = Frontend::new(connection).unwrap();
        assert_ne!(lookup(&mut frontend, b"etc\0").nodeid, 0);
        drop(frontend);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn no_request_is_missed_by_a_backend_that_looks_for_them() {
    for (notification, reads) in [
        (Notification::Flags, Reads::Wait),
        (Notification::Flags, Reads::Return),
        (Notification::EventIndex, Reads::Wait),
        (Notification::EventIndex, Reads::Return),
    ] {
        for poll in ["off", "auto", "10000"] {
            let share = Share::serve(&["--poll", poll]);
            let mut frontend = share.frontend_with(notification, reads);
            let file = lookup(&mut frontend, b"file\0").nodeid;
            // The next one comes at any time around the end of the last look.
            let mut pause = 1_u32;
            for _ in 0..2000 {
                pause = pause.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                for _ in 0..pause >> 22 {
                    std::hint::spin_loop();
                }
                assert_eq!(read(&mut frontend, file), b"data of the file");
            }
            println!(
                "{notification:?}, --poll {poll}: {} kicks for 2001 requests",
                frontend.kicks(1)
            );
            drop(frontend);
            assert_eq!(share.end(), Some(0), "{notification:?}, {poll}");
        }
    }
}

#[test]
fn kicks_are_noticed_whatever_kind_they_are_and_however_often_a_queue_is_stopped() {
    const REQUESTS: u64 = 100;
    let share = Share::serve(&["--poll", "off"]);
    let mut frontend = share.frontend();
    let file = lookup(&mut frontend, b"file\0").nodeid;
    for round in 0..40 {
        let reads = [Reads::Wait, Reads::Return][round / 2 % 2];
        if round % 2 == 0 {
            frontend.serve_anew(1, reads).unwrap();
        } else {
            frontend.enable(1, false).unwrap();
            frontend.enable(1, true).unwrap();
        }
        for _ in 0..REQUESTS {
            assert_eq!(read(&mut frontend, file), b"data of the file");
        }
        // Where a read waits, that is the backend's.
        if reads == Reads::Return {
            let unread = frontend.unread_kicks(1);
            assert!(unread >= REQUESTS, "round {round}: {unread} unread");
        }
    }
    drop(frontend);
    assert_eq!(share.end(), Some(0));
}

#[test]
fn backend_that_waits_for_kicks_ends_with_its_frontend() {
    for reads in [Reads::Wait, Reads::Return] {
        for paused in [false, true] {
            let share = Share::serve(&["--poll", "off"]);
            let mut frontend = share.frontend_with(Notification::Flags, reads);
            lookup(&mut frontend, b"file\0");
            if paused {
                frontend.enable(1, false).unwrap();
            }
            drop(frontend);
            assert_eq!(share.end(), Some(0), "{reads:?}, paused: {paused}");
        }
    }
}

/// How often each thread of a process was given a processor; none while one of them has it.
fn turns(pid: &str) -> Option<Vec<String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .map(|thread| {
            let thread = thread.unwrap().path();
            // In this order: one that sleeps now has its final figures.
            let stat = fs::read_to_string(thread.join("stat")).unwrap();
            let schedule = fs::read_to_string(thread.join("schedstat")).unwrap();
            stat.contains(") S ").then_some(schedule)
        })
        .collect()
}

#[test]
fn idle_backend_takes_no_processor() {
    let share = Share::serve(&["--poll", "10000"]);
    let mut frontend = share.frontend();
    let file = lookup(&mut frontend, b"file\0").nodeid;
    for _ in 0..1000 {
        read(&mut frontend, file);
    }
    let pid = serving(share.backend.child.id());
    let before = loop {
        match turns(&pid) {
            Some(turns) => break turns,
            None => thread::yield_now(),
        }
    };
    // Not for anything to happen: nothing does.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(turns(&pid), Some(before));
    drop(frontend);
    assert_eq!(share.end(), Some(0));
}
