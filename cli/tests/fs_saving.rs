//! A share that is saved and restored: another process goes on where the first one was stopped,
//! between the device of a machine and backends as they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod driver;

use std::collections::BTreeMap;
use std::fs;

use devices::fs::{Fs, OnExit};
use driver::{Machine, ROOT, Starter, config, read_in};
use fs_backend::abi::opcode::Opcode;

const ESTALE: i32 = 116;

/// A page of the listing of `node` after `offset`: names, and where each ends.
fn page(machine: &mut Machine, node: u64, offset: u64, size: u32) -> Vec<(String, u64)> {
    let page = machine
        .ask(Opcode::Readdir, node, &read_in(offset, size))
        .unwrap();
    let mut rest = page.as_slice();
    let mut names = Vec::new();
    // `fuse_dirent`: inode, offset, length of the name, type, name; padded to eight bytes.
    while let Some((fixed, after)) = rest.split_first_chunk::<24>() {
        let field = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().unwrap());
        let length = usize::try_from(field(16) & 0xffff_ffff).unwrap();
        names.push((
            String::from_utf8(after[..length].to_vec()).unwrap(),
            field(8),
        ));
        rest = after.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    names
}

#[test]
fn files_and_listings_go_on_in_another_process_and_what_changed_is_stale() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir_all(source.join("directory")).unwrap();
    for number in 0..100 {
        let path = source.join(format!("directory/file{number}"));
        fs::write(path, number.to_string()).unwrap();
    }
    for name in ["kept", "unlinked", "replaced", "moved"] {
        fs::write(source.join(name), name).unwrap();
    }
    let mut machine = Machine::start(&source, None);
    machine.init();
    let nodes: BTreeMap<_, _> = ["kept", "unlinked", "replaced", "moved"]
        .map(|name| (name, machine.lookup(ROOT, name)))
        .into();
    let directory = machine.lookup(ROOT, "directory");
    let deep = machine.lookup(directory, "file42");
    for (name, node) in &nodes {
        assert_eq!(machine.read(*node).unwrap(), name.as_bytes());
    }
    // In the middle of a listing.
    let mut names = page(&mut machine, directory, 0, 1024);
    assert!((1..90).contains(&names.len()), "{}", names.len());
    let saved = machine.save();

    fs::remove_file(source.join("unlinked")).unwrap();
    fs::write(source.join("new"), "another").unwrap();
    fs::rename(source.join("new"), source.join("replaced")).unwrap();
    fs::rename(source.join("moved"), source.join("elsewhere")).unwrap();

    // The driver was told nothing: it goes on without another FUSE_INIT.
    let mut machine = Machine::start(&source, Some(saved));
    assert_eq!(machine.read(nodes["kept"]).unwrap(), b"kept");
    assert_eq!(machine.read(deep).unwrap(), b"42");
    for name in ["unlinked", "replaced", "moved"] {
        assert_eq!(machine.read(nodes[name]), Err(ESTALE), "{name}");
    }
    loop {
        let offset = names.last().map_or(0, |(_, offset)| *offset);
        let page = page(&mut machine, directory, offset, 1024);
        if page.is_empty() {
            break;
        }
        names.extend(page);
    }
    let mut names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name != "." && name != "..");
    names.sort_unstable();
    let mut expected: Vec<_> = (0..100).map(|number| format!("file{number}")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "each name once");

    // Names that are looked up again lead to what is there now.
    let replaced = machine.lookup(ROOT, "replaced");
    assert_eq!(machine.read(replaced).unwrap(), b"another");
    let elsewhere = machine.lookup(ROOT, "elsewhere");
    assert_eq!(machine.read(elsewhere).unwrap(), b"moved");

    // And it can be saved once more, with the driver's next session empty of all this.
    let mut machine = Machine::start(&source, Some(machine.save()));
    assert_eq!(machine.read(deep).unwrap(), b"42");
    machine.init();
    assert_eq!(machine.read(deep), Err(ESTALE), "reset keeps nothing");
    machine.save();
}

#[test]
fn state_of_another_program_is_refused_by_the_backend() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("share");
    fs::create_dir(&source).unwrap();
    let mut machine = Machine::start(&source, None);
    machine.init();
    let saved = machine.save();
    // The first bytes are the envelope's, then comes what our backend writes first.
    let at = saved.bytes.windows(8).position(|part| part == b"slotvmFS");
    let mut foreign = saved;
    foreign.bytes[at.unwrap()] ^= 1;
    let starter = Starter::new(&source);
    let refused = Fs::build(
        &config(OnExit::Fail),
        Box::new(starter.clone()),
        Some(foreign),
    );
    let error = refused.map(drop).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        reason.contains("does not go on with the saved state"),
        "{reason}"
    );
    starter.wait();
}
