//! Random requests in random layouts, against a vector of bytes.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

/// Requests of a batch work in lanes of their own, since a driver may not expect an order.
const LANES: u64 = 8;
const LANE_SECTORS: u64 = SECTORS / LANES;

#[derive(Debug, Clone)]
enum Action {
    Read,
    Write(u8),
    Flush,
    Discard,
    Zero(u32),
}

#[derive(Debug, Clone)]
struct Step {
    action: Action,
    first: u64,
    count: u64,
    /// Where to cut header and data into descriptors, as fractions of 1000.
    cuts: Vec<usize>,
    indirect: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        3 => Just(Action::Read),
        3 => any::<u8>().prop_map(Action::Write),
        1 => Just(Action::Flush),
        1 => Just(Action::Discard),
        1 => (0_u32..2).prop_map(Action::Zero),
    ];
    let extent = (0..LANE_SECTORS).prop_flat_map(|first| (Just(first), 1..=LANE_SECTORS - first));
    let cuts = prop::collection::vec(0_usize..1000, 0..3);
    (action, extent, cuts, any::<bool>()).prop_map(|(action, (first, count), cuts, indirect)| {
        Step {
            action,
            first,
            count,
            cuts,
            indirect,
        }
    })
}

/// Cuts `len` bytes into pieces, some of which may be empty.
fn pieces(len: usize, cuts: &[usize]) -> Vec<usize> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| len * cut / 1000).collect();
    at.extend([0, len]);
    at.sort_unstable();
    at.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn split<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for len in pieces(bytes.len(), cuts) {
        let (piece, rest) = bytes.split_at(len);
        parts.push(Part::Readable(piece));
        bytes = rest;
    }
    parts
}

/// A request in flight: its head, and where its writable parts start.
struct Issued {
    head: u16,
    readable_parts: usize,
    writable_parts: usize,
}

fn issue(bench: &mut Bench, step: &Step, sector: u64) -> Issued {
    let count = u32::try_from(step.count).unwrap();
    let mut out = match step.action {
        Action::Read => header(IN, sector),
        Action::Write(_) => header(OUT, sector),
        Action::Flush => header(FLUSH, 0),
        Action::Discard => header(DISCARD, 0),
        Action::Zero(_) => header(WRITE_ZEROES, 0),
    }
    .to_vec();
    let mut room = 1;
    match step.action {
        Action::Read => room += count * 512,
        Action::Write(byte) => out.extend(vec![byte; count as usize * 512]),
        Action::Flush => {}
        Action::Discard => out.extend(range(sector, count, 0)),
        Action::Zero(unmap) => out.extend(range(sector, count, unmap)),
    }
    let mut parts = split(&out, &step.cuts);
    let readable_parts = parts.len();
    for len in pieces(room as usize, &step.cuts) {
        parts.push(Part::Writable(u32::try_from(len).unwrap()));
    }
    let head = match step.indirect {
        true => bench.driver.add_indirect(&parts),
        false => bench.driver.add(&parts),
    };
    Issued {
        head,
        readable_parts,
        writable_parts: parts.len() - readable_parts,
    }
}

fn check(
    bench: &Bench,
    issued: &Issued,
    step: &Step,
    model: &mut [u8],
) -> Result<(), TestCaseError> {
    let parts = issued.readable_parts..issued.readable_parts + issued.writable_parts;
    let mut written: Vec<u8> = parts
        .flat_map(|part| bench.driver.bytes(issued.head, part))
        .collect();
    prop_assert_eq!(written.pop(), Some(OK));
    match step.action {
        Action::Read => prop_assert_eq!(&written[..], &model[..]),
        Action::Write(byte) => model.fill(byte),
        Action::Flush => {}
        Action::Zero(_) => model.fill(0),
        // The content of discarded sectors is the device's choice: here kept or zero.
        Action::Discard => {}
    }
    Ok(())
}

fn run_batches(engine: &str, batches: &[Vec<Step>]) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(engine);
    let mut model = pattern(0, SECTORS);
    for batch in batches {
        let sectors: Vec<u64> = (0..LANES)
            .zip(batch)
            .map(|(lane, step)| lane * LANE_SECTORS + step.first)
            .collect();
        let issued: Vec<Issued> = batch
            .iter()
            .zip(&sectors)
            .map(|(step, sector)| issue(&mut bench, step, *sector))
            .collect();
        bench.run();
        prop_assert!(!bench.irq.is_reset_needed());
        for _ in batch {
            prop_assert!(bench.driver.take_used().is_some());
        }
        for ((step, sector), issued) in batch.iter().zip(sectors).zip(&issued) {
            let from = usize::try_from(sector * 512).unwrap();
            let to = from + usize::try_from(step.count * 512).unwrap();
            check(&bench, issued, step, &mut model[from..to])?;
            if matches!(step.action, Action::Discard) {
                let found = bench.content(sector, step.count);
                let kept = model[from..to]
                    .iter()
                    .zip(&found)
                    .all(|(old, new)| old == new || *new == 0);
                prop_assert!(kept, "discarded sectors hold something new");
                model[from..to].copy_from_slice(&found);
            }
        }
    }
    prop_assert_eq!(bench.content(0, SECTORS), model);
    Ok(())
}

#[test]
fn any_mix_of_requests_matches_the_model() {
    let batch = prop::collection::vec(step(), 1..=usize::try_from(LANES).unwrap());
    let batches = prop::collection::vec(batch, 1..8);
    for engine in engines() {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        runner
            .run(&batches, |batches| run_batches(engine, &batches))
            .unwrap();
    }
}
