//! States on their way: whole, in parts, as changes, and damaged.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::tree::{furnish, hidden, tree, write_image};
use super::{Fixture, name};
use crate::transfer::{Export, Landing, TransferError};

fn furnished() -> Fixture {
    let fixture = Fixture::new();
    furnish(fixture.dir.path());
    fixture
}

fn of_snapshot(snapshot: &str, since: Option<&str>, from: u64) -> Export {
    Export::Snapshot {
        snapshot: snapshot.parse().unwrap(),
        since: since.map(name),
        from,
    }
}

fn export(fixture: &Fixture, what: &Export) -> Vec<u8> {
    fixture.store.export(what, Vec::new(), &|_, _| ()).unwrap()
}

fn import(
    fixture: &Fixture,
    state: &str,
    stream: &[u8],
) -> Result<crate::transfer::Imported, TransferError> {
    fixture.store.import(&name(state), stream, &|_, _| ())
}

#[test]
fn state_arrives_bit_identical_and_sparse() {
    let (here, there) = (furnished(), furnished());
    let stream = export(&here, &Export::State(name("web")));
    assert!(stream.len() < 4096, "{} bytes", stream.len());
    let imported = import(&there, "moved", &stream).unwrap();
    assert_eq!(imported.landing, Landing::State);
    let (from, to) = (
        here.path("states/web/data.img"),
        there.path("states/moved/data.img"),
    );
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap());
    let blocks = |path| fs::metadata(path).unwrap().blocks();
    assert_eq!(blocks(from), blocks(to));
    assert!(matches!(
        import(&there, "moved", &stream),
        Err(TransferError::Store(_))
    ));
}

#[test]
fn state_without_an_image_arrives_as_one() {
    let (here, there) = (furnished(), furnished());
    let stream = export(&here, &Export::State(name("spare")));
    import(&there, "moved", &stream).unwrap();
    assert!(there.path("states/moved").is_dir());
    assert!(!there.path("states/moved/data.img").exists());
}

#[test]
fn changes_since_a_common_snapshot_are_enough() {
    let (here, there) = (furnished(), furnished());
    let base = export(&here, &of_snapshot("web@base", None, 0));
    import(&there, "copy", &base).unwrap();
    // One range less, one more, and a longer image.
    write_image(&here.path("states/web/data.img"), 77);
    let image = fs::OpenOptions::new()
        .write(true)
        .open(here.path("states/web/data.img"))
        .unwrap();
    image.set_len(300 << 10).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, &[0; 4096], 96 << 10).unwrap();
    here.store
        .snapshot(&name("web"), &name("later"), &|_, _| ())
        .unwrap();
    let changes = export(&here, &of_snapshot("web@later", Some("base"), 0));
    let error = import(&there, "db", &changes);
    assert!(
        matches!(error, Err(TransferError::NoBase { .. })),
        "{error:?}"
    );
    let imported = import(&there, "copy", &changes).unwrap();
    assert_eq!(imported.landing, Landing::Snapshot);
    let later = fs::read(here.path("states/web/snapshots/later/data.img")).unwrap();
    let arrived = fs::read(there.path("states/copy/snapshots/later/data.img")).unwrap();
    assert!(later == arrived);
    let original = fs::read(here.path("states/web/snapshots/base/data.img")).unwrap();
    assert!(original == fs::read(there.path("states/copy/data.img")).unwrap());
    let empty = export(&here, &of_snapshot("web@later", Some("later"), 0));
    assert!(empty.len() < changes.len());
}

#[test]
fn interrupted_import_goes_on_where_it_broke_off() {
    let (here, there) = (furnished(), furnished());
    // Data that zstd cannot shrink, so that a part of the stream is a part of the image.
    let mut noise = 1_u64;
    let image: Vec<u8> = (0..4 << 20)
        .map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            noise.to_be_bytes()[0]
        })
        .collect();
    fs::write(here.path("states/web/data.img"), &image).unwrap();
    here.store
        .snapshot(&name("web"), &name("big"), &|_, _| ())
        .unwrap();
    let before = tree(there.dir.path());
    let whole = export(&here, &of_snapshot("web@big", None, 0));
    let part = whole.get(..whole.len() / 2).unwrap();
    let Err(TransferError::Interrupted { at, .. }) = import(&there, "moved", part) else {
        panic!("half of a stream was taken for all of it");
    };
    assert!(at > 1 << 20, "{at}");
    assert_eq!(tree(there.dir.path()), before);
    let gap = export(&here, &of_snapshot("web@big", None, at + (1 << 20)));
    assert!(
        matches!(import(&there, "moved", &gap), Err(TransferError::Gap { have, .. }) if have == at)
    );
    let rest = export(&here, &of_snapshot("web@big", None, at));
    assert!(rest.len() < whole.len());
    import(&there, "moved", &rest).unwrap();
    assert!(fs::read(there.path("states/moved/data.img")).unwrap() == image);
    assert!(fs::read(there.path("states/moved/snapshots/big/data.img")).unwrap() == image);
    assert_eq!(hidden(there.dir.path()), Vec::<String>::new());
}

#[test]
fn state_that_breaks_off_leaves_nothing() {
    let (here, there) = (furnished(), furnished());
    let before = tree(there.dir.path());
    let stream = export(&here, &Export::State(name("web")));
    for length in 0..stream.len() {
        let part = stream.get(..length).unwrap();
        let error = import(&there, "moved", part);
        assert!(
            matches!(error, Err(TransferError::Stream { .. })),
            "{length}: {error:?}"
        );
    }
    assert_eq!(tree(there.dir.path()), before);
    assert_eq!(hidden(there.dir.path()), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_stream_is_never_taken_for_a_good_one(place in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let fixture = furnished();
        let mut stream = export(&fixture, &Export::State(name("web")));
        let place = place.index(stream.len());
        stream[place] ^= flip;
        if import(&fixture, "moved", &stream).is_ok() {
            // A bit that means nothing to the decoder changes nothing either.
            let (from, to) = ("states/web/data.img", "states/moved/data.img");
            prop_assert!(fs::read(fixture.path(from)).unwrap() == fs::read(fixture.path(to)).unwrap());
        } else {
            prop_assert!(!fixture.path("states/moved").exists());
            prop_assert_eq!(hidden(fixture.dir.path()), Vec::<String>::new());
        }
    }

    #[test]
    fn arbitrary_streams_make_a_whole_state_or_nothing(
        depth in 0..3_u8,
        input in prop::collection::vec(any::<u8>(), 0..400),
        ends in any::<bool>(),
    ) {
        let dir = super::memory_dir();
        let _no_forks = super::no_forks();
        let mut bytes = vec![depth];
        bytes.extend(input.chunks_exact(11).flatten());
        // A record of the kind that ends a stream, else what is left of another one.
        bytes.extend(if ends { &[0; 11][..] } else { &input[input.len() / 11 * 11..] });
        crate::transfer::fuzz::import(dir.path(), &bytes);
    }
}
