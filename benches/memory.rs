//! How much memory a monitor occupies besides guest RAM: a guest of 256 MiB and one vCPU with one
//! disk halts, and the monitor's resident pages are counted. Ours against the peers that this
//! machine has, printed as ratios.
//!
//! Private pages are the monitor's own; shared ones are page cache that other processes use as well.
//! Guest RAM is the largest writable mappings. Needs `/dev/kvm`.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use benches::guest::Guest;
use benches::monitor::{MEMORY_MIB, Monitor};
use boot_bench::die_with_parent;
use boot_bench::inspect::{self, Resident};

/// What the halting guest writes last: `B` by its first instruction, `H` before it halts.
const HALTED: u8 = b'H';

/// Without a change for so long, a monitor is at rest.
const REST: Duration = Duration::from_millis(400);
/// How often to look at most.
const MOST_LOOKS: u32 = 20;

/// Most KiB that slotvmm may occupy: 3.5 MiB, less than any peer.
const LIMIT_KIB: u64 = 3584;

fn main() -> Result<(), Box<dyn Error>> {
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: memory: there is no /dev/kvm");
        return Ok(());
    }
    let dir = benches::Place::new()?;
    let guest = Guest::halting(dir.path())?;
    let mut monitors = Vec::from(Monitor::slotvmm()?);
    monitors.extend(Monitor::peers());
    let mut ours = None;
    println!(
        "{:<18} {:>12} {:>12} {:>12} {:>9}",
        "resident", "private", "shared", "total", "ratio"
    );
    for monitor in &monitors {
        match measure(&monitor.command(&guest, dir.path())?) {
            Ok(found) => {
                let base = *ours.get_or_insert(found.total_kib());
                let ratio = found.total_kib() as f64 / base.max(1) as f64;
                println!(
                    "{:<18} {:>8} KiB {:>8} KiB {:>8} KiB {ratio:>7.2} x",
                    monitor.name,
                    found.private_kib,
                    found.shared_kib,
                    found.total_kib()
                );
            }
            Err(error) => println!("skipped: memory/{}: {error}", monitor.name),
        }
    }
    check(ours)
}

/// Fails when ours is above its limit.
fn check(ours: Option<u64>) -> Result<(), Box<dyn Error>> {
    match ours {
        Some(kib) if kib > LIMIT_KIB => {
            Err(format!("slotvmm occupies {kib} KiB, the limit is {LIMIT_KIB} KiB").into())
        }
        Some(kib) => {
            println!("{kib} KiB of at most {LIMIT_KIB} KiB");
            Ok(())
        }
        None => Ok(()),
    }
}

/// Boots, waits until the guest halts, counts, and ends the monitor.
fn measure(command: &[OsString]) -> io::Result<Resident> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = die_with_parent(&mut command).spawn()?;
    let found = wait_until_halted(&mut child).and_then(|()| at_rest(child.id()));
    // It would never end by itself.
    child.kill()?;
    child.wait()?;
    found
}

fn wait_until_halted(child: &mut Child) -> io::Result<()> {
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let halted = BufReader::new(output)
        .bytes()
        .map_while(Result::ok)
        .any(|byte| byte == HALTED);
    match halted {
        true => Ok(()),
        false => Err(io::Error::other("the guest did not halt")),
    }
}

/// What is resident once that does not change any more: monitors tidy up after a start.
fn at_rest(pid: u32) -> io::Result<Resident> {
    let mut last = resident(pid)?;
    for _ in 0..MOST_LOOKS {
        thread::sleep(REST);
        let now = resident(pid)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    Err(io::Error::other("its memory keeps changing"))
}

/// What is resident besides guest RAM.
fn resident(pid: u32) -> io::Result<Resident> {
    let found = inspect::resident(pid, MEMORY_MIB.into())?;
    found.ok_or_else(|| io::Error::other("it has no guest RAM"))
}
