//! Sockets between host and guest, with the kernel's own driver at the other end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail, ensure};
use fixture::{Lab, PATIENCE, Slot, TestVm};

/// Port of the guest on which everything comes back.
const ECHO: u32 = 7;

/// Bytes of a large transfer, unless `LAB_VSOCK_BYTES` says more.
const LARGE: u64 = 16 << 20;

/// Short connections one after the other.
const SHORT: u64 = 10_000;

/// Connections at the same time.
const CONCURRENT: u64 = 300;

/// Bytes in one piece.
const PIECE: u64 = 64 << 10;

/// After so many bytes the pattern repeats: a prime, so that no piece looks like the one before.
const PERIOD: u64 = 65_521;

/// The pattern, and as much of the next one as a piece may need.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..PERIOD + PIECE).map(pattern).collect());

/// The byte at `place` of every transfer; the guest's program has the same.
fn pattern(place: u64) -> u8 {
    (place % PERIOD).wrapping_mul(2_654_435_761).to_be_bytes()[4]
}

/// The `length` bytes at `place`, at most a piece.
fn piece(place: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(place % PERIOD).unwrap_or_default();
    &PATTERN[start..start + length]
}

/// A slot whose guest has the program for tests.
fn slot(lab: &Lab) -> Result<Slot> {
    let slot = lab.slot("")?;
    let image = slot.path("content.squashfs");
    lab.pack_program("SLOTVMM_PROBE_BIN", &image)?;
    slot.write_slot(&format!(
        "[machine]\nvcpus = 2\n[[disk]]\npath = {image:?}\nposition = 2\nreadonly = true\n"
    ))?;
    Ok(slot)
}

/// A guest that sends back what it gets on [`ECHO`].
fn boot(slot: &Slot) -> Result<TestVm> {
    let mut vm = slot.boot()?;
    vm.guest.run("load squashfs")?;
    vm.guest.run("load vmw_vsock_virtio_transport")?;
    vm.guest.run("mount -t squashfs /dev/vdc /mnt")?;
    let start = vm.guest.screen().position();
    vm.guest.run(&format!("/mnt/probe vsock echo {ECHO} &"))?;
    vm.guest.screen().see(start, "PROBE listens")?;
    Ok(vm)
}

/// A stream to `port` of the guest; nothing when nobody listens there.
fn dial(slot: &Slot, port: u32) -> Result<Option<UnixStream>> {
    let mut stream = UnixStream::connect(slot.path("run/slot1/vsock.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "CONNECT {port}")?;
    let mut answer = String::new();
    let mut byte = [0];
    while !answer.ends_with('\n') {
        if stream.read(&mut byte)? == 0 {
            ensure!(answer.is_empty(), "half an answer: {answer:?}");
            return Ok(None);
        }
        answer.push(char::from(byte[0]));
    }
    ensure!(answer.starts_with("OK "), "{answer:?}");
    Ok(Some(stream))
}

fn echo(slot: &Slot) -> Result<UnixStream> {
    dial(slot, ECHO)?.context("Nobody listens in the guest")
}

/// Sends `bytes` of the pattern, and then the end.
fn send(mut stream: UnixStream, bytes: u64) -> JoinHandle<Result<()>> {
    thread::spawn(move || {
        let mut place = 0;
        while place < bytes {
            let length = (bytes - place).min(PIECE);
            stream.write_all(piece(place, usize::try_from(length)?))?;
            place += length;
        }
        Ok(stream.shutdown(Shutdown::Write)?)
    })
}

/// Reads `bytes` from `place` on, and checks every one.
fn expect_pattern(mut stream: impl Read, place: u64, bytes: u64) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(PIECE)?];
    let mut at = place;
    while at < place + bytes {
        let room = usize::try_from((place + bytes - at).min(PIECE))?;
        let count = stream.read(&mut buffer[..room])?;
        ensure!(count > 0, "the stream ends after {at} bytes");
        let same = buffer[..count] == *piece(at, count);
        ensure!(same, "of {count} bytes from {at} on, some are others");
        at += u64::try_from(count)?;
    }
    Ok(())
}

fn expect_end(mut stream: impl Read) -> Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    Ok(())
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
}

/// Sends `bytes` to the guest's echo, and checks that they come back before the end does.
fn round_trip(slot: &Slot, bytes: u64) -> Result<()> {
    let stream = echo(slot)?;
    let sender = send(stream.try_clone()?, bytes);
    expect_pattern(&stream, 0, bytes)?;
    expect_end(&stream)?;
    joined(sender)
}

fn large() -> Result<u64> {
    match std::env::var("LAB_VSOCK_BYTES") {
        Ok(bytes) => bytes.parse().context("LAB_VSOCK_BYTES is no number"),
        Err(_) => Ok(LARGE),
    }
}

#[test]
fn every_byte_arrives_both_ways_and_each_way_ends_by_itself() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = boot(&slot)?;
    for bytes in [0, 1, 1000, 300_000, large()?] {
        round_trip(&slot, bytes).with_context(|| format!("{bytes} bytes to the guest"))?;
    }
    assert!(dial(&slot, 9)?.is_none(), "someone listens on port 9");
    let (said, _) = vm.guest.attempt("/mnt/probe vsock send 99 1 2>&1")?;
    assert!(said.contains("Connection reset by peer"), "{said}");

    let listener = UnixListener::bind(slot.path("run/slot1/vsock.sock_52"))?;
    for bytes in [0, 1000, large()?] {
        let listener = listener.try_clone()?;
        let taker = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            expect_pattern(&stream, 0, bytes)?;
            expect_end(&stream)?;
            // The guest has sent its last; this way is still open.
            Ok(write!(stream, "{bytes} taken")?)
        });
        let start = vm.guest.screen().position();
        vm.guest
            .send(&format!("/mnt/probe vsock send 52 {bytes}"))?;
        // For as long as bytes come, however many there are.
        joined(taker)?;
        vm.guest
            .screen()
            .see(start, &format!("PROBE {bytes} taken\nMINI exit 0"))?;
    }
    vm.power_off()?;
    Ok(())
}

#[test]
fn slow_reader_and_a_pause_lose_nothing() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = boot(&slot)?;
    let listener = UnixListener::bind(slot.path("run/slot1/vsock.sock_52"))?;
    vm.guest
        .run(&format!("/mnt/probe vsock send 52 {LARGE} &"))?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Nobody reads now, and others are not held up by that.
    round_trip(&slot, 300_000)?;
    expect_pattern(&stream, 0, 1 << 20)?;
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    let waiting = UnixStream::connect(slot.path("run/slot1/vsock.sock"))?;
    slot.call(&["resume", "slot1"])?.expect_code(0)?;
    expect_pattern(&stream, 1 << 20, LARGE - (1 << 20))?;
    expect_end(&stream)?;
    let start = vm.guest.screen().position();
    write!(stream, "all of it")?;
    drop((stream, waiting));
    vm.guest.screen().see(start, "PROBE all of it")?;
    round_trip(&slot, 1000)?;
    vm.power_off()?;
    Ok(())
}

#[test]
fn many_connections_come_and_go() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = slot(&lab)?;
    let mut vm = boot(&slot)?;
    let open: Vec<UnixStream> = (0..CONCURRENT)
        .map(|_| echo(&slot))
        .collect::<Result<_>>()?;
    for (stream, number) in open.iter().zip(0u64..) {
        let sent: Vec<u8> = (number..number + 10).map(pattern).collect();
        let mut stream = stream;
        stream.write_all(&sent)?;
        stream.shutdown(Shutdown::Write)?;
    }
    for (stream, number) in open.iter().zip(0u64..) {
        expect_pattern(stream, number, 10).with_context(|| format!("connection {number}"))?;
        expect_end(stream)?;
    }
    drop(open);

    let listener = UnixListener::bind(slot.path("run/slot1/vsock.sock_52"))?;
    let server = thread::spawn(move || {
        for _ in 0..SHORT {
            let (mut stream, _) = listener.accept()?;
            let mut sent = Vec::new();
            stream.read_to_end(&mut sent)?;
            stream.write_all(&sent)?;
        }
        Ok(listener)
    });
    // In parts, each within a test's patience on a machine that emulates its processor.
    for _ in 0..10 {
        let part = format!("/mnt/probe vsock short 52 {}", SHORT / 10);
        assert_eq!(vm.guest.run(&part)?, "PROBE 1000 connections");
    }
    let listener = joined(server)?;

    // Both sides leave in the middle, again and again.
    let server = thread::spawn(move || {
        for number in 0..1000 {
            let (mut stream, _) = listener.accept()?;
            if number % 2 == 0 {
                let _gone = stream.read(&mut [0; 100]);
            }
        }
        Ok(())
    });
    let said = vm.guest.run("/mnt/probe vsock break 52 1000")?;
    assert_eq!(said, "PROBE 1000 left");
    joined(server)?;
    for _ in 0..300 {
        let mut stream = echo(&slot)?;
        stream.write_all(&[0; 5000])?;
    }
    round_trip(&slot, 300_000)?;
    let info = slot.json(&["status", "slot1"])?;
    let devices = info["devices"].as_array().context("no devices")?;
    let stuck = devices.iter().any(|device| device["needs_reset"] == true);
    assert!(!stuck, "{info}");
    vm.power_off()?;
    Ok(())
}
