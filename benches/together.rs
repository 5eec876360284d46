//! Five machines started at once, beside the least that any host takes: `slotvmm bench boot --together` of a
//! guest of a few instructions, and of the same in a kernel of real size with an initrd and a bootstrap.
//!
//! Without a stock kernel nearly all of a boot is slotvmm's and the host's work, so this needs no hardware
//! virtualisation, only `/dev/kvm`. `TOGETHER_BENCH_BOOTS` says how many rounds, 20 unless told.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use benches::guest::Guest;
use benches::monitor::Monitor;

/// Machines at once.
const MACHINES: u32 = 5;
/// Rounds, each of one machine alone and of all at once.
const ROUNDS: u32 = 20;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: together: there is no /dev/kvm");
        return Ok(ExitCode::SUCCESS);
    }
    let rounds = match env::var("TOGETHER_BENCH_BOOTS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => ROUNDS,
    };
    let dir = benches::Place::new()?;
    let [slotvmm, _] = Monitor::slotvmm()?;
    let guests = [
        ("tiny", Guest::tiny()?),
        ("large", Guest::large(dir.path())?),
    ];
    for (name, guest) in guests {
        println!("{name}, {MACHINES} at once, {rounds} rounds:");
        let status = slotvmm
            .together(&guest, dir.path(), MACHINES, rounds)?
            .status()?;
        if !status.success() {
            println!("together/{name}: {status}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
