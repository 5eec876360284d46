//! Arbitrary bytes as a stream: for the fuzz target and for a property test that runs anywhere.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::stream::{self, head, next_digest};
use crate::layout::Layout;
use crate::name::Name;
use crate::store::Store;

/// Length in bytes of the image that records are about.
const IMAGE: u64 = 1 << 20;

/// Imports what `input` says into a new store at `root`, an empty directory. The first byte decides
/// how deep the rest gets: the stream itself, what is compressed in it, or its records, with a header
/// and digests that are right.
///
/// # Panics
/// When a stream that was refused left something, or one that was taken made no state: that is what
/// is looked for.
pub fn import(root: &Path, input: &[u8]) {
    let store = Store::new(Layout {
        root: root.to_owned(),
        assignments: root.join("assignments.json"),
    });
    let Some(((depth, rest), state)) = input
        .split_first()
        .zip(Name::try_from("new".to_owned()).ok())
    else {
        return;
    };
    let stream = match depth % 3 {
        0 => rest.to_vec(),
        1 => compressed(rest),
        _ => compressed(&records(rest)),
    };
    let imported = store.import(&state, stream.as_slice(), &|_, _| ());
    let image = fs::metadata(store.layout().image(&state));
    match imported {
        Ok(_) => assert!(image.is_ok_and(|image| image.len() == IMAGE || *depth % 3 != 2)),
        Err(error) => {
            assert!(image.is_err(), "{error}");
            let left = fs::read_dir(store.layout().states()).into_iter().flatten();
            assert_eq!(left.count(), 0, "{error}");
        }
    }
}

/// A stream with `content` compressed in it.
fn compressed(content: &[u8]) -> Vec<u8> {
    let mut stream = stream::MAGIC.to_vec();
    let level = zstd::DEFAULT_COMPRESSION_LEVEL;
    stream.extend(zstd::encode_all(content, level).unwrap_or_default());
    stream
}

/// A header, and a record for every eleven bytes: kind, offset, length, fill; then the rest as it is.
fn records(input: &[u8]) -> Vec<u8> {
    let header = format!(
        "{{\"format\":1,\"id\":\"00000000-0000-4000-8000-000000000000\",\"state\":\"x\",\
         \"bytes\":{IMAGE},\"manifest\":null,\"base\":null,\"from\":0}}"
    );
    let mut all = Sha256::new_with_prefix(&header);
    let mut content = u32::try_from(header.len())
        .unwrap_or_default()
        .to_le_bytes()
        .to_vec();
    content.extend(header.as_bytes());
    let mut chunks = input.chunks_exact(11);
    for chunk in &mut chunks {
        let [kind, offset @ .., small, _, fill] = chunk else {
            continue;
        };
        let offset = offset
            .iter()
            .fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
        // Most offsets lie in the image, some far outside.
        let offset = if kind & 0x80 == 0 {
            offset % IMAGE
        } else {
            offset
        };
        let data = vec![*fill; usize::from(*small) * 64];
        let head = head(kind & 3, offset, data.len() as u64);
        let data = if kind & 3 == 1 { data.as_slice() } else { &[] };
        let digest = next_digest(&mut all, &head, data);
        // Writing to memory cannot fail.
        let _ = content.write_all(&head);
        let _ = content.write_all(data);
        let _ = content.write_all(&digest);
    }
    content.extend(chunks.remainder());
    content
}
