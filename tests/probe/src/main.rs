//! What measurements and tests run in a guest. It is linked statically, for guests that have no libraries.
//!
//! `probe time NAME PROGRAM ARGUMENT…` runs a program without its output and prints
//! `PROBE NAME NANOSECONDS`. `probe random FILE READS THREADS` reads 4 KiB at a time, at places
//! that are the same in every run. `probe direct DEVICE READS` does so past the page cache, one
//! after the other, and prints `PROBE direct NANOSECONDS`. `probe kexec KERNEL INITRD CMDLINE`
//! starts another kernel in place of the running one, at once. `probe clock FILE MICROSECONDS` reads
//! the clock for ever: see [`clock`]. `probe vsock …` speaks to the host: see [`vsock`].

mod clock;
mod sys;
mod vsock;

use std::ffi::CString;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::reboot::{RebootMode, reboot};
use rustix::fs::OFlags;

/// Bytes of a read, and what its place is a multiple of.
const BLOCK: u16 = 4096;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["time", name, program, arguments @ ..] => time(name, program, arguments),
        ["vsock", words @ ..] => vsock::run(words),
        ["clock", file, sleep] => clock::run(file, Duration::from_micros(sleep.parse()?)),
        ["kexec", kernel, initrd, cmdline] => kexec(kernel, initrd, cmdline),
        ["random", file, reads, threads] => random(file, reads.parse()?, threads.parse()?),
        ["direct", device, reads] => direct(device, reads.parse()?),
        _ => bail!(
            "Expected: time NAME PROGRAM ARGUMENT…, random FILE READS THREADS, \
             direct DEVICE READS, clock FILE MICROSECONDS, kexec KERNEL INITRD CMDLINE, or vsock …"
        ),
    }
}

fn time(name: &str, program: &str, arguments: &[&str]) -> Result<()> {
    let start = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("Cannot start {program}"))?;
    let taken = start.elapsed().as_nanos();
    ensure!(status.success(), "{program} ended with {status}");
    println!("PROBE {name} {taken}");
    Ok(())
}

/// Nothing is written back or unmounted. Returns only with an error.
fn kexec(kernel: &str, initrd: &str, cmdline: &str) -> Result<()> {
    let open = |path: &str| File::open(path).with_context(|| format!("Cannot open {path}"));
    let cmdline = CString::new(cmdline)?;
    sys::kexec_file_load(&open(kernel)?, &open(initrd)?, &cmdline)
        .context("The kernel does not take the next one")?;
    reboot(RebootMode::RB_KEXEC).context("The kernel does not start the next one")?;
    Ok(())
}

/// Reads `reads` blocks in all, by `threads` threads at once.
fn random(path: &str, reads: u64, threads: u64) -> Result<()> {
    let file = File::open(path).with_context(|| format!("Cannot open {path}"))?;
    let blocks = file.metadata()?.len() / u64::from(BLOCK);
    ensure!(blocks > 0 && threads > 0, "Nothing to read");
    std::thread::scope(|scope| {
        let file = &file;
        let readers: Vec<_> = (1..=threads)
            .map(|seed| {
                scope.spawn(move || {
                    let mut block = Block([0; BLOCK as usize]);
                    read_some(file, &mut block, blocks, (seed, reads / threads))
                })
            })
            .collect();
        for reader in readers {
            match reader.join() {
                Ok(read) => read.context("Cannot read")?,
                Err(_) => bail!("A reader panicked"),
            }
        }
        Ok(())
    })
}

/// A block in memory, aligned as reads past the page cache want it.
#[repr(align(4096))]
struct Block([u8; BLOCK as usize]);

/// Reads `reads` blocks of a disk, each from the device, and tells how long that took.
fn direct(path: &str, reads: u64) -> Result<()> {
    let flags = i32::try_from(OFlags::DIRECT.bits())?;
    let mut file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("Cannot open {path}"))?;
    // A device's metadata does not know its size.
    let blocks = file.seek(SeekFrom::End(0))? / u64::from(BLOCK);
    ensure!(blocks > 0, "Nothing to read");
    let mut block = Block([0; BLOCK as usize]);
    let start = Instant::now();
    read_some(&file, &mut block, blocks, (1, reads)).context("Cannot read")?;
    println!("PROBE direct {}", start.elapsed().as_nanos());
    Ok(())
}

fn read_some(
    file: &File,
    Block(buffer): &mut Block,
    blocks: u64,
    (seed, reads): (u64, u64),
) -> std::io::Result<()> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..reads {
        // xorshift64, which is never zero.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.read_exact_at(buffer, state % blocks * u64::from(BLOCK))?;
    }
    Ok(())
}
