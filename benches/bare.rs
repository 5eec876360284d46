//! The machine without the command line tool: `bare kernel <file>` or `bare bootstrap <image>
//! <cache>`. 256 MiB, one vCPU, the guest's serial port on standard output; the bootstrap image is
//! the first disk. For measuring; `slotvmm` is the tool for running.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use devices::blk::{Access, BlkConfig, Discard, Engine};
use devices::device::DeviceId;
use devices::registry::{DeviceConfig, HostHandles, Position};
use uuid::Uuid;
use vmm::Vm;
use vmm::boot::{BootConfig, BootSource};
use vmm::config::{Discovery, VmConfig};
use vmm::console::ConsoleEnds;
use vmm::kvm::HostPolicy;
use vmm::vm::BootOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (source, disk, cache_dir) = match words.as_slice() {
        ["kernel", kernel] => {
            let kernel = kernel.into();
            (
                BootSource::Files {
                    kernel,
                    initrd: None,
                },
                None,
                None,
            )
        }
        ["bootstrap", image, cache] => {
            let image = PathBuf::from(image);
            let disk = image.clone();
            let toplevel = None;
            (
                BootSource::Bootstrap { image, toplevel },
                Some(disk),
                Some(cache.into()),
            )
        }
        _ => return Err("usage: bare kernel <file> | bare bootstrap <image> <cache>".into()),
    };
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
        boot: BootConfig {
            source,
            params: Vec::new(),
            defaults: Vec::new(),
            init: None,
            cache_dir,
        },
        discovery: Discovery::Acpi,
        devices,
    };
    Vm::boot(&config, handles, options()?)?.run()?;
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

fn options() -> Result<BootOptions, Box<dyn Error>> {
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(BootOptions {
        console: ConsoleEnds {
            output: Some(Box::new(File::from(output))),
            ..ConsoleEnds::default()
        },
        // The tiny guest runs where stock kernels do not.
        host: HostPolicy::Any,
        ..BootOptions::default()
    })
}
