//! What a guest would see, read through `/proc/self/mem`: an access there that finds no memory is an
//! error instead of a signal.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use tempfile::TempDir;

use super::*;

const CELLS: u64 = MIN_WINDOW_BYTES / CELL_BYTES;

/// Cells of each file.
const LENGTH: u64 = 3;

/// How many files there are.
const FILES: u8 = 3;

fn window() -> Window {
    Window::reserve(MIN_WINDOW_BYTES, 1 << 32).unwrap()
}

/// A hole with a mark at the beginning of each cell; opened as a backend does.
fn file(directory: &Path, name: u8) -> File {
    let path = directory.join(name.to_string());
    let file = File::create(&path).unwrap();
    file.set_len(LENGTH * CELL_BYTES).unwrap();
    for cell in 0..LENGTH {
        file.write_all_at(&mark(name, cell), cell * CELL_BYTES)
            .unwrap();
    }
    File::open(path).unwrap()
}

fn mark(name: u8, cell: u64) -> [u8; 2] {
    [name + 1, u8::try_from(cell + 1).unwrap()]
}

/// What is at `offset` of the window; nothing where there is no memory.
fn seen<const N: usize>(window: &Window, offset: u64) -> Option<[u8; N]> {
    let mut memory = File::open("/proc/self/mem").unwrap();
    let address = window.range().start as u64 + offset;
    memory.seek(SeekFrom::Start(address)).unwrap();
    let mut bytes = [0; N];
    memory.read_exact(&mut bytes).ok().map(|()| bytes)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Map {
        at: u64,
        cells: u64,
        name: u8,
        from: u64,
    },
    Unmap {
        at: u64,
        cells: u64,
    },
    Truncate {
        name: u8,
        cells: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..CELLS + 2, 0..4_u64);
    prop_oneof![
        4 => (place(), 0..FILES, 0..LENGTH + 1)
            .prop_map(|((at, cells), name, from)| Step::Map { at, cells, name, from }),
        2 => place().prop_map(|(at, cells)| Step::Unmap { at, cells }),
        1 => (0..FILES, prop_oneof![Just(0), 1..=LENGTH])
            .prop_map(|(name, cells)| Step::Truncate { name, cells }),
    ]
}

/// What the window should show.
#[derive(Clone)]
struct Model {
    cells: Vec<Option<(u8, u64)>>,
    /// Cells of each file.
    lengths: Vec<u64>,
}

impl Model {
    /// Does the same; whether it can be done.
    fn take(&mut self, step: Step) -> bool {
        let fits = |at: u64, cells: u64| cells > 0 && at + cells <= CELLS;
        match step {
            Step::Map {
                at,
                cells,
                name,
                from,
            } => {
                let possible = fits(at, cells) && from < self.lengths[usize::from(name)];
                for cell in 0..if possible { cells } else { 0 } {
                    self.cells[usize::try_from(at + cell).unwrap()] = Some((name, from + cell));
                }
                possible
            }
            Step::Unmap { at, cells } => {
                for cell in 0..if fits(at, cells) { cells } else { 0 } {
                    self.cells[usize::try_from(at + cell).unwrap()] = None;
                }
                fits(at, cells)
            }
            Step::Truncate { name, cells } => {
                let length = &mut self.lengths[usize::from(name)];
                // Never longer: what was cut from a mapping stays so.
                *length = (*length).min(cells);
                true
            }
        }
    }

    fn expected(&self, cell: usize) -> [u8; 2] {
        match self.cells[cell] {
            Some((name, part)) if part < self.lengths[usize::from(name)] => mark(name, part),
            _ => [0; 2],
        }
    }
}

fn run(steps: &[Step]) {
    let directory = TempDir::new().unwrap();
    let files: Vec<File> = (0..FILES)
        .map(|name| file(directory.path(), name))
        .collect();
    let window = window();
    let mut model = Model {
        cells: vec![None; usize::try_from(CELLS).unwrap()],
        lengths: vec![LENGTH; usize::from(FILES)],
    };
    for &step in steps {
        let done = match step {
            Step::Map {
                at,
                cells,
                name,
                from,
            } => {
                let file = files[usize::from(name)].try_clone().unwrap();
                let (at, len, from) = (at * CELL_BYTES, cells * CELL_BYTES, from * CELL_BYTES);
                window.map(at, len, file, from).is_ok()
            }
            Step::Unmap { at, cells } => window.unmap(at * CELL_BYTES, cells * CELL_BYTES).is_ok(),
            Step::Truncate { name, cells } => {
                let cells = cells.min(model.lengths[usize::from(name)]);
                let path = directory.path().join(name.to_string());
                let file = File::options().write(true).open(path).unwrap();
                file.set_len(cells * CELL_BYTES).unwrap();
                true
            }
        };
        assert_eq!(done, model.take(step), "{step:?}");
        window.repair().unwrap();
        for cell in 0..model.cells.len() {
            let offset = bytes_of(cell).start as u64;
            assert_eq!(
                seen(&window, offset),
                Some(model.expected(cell)),
                "{cell} after {step:?}"
            );
            let last = seen::<1>(&window, offset + CELL_BYTES - 1);
            assert_eq!(last, Some([0]), "the end of {cell} after {step:?}");
        }
    }
    assert_eq!(window.is_empty(), model.cells.iter().all(Option::is_none));
}

proptest! {
    #[test]
    fn any_steps_show_what_was_mapped_last(steps in prop::collection::vec(step(), 1..20)) {
        run(&steps);
    }

    #[test]
    fn places_that_are_none_change_nothing(offset in any::<u64>(), len in any::<u64>(), from in any::<u64>()) {
        let directory = TempDir::new().unwrap();
        let window = window();
        let whole = |bytes: u64| bytes.is_multiple_of(CELL_BYTES);
        let fits = whole(offset) && whole(len) && len > 0
            && offset.checked_add(len).is_some_and(|end| end <= window.bytes());
        let mapped = window.map(offset, len, file(directory.path(), 0), from);
        assert_eq!(mapped.is_ok(), fits && whole(from) && from < LENGTH * CELL_BYTES);
        assert_eq!(window.unmap(offset, len).is_ok(), fits);
        assert!(window.is_empty());
    }
}

#[test]
fn file_that_ends_within_a_cell_is_shown_to_the_end_of_its_page() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, [7; 5000]).unwrap();
    let window = window();
    window
        .map(0, CELL_BYTES, File::open(path).unwrap(), 0)
        .unwrap();
    assert_eq!(seen(&window, 4999), Some([7, 0]));
    assert_eq!(seen(&window, 8191), None::<[u8; 2]>, "beyond the file");
    assert_eq!(window.repair().unwrap(), 1);
    assert_eq!(seen(&window, 8191), Some([0; 2]));
    assert_eq!(seen(&window, 4999), Some([7, 0]));
    assert_eq!(window.repair().unwrap(), 0, "once is enough");
}

#[test]
fn only_regular_files_that_are_open_for_reading_alone_are_mapped() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("0");
    drop(file(directory.path(), 0));
    let window = window();
    let options = |options: &mut std::fs::OpenOptions| options.open(&path).unwrap();
    for unfit in [
        options(File::options().read(true).write(true)),
        options(File::options().write(true)),
        File::open(directory.path()).unwrap(),
        File::open("/dev/zero").unwrap(),
    ] {
        let mapped = window.map(0, CELL_BYTES, unfit, 0);
        assert!(
            matches!(mapped, Err(WindowError::NotReadOnly)),
            "{mapped:?}"
        );
    }
    assert!(window.is_empty());
}

#[test]
fn one_descriptor_serves_all_mappings_of_a_file() {
    let directory = TempDir::new().unwrap();
    let window = window();
    for cell in 0..LENGTH {
        drop(file(directory.path(), 0));
        let again = File::open(directory.path().join("0")).unwrap();
        window
            .map(cell * CELL_BYTES, CELL_BYTES, again, cell * CELL_BYTES)
            .unwrap();
    }
    let cells = window.lock();
    let held: Vec<_> = cells.iter().flatten().collect();
    assert!(
        held.windows(2)
            .all(|pair| Arc::ptr_eq(&pair[0].file, &pair[1].file))
    );
}

#[test]
fn sizes_out_of_range_are_refused() {
    for bytes in [
        0,
        MIN_WINDOW_BYTES - CELL_BYTES,
        MIN_WINDOW_BYTES + 4096,
        MAX_WINDOW_BYTES + CELL_BYTES,
        u64::MAX,
    ] {
        let reserved = Window::reserve(bytes, 1 << 32);
        assert!(matches!(reserved, Err(WindowError::Size { .. })), "{bytes}");
    }
}
