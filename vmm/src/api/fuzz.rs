//! Arbitrary bytes and descriptors as a request for a snapshot: for the fuzz target and for a property
//! test that runs anywhere.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a check that cannot go on has failed; nothing but checks is here"
)]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use devices::disk::RawDisk;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::connections::Asked;
use super::{Reply, SnapshotRequest, server};
use crate::events::{Event, EventQueue, EventSender, event_channel};
use crate::phases::Phases;
use crate::snapshot::{Job, Report, SnapshotRefusal};

/// What the disk holds: a piece of a cluster, behind a hole.
const CONTENT: &[u8] = b"content";
const SIZE: u64 = 1 << 20;

/// Longest time for an answer or a report: a snapshot of this disk takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends what `input` says to a server of the control socket, and plays the control thread for what
/// it makes of it. The first byte decides how deep the rest gets: the connection, the body of a
/// request, or parts of one with good syntax; the second one which descriptors come along. Whether a
/// snapshot was begun.
///
/// # Panics
/// When a snapshot that was taken is not what the disk holds, a file that was refused was written to,
/// or nobody hears how it went: that is what is looked for.
pub fn snapshot_request(input: &[u8]) -> bool {
    let Some(([depth, luggage], rest)) = input.split_first_chunk() else {
        return false;
    };
    let request = match depth % 3 {
        0 => rest.to_vec(),
        1 => with_head(rest),
        _ => with_head(&body(rest)),
    };
    play(&request, *luggage).expect("The host refuses something")
}

fn with_head(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "PUT /v1/vm/snapshot HTTP/1.1\r\nHost: slotvmm\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A body whose parts are chosen by the input.
fn body(input: &[u8]) -> Vec<u8> {
    let byte = |at: usize| input.get(at).copied().unwrap_or_default();
    let disk = ["\"data\"", "\"other\"", "7", "\"\""];
    let identity = ["null", "[1, 2]", "[-1, 0]", "[]"];
    let backend = ["\"auto\"", "\"copy\"", "\"reflink\"", "\"zfs\""];
    let rate = ["null", "1", "0", "18446744073709551615"];
    let limit = ["1000", "0", "4294967295", "4294967296"];
    let tail = ["", ", \"more\": 1", ", \"disk\": \"data\"", "}"];
    let of = |words: [&'static str; 4], at| words[usize::from(byte(at) % 4)];
    format!(
        "{{\"disk\": {}, \"identity\": {}, \"backend\": {}, \"rate\": {}, \"pause_limit_ms\": {}{}}}",
        of(disk, 0),
        of(identity, 1),
        of(backend, 2),
        of(rate, 3),
        of(limit, 4),
        of(tail, 5),
    )
    .into_bytes()
}

/// A connection with this request, to its end. Whether a snapshot was begun.
fn play(request: &[u8], luggage: u8) -> io::Result<bool> {
    let target = tempfile::tempfile_in("/dev/shm")?;
    let (reports, theirs) = UnixStream::pair()?;
    reports.set_read_timeout(Some(PATIENCE))?;
    let (mut client, served) = UnixStream::pair()?;
    client.set_read_timeout(Some(PATIENCE))?;
    let (events, queue) = event_channel(Arc::new(Phases::since(Instant::now())))?;
    let server = {
        let events = events.clone();
        thread::spawn(move || serve(served, events))
    };
    let control = {
        let events = events.clone();
        thread::spawn(move || control(&queue, &events))
    };
    send(&client, request, (luggage, &target, theirs))?;
    // Whoever answers before all was read may have closed the connection.
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    server.join().expect("The server panicked");
    events.send(Event::GuestPoweroff);
    let begun = control.join().expect("The control thread panicked");
    let lines = BufReader::new(reports).lines();
    let last = lines.map_while(Result::ok).last();
    let written = target.metadata()?.len();
    if !begun {
        assert_eq!(written, 0, "A file was written to without a snapshot");
        return Ok(false);
    }
    // Another request may have come before it.
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("HTTP/1.1 202"), "{answer}");
    let report = last.and_then(|line| serde_json::from_str(&line).ok());
    if let Some(Report::Done { .. }) = report {
        let mut content = vec![0; CONTENT.len()];
        target.read_exact_at(&mut content, SIZE - CONTENT.len() as u64)?;
        assert_eq!((written, &*content), (SIZE, CONTENT));
    }
    Ok(true)
}

fn serve(stream: UnixStream, events: EventSender) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    runtime.expect("no runtime").block_on(async {
        stream.set_nonblocking(true).expect("no socket");
        let stream = tokio::net::UnixStream::from_std(stream).expect("no socket");
        server::serve_connection(stream, events, Asked::default()).await;
    });
}

/// Takes snapshots of a disk as a machine that is paused does, until the guest ends. Whether any was
/// begun.
fn control(queue: &EventQueue, events: &EventSender) -> bool {
    let image = tempfile::tempfile_in("/dev/shm").expect("no image");
    image
        .write_all_at(CONTENT, SIZE - CONTENT.len() as u64)
        .expect("no image");
    let disk = Arc::new(RawDisk::new(image).expect("no disk"));
    let mut jobs: Vec<Job> = Vec::new();
    let mut ended = false;
    while !ended || jobs.last().is_some_and(|job| !job.is_over()) {
        match queue.queue.recv_timeout(PATIENCE).expect("nothing happens") {
            Event::Snapshot(request) => {
                let SnapshotRequest { order, reply } = *request;
                let known = "data".to_owned();
                let begun = match order.spec.disk.clone() {
                    disk if disk != known => Err(SnapshotRefusal::NoDisk { disk, known }),
                    _ if jobs.last().is_some_and(|job| !job.is_over()) => {
                        Err(SnapshotRefusal::Busy)
                    }
                    _ => Job::begin(order, Arc::clone(&disk), events.clone()),
                };
                let _ = reply.send(begun.map_err(Into::into).map(|job| {
                    jobs.push(job);
                    Reply::Done
                }));
            }
            Event::SnapshotReady(preservation) => {
                if let Some(job) = jobs.last_mut() {
                    job.take(preservation);
                    job.taken(None);
                }
            }
            Event::GuestPoweroff => ended = true,
            _ => {}
        }
    }
    let begun = !jobs.is_empty();
    jobs.into_iter().for_each(Job::finish);
    begun
}

/// Sends a request, with descriptors beside its first byte: those that belong there, or others.
fn send(
    client: &UnixStream,
    request: &[u8],
    (luggage, target, reports): (u8, &File, UnixStream),
) -> io::Result<()> {
    let others = [File::open("/dev/null")?, File::open("/")?];
    let reports = OwnedFd::from(reports);
    let (target, reports) = (target.as_fd(), reports.as_fd());
    let [null, root] = &others;
    let descriptors: Vec<BorrowedFd<'_>> = match luggage % 8 {
        0..3 => vec![target, reports],
        3 => vec![reports, target],
        4 => vec![target],
        5 => vec![target, reports, target],
        6 => vec![root.as_fd(), reports],
        _ => vec![target, null.as_fd()],
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let message = [IoSlice::new(request)];
    let sent = sendmsg(client, &message, &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut client = client;
    // Refused before all of it was read.
    let _ = client.write_all(request.get(sent..).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_request_makes_a_snapshot_of_the_disk() {
        // Its file is looked at by the function itself.
        assert!(snapshot_request(&[2, 0]));
    }

    #[test]
    fn request_without_its_descriptors_begins_nothing() {
        assert!(!snapshot_request(&[2, 4]));
        assert!(!snapshot_request(&[2, 3]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn arbitrary_requests_make_a_whole_snapshot_or_none(
            depth in 0..3_u8,
            luggage in 0..8_u8,
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            snapshot_request(&[&[depth, luggage], &rest[..]].concat());
        }
    }
}
