//! The machine without the command line tool: `bare kernel <file>` or `bare bootstrap <image>
//! <cache>`, and kernel parameters behind either.
//!
//! 256 MiB, one vCPU, the guest's serial port on standard output; the bootstrap image is the first
//! disk. `BARE_PHASES=1` prints where the time went. For measuring; `slotvmm` is the tool for running.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use devices::blk::{Access, BlkConfig, Discard, Engine};
use devices::device::DeviceId;
use devices::registry::{DeviceConfig, HostHandles, Position};
use uuid::Uuid;
use vmm::Vm;
use vmm::boot::{BootConfig, BootSource};
use vmm::config::{Discovery, RegisterReads, VmConfig};
use vmm::console::ConsoleEnds;
use vmm::kvm::{HostPolicy, Opening};
use vmm::phases::Phases;
use vmm::readiness::{Board, Criterion, Supervision};
use vmm::vm::BootOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (source, disk, cache_dir, params) = match words.as_slice() {
        ["kernel", kernel, params @ ..] => {
            let (kernel, initrd) = (kernel.into(), None);
            (BootSource::Files { kernel, initrd }, None, None, params)
        }
        ["bootstrap", image, cache, params @ ..] => {
            let (image, toplevel) = (PathBuf::from(image), None);
            let disk = image.clone();
            let source = BootSource::Bootstrap { image, toplevel };
            (source, Some(disk), Some(cache.into()), params)
        }
        _ => return Err(
            "usage: bare kernel <file> | bare bootstrap <image> <cache>, then kernel parameters"
                .into(),
        ),
    };
    let params = params.iter().map(|word| (*word).to_owned()).collect();
    let mut handles = HostHandles::default();
    let mut devices = Vec::new();
    if let Some(image) = disk {
        let config = bootstrap_disk();
        handles.add_disk(config.id.clone(), File::open(image)?);
        devices.push(DeviceConfig::Blk(config));
    }
    let config = VmConfig {
        name: "bench".to_owned(),
        vcpus: 1,
        memory_mib: 256,
        uuid: Uuid::nil(),
        oem_strings: Vec::new(),
        boot: BootConfig {
            source,
            params,
            defaults: Vec::new(),
            init: None,
            cache_dir,
        },
        discovery: Discovery::Acpi,
        registers: RegisterReads::Memory,
        devices,
    };
    let options = options(start)?;
    let phases = options.phases.clone();
    Vm::boot(&config, handles, options)?.run()?;
    if std::env::var_os("BARE_PHASES").is_some() {
        for stamp in phases.stamps() {
            eprintln!("{:>8} us  {}", stamp.at_us, stamp.phase.name());
        }
    }
    Ok(())
}

fn bootstrap_disk() -> BlkConfig {
    BlkConfig {
        id: DeviceId::new("bootstrap"),
        position: Position(0),
        access: Access::ReadOnly,
        serial: None,
        engine: Engine::Auto,
        discard: Discard::Hide,
    }
}

fn options(start: Instant) -> Result<BootOptions, Box<dyn Error>> {
    let phases = Arc::new(Phases::since(start));
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(BootOptions {
        readiness: Arc::new(Board::new(Criterion::Running, None, Arc::clone(&phases))?),
        supervision: Supervision::default(),
        phases,
        console: ConsoleEnds {
            output: Some(Box::new(File::from(output))),
            ..ConsoleEnds::default()
        },
        // The tiny guest runs where stock kernels do not.
        kvm: Opening::start(HostPolicy::Any)?,
        control: None,
    })
}
