//! The window of a share, between the device of a machine and backends as they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod driver;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use devices::device::{SharedMemory, VirtioDevice as _};
use devices::fs::window::{CELL_BYTES, MIN_WINDOW_BYTES, Window};
use devices::fs::{Fs, OnExit};
use devices::registry::BuildError;
use devices::state::StateError;
use driver::{Machine, ROOT, Starter, config};
use fs_backend::abi::mapping::{RemoveMappingIn, RemoveMappingOne, SETUP_READ, SetupMappingIn};
use fs_backend::abi::opcode::Opcode;
use zerocopy::IntoBytes as _;

const ADDRESS: u64 = 4 << 30;
const MIB: u64 = MIN_WINDOW_BYTES >> 20;

fn window() -> Arc<Window> {
    Arc::new(Window::reserve(MIN_WINDOW_BYTES, ADDRESS).unwrap())
}

/// A file of four cells, each of which begins with its number and a mark.
fn plant(source: &Path, name: &str, mark: u8) {
    let file = File::create(source.join(name)).unwrap();
    file.set_len(4 * CELL_BYTES).unwrap();
    for cell in 0..4 {
        file.write_all_at(&[mark, cell], u64::from(cell) * CELL_BYTES)
            .unwrap();
    }
}

/// What a guest sees at the beginning of a cell.
fn seen(window: &Window, cell: u64) -> [u8; 2] {
    let mut memory = File::open("/proc/self/mem").unwrap();
    let address = window.range().start as u64 + cell * CELL_BYTES;
    memory.seek(SeekFrom::Start(address)).unwrap();
    let mut bytes = [0; 2];
    memory.read_exact(&mut bytes).unwrap();
    bytes
}

fn map(machine: &mut Machine, node: u64, from: u64, to: u64) -> Result<Vec<u8>, i32> {
    let asked = SetupMappingIn {
        fh: u64::MAX,
        foffset: from * CELL_BYTES,
        len: CELL_BYTES,
        flags: SETUP_READ,
        moffset: to * CELL_BYTES,
    };
    machine.ask(Opcode::SetupMapping, node, asked.as_bytes())
}

#[test]
fn files_are_mapped_by_one_backend_after_the_other_until_the_session_ends() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir(&source).unwrap();
    plant(&source, "a", 10);
    plant(&source, "b", 20);
    let window = window();
    let mut machine = Machine::with_window(&source, window.clone(), MIB);
    let region = SharedMemory {
        id: 0,
        address: ADDRESS,
        bytes: MIN_WINDOW_BYTES,
    };
    assert_eq!(machine.device.spec().shared_memory, Some(region));
    machine.init();
    let (a, b) = (machine.lookup(ROOT, "a"), machine.lookup(ROOT, "b"));
    map(&mut machine, a, 3, 0).unwrap();
    map(&mut machine, b, 1, 7).unwrap();
    assert_eq!((seen(&window, 0), seen(&window, 7)), ([10, 3], [20, 1]));
    assert_eq!(seen(&window, 1), [0, 0]);
    map(&mut machine, b, 2, 0).unwrap();
    assert_eq!(seen(&window, 0), [20, 2], "in the place of the other");
    assert_eq!(
        map(&mut machine, b, 0, 8),
        Err(libc_einval()),
        "no such cell"
    );

    machine.kill_backend();
    // It knows nothing of the other's files: the driver looks them up again.
    let a = machine.lookup(ROOT, "a");
    assert_eq!((seen(&window, 0), seen(&window, 7)), ([20, 2], [20, 1]));
    map(&mut machine, a, 0, 3).unwrap();
    assert_eq!(seen(&window, 3), [10, 0]);
    let one = RemoveMappingOne {
        moffset: 7 * CELL_BYTES,
        len: CELL_BYTES,
    };
    let body = [RemoveMappingIn { count: 1 }.as_bytes(), one.as_bytes()].concat();
    machine.ask(Opcode::RemoveMapping, a, &body).unwrap();
    assert_eq!(seen(&window, 7), [0, 0]);

    machine.device.stop().unwrap();
    let saved = machine.device.save();
    assert!(matches!(saved, Err(StateError::Mapped { .. })), "{saved:?}");
    machine.resume();
    machine.init();
    assert!(window.is_empty(), "another session");
    let a = machine.lookup(ROOT, "a");
    map(&mut machine, a, 0, 1).unwrap();
    machine.ask(Opcode::Destroy, 0, &[]).unwrap();
    assert!(window.is_empty(), "no session");
    machine.end();
}

#[test]
fn what_was_mapped_is_there_when_another_machine_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir(&source).unwrap();
    let names = ["kept", "removed", "replaced", "shorter", "unmapped"];
    for (name, mark) in names.into_iter().zip((10..).step_by(10)) {
        plant(&source, name, mark);
    }
    let first = window();
    let mut machine = Machine::with_window(&source, first.clone(), MIB);
    machine.init();
    let nodes = names.map(|name| machine.lookup(ROOT, name));
    // Two pieces that belong together, one of which is replaced by another file's.
    map(&mut machine, nodes[0], 1, 0).unwrap();
    map(&mut machine, nodes[0], 2, 1).unwrap();
    map(&mut machine, nodes[0], 3, 2).unwrap();
    map(&mut machine, nodes[1], 0, 2).unwrap();
    map(&mut machine, nodes[2], 0, 3).unwrap();
    map(&mut machine, nodes[3], 0, 4).unwrap();
    map(&mut machine, nodes[3], 1, 5).unwrap();
    map(&mut machine, nodes[4], 0, 6).unwrap();
    let one = RemoveMappingOne {
        moffset: 6 * CELL_BYTES,
        len: CELL_BYTES,
    };
    let body = [RemoveMappingIn { count: 1 }.as_bytes(), one.as_bytes()].concat();
    machine.ask(Opcode::RemoveMapping, nodes[4], &body).unwrap();
    let saved = machine.save();

    fs::remove_file(source.join("removed")).unwrap();
    plant(&source, "new", 90);
    fs::rename(source.join("new"), source.join("replaced")).unwrap();
    let shorter = File::options().write(true).open(source.join("shorter"));
    shorter.unwrap().set_len(CELL_BYTES).unwrap();
    let second = window();
    let mut machine = Machine::with_window_and(&source, second.clone(), MIB, Some(saved));
    // Before the guest runs: its driver asks for nothing that it has.
    let expected = [[10, 1], [10, 2], [0, 0], [0, 0], [40, 0], [0, 0], [0, 0]];
    for (cell, expected) in (0..).zip(expected) {
        assert_eq!(seen(&second, cell), expected, "{cell}");
    }
    map(&mut machine, nodes[0], 0, 7).unwrap();
    let again = machine.save();
    let third = window();
    let mut machine = Machine::with_window_and(&source, third.clone(), MIB, Some(again));
    let kept = [0, 1, 4, 7].map(|cell| seen(&third, cell));
    assert_eq!(kept, [[10, 1], [10, 2], [40, 0], [10, 0]]);
    machine.init();
    assert!(third.is_empty(), "another session");
    machine.end();
}

#[test]
fn state_with_mappings_is_refused_without_the_same_window() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir(&source).unwrap();
    plant(&source, "a", 10);
    let mut machine = Machine::with_window(&source, window(), MIB);
    machine.init();
    let a = machine.lookup(ROOT, "a");
    map(&mut machine, a, 0, 7).unwrap();
    let saved = machine.save();
    let starter = Starter::new(&source);
    let refused = Fs::build(
        &config(OnExit::Fail),
        Box::new(starter.clone()),
        Some(saved),
    );
    assert!(matches!(
        refused.map(drop),
        Err(BuildError::State {
            source: StateError::NotRestored { .. },
            ..
        })
    ));
    starter.wait();
}

#[test]
fn backend_that_knows_another_window_or_none_leaves_the_driver_without_one() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir(&source).unwrap();
    let without = Machine::start(&source, None);
    assert_eq!(without.device.spec().shared_memory, None);
    without.end();
    let mut other = Machine::with_window(&source, window(), 2 * MIB);
    assert_eq!(other.device.spec().shared_memory, None);
    other.init();
    other.end();
}

fn libc_einval() -> i32 {
    rustix::io::Errno::INVAL.raw_os_error()
}
