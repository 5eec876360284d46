//! The machine: KVM's half, guest memory, buses and everything attached to them, before and while
//! it runs.

mod absent;
mod attach;
pub mod bus;
pub mod plan;
mod registers;
pub(crate) mod windows;

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::sync::{Arc, Mutex};

use devices::bus::BusDevice;
use devices::device::{DeviceId, Memory};
use devices::disk::RawDisk;
use devices::legacy::i8042::{self, I8042};
use devices::legacy::serial::SerialPort;
use devices::legacy::{ioapic, power};
use devices::registry::{BuildError, DeviceConfig, HostHandles, Position};
use devices::transport::MmioTransport;
use kvm_bindings::CpuId;
use kvm_ioctls::VmFd;
use rustix::rand::{GetRandomFlags, getrandom};
use uuid::Uuid;
use vmm_sys_util::eventfd::EventFd;

use crate::arch::irqchip::Irqchip;
use crate::arch::{acpi, layout, mptable, ports, regs, smbios};
use crate::boot::Entry;
use crate::config::{Discovery, VmConfig};
use crate::console::Outbox;
use crate::events::EventSender;
use crate::kvm::{self, KvmError};
use crate::vcpu::Vcpu;
use bus::{Bus, BusError, Buses, SharedDevice};
use registers::RegisterPages;
use windows::{Windows, WindowsError};

pub use attach::AttachError;

/// A virtio device on the machine.
pub struct Attached {
    /// The device's name.
    pub id: DeviceId,
    /// Its place.
    pub position: Position,
    /// Its registers and the device behind them.
    pub transport: Arc<Mutex<MmioTransport>>,
}

/// A machine whose vCPUs do not run yet.
pub struct Machine {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) memory: Memory,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) mmio: Bus,
    pub(crate) pio: Bus,
    pub(crate) irqchip: Irqchip,
    registers: RegisterPages,
    windows: Windows,
    pub(crate) attached: Vec<Attached>,
    /// The images of its disks.
    pub(crate) images: BTreeMap<DeviceId, Arc<RawDisk>>,
}

/// Why a machine was not built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A device was not built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A device was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A share has no window.
    #[error(transparent)]
    Window(#[from] WindowsError),
    /// Two devices claim the same addresses.
    #[error("Failed to place a device")]
    Place(#[from] BusError),
    /// A legacy device could not be made.
    #[error("Failed to create the {device}")]
    Legacy {
        /// Which one.
        device: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The host has no random bytes for the generation identifier.
    #[error("Failed to make a generation identifier")]
    Generation(#[source] io::Error),
    /// The ACPI tables were not written.
    #[error(transparent)]
    Acpi(#[from] acpi::AcpiError),
    /// The MP table was not written.
    #[error(transparent)]
    MpTable(#[from] mptable::MpTableError),
    /// The SMBIOS tables were not written.
    #[error(transparent)]
    Smbios(#[from] smbios::SmbiosError),
    /// The descriptor or page tables were not written.
    #[error("Failed to write the boot vCPU's descriptor and page tables")]
    Tables(#[source] vm_memory::GuestMemoryError),
}

impl Machine {
    /// Fills the machine in KVM: memory and register pages first, then irqchip, then vCPUs that are
    /// nothing in particular yet.
    ///
    /// # Errors
    /// When the host lacks KVM or KVM refuses.
    pub fn create(config: &VmConfig, memory: Memory, vm: Arc<VmFd>) -> Result<Self, MachineError> {
        kvm::set_memory(&vm, &memory)?;
        let windows = Windows::create(&vm, config)?;
        let positions = config.devices.iter().map(DeviceConfig::position);
        let registers = RegisterPages::create(&vm, config.registers, positions.clone());
        let irqchip = Irqchip::create(&vm, ports::pins(positions))?;
        let vcpus = (0..config.vcpus)
            .map(|index| Vcpu::create(&vm, index))
            .collect::<Result<_, _>>()?;
        let mut mmio = Bus::default();
        mmio.insert(layout::IOAPIC, ioapic::PAGE_BYTES, irqchip.ioapic.clone())?;
        Ok(Self {
            vm,
            memory,
            vcpus,
            mmio,
            pio: Bus::default(),
            irqchip,
            registers,
            windows,
            attached: Vec::new(),
            images: BTreeMap::new(),
        })
    }

    /// Builds and attaches every virtio device of `configs`, in order of position.
    ///
    /// # Errors
    /// When a handle is missing, or the device or KVM refuses.
    pub fn attach_all(
        &mut self,
        configs: &[DeviceConfig],
        mut host: HostHandles,
    ) -> Result<(), MachineError> {
        let mut configs: Vec<&DeviceConfig> = configs.iter().collect();
        configs.sort_by_key(|config| config.position());
        self.windows.hand_over(&mut host);
        for config in configs {
            let device = config.build(&mut host, None)?;
            self.attach(config.id().clone(), config.position(), device)?;
        }
        self.images = host.into_images();
        Ok(())
    }

    /// Attaches serial console and reset, and with ACPI the power registers and the power button:
    /// without it, no guest would know of them.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    pub fn attach_legacy(
        &mut self,
        outbox: Arc<Outbox>,
        events: &EventSender,
        discovery: Discovery,
    ) -> Result<LegacyParts, MachineError> {
        let irq = self.irqchip.line(ports::SERIAL_GSI)?;
        let sink = Box::new(crate::console::OutboxWriter(outbox));
        let port = SerialPort::new(irq, sink).map_err(|error| MachineError::Legacy {
            device: "serial port",
            source: io::Error::other(error),
        })?;
        let serial = Arc::new(Mutex::new(port));
        self.place(
            ports::SERIAL,
            devices::legacy::serial::PORTS,
            serial.clone(),
        )?;
        let sink = Arc::new(events.clone());
        let reset = I8042::new(sink.clone());
        let power_button = match discovery {
            Discovery::Acpi => {
                self.place(ports::I8042, i8042::PORTS, shared(reset))?;
                self.place(ports::POWER, power::PORTS, shared(power::Power::new(sink)))?;
                Some(self.irqchip.line(ports::GED_GSI)?)
            }
            Discovery::Cmdline => {
                self.place(ports::I8042, i8042::PORTS, shared(absent::Keyboard(reset)))?;
                self.place(ports::CLOCK, absent::Clock::PORTS, shared(absent::Clock))?;
                None
            }
        };
        Ok(LegacyParts {
            serial,
            power_button,
        })
    }

    fn place(&mut self, port: u16, ports: u64, device: SharedDevice) -> Result<(), BusError> {
        self.pio.insert(u64::from(port), ports, device)
    }

    /// Writes what firmware would have left: ACPI tables or the MP table, and SMBIOS tables. Never
    /// both of the first: beside ACPI, Linux would number interrupts as it likes, and those on the
    /// command line would mean nothing.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn write_firmware_tables(&self, config: &VmConfig) -> Result<(), MachineError> {
        let vcpus = config.vcpus;
        let positions = self.attached.iter().map(|device| device.position);
        match config.discovery {
            Discovery::Acpi => {
                let inventory = acpi::Inventory {
                    generation: generation().map_err(MachineError::Generation)?,
                    vcpus,
                    virtio: positions.collect(),
                };
                acpi::write(&self.memory, &inventory)?;
            }
            Discovery::Cmdline => {
                let pins = iter::once(ports::SERIAL_GSI).chain(positions.map(ports::virtio_gsi));
                let pins = pins.collect();
                mptable::write(&self.memory, &mptable::Inventory { vcpus, pins })?;
            }
        }
        let identity = smbios::Identity {
            name: &config.name,
            uuid: config.uuid,
            oem_strings: &config.oem_strings,
        };
        Ok(smbios::write(&self.memory, identity)?)
    }

    /// Makes of each vCPU the processor of its place, out of what KVM supports.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn describe_vcpus(&self, supported: &CpuId) -> Result<(), KvmError> {
        let count = u8::try_from(self.vcpus.len()).unwrap_or(u8::MAX);
        self.vcpus
            .iter()
            .try_for_each(|vcpu| vcpu.describe(supported, count))
    }

    /// Points the boot vCPU at the loaded kernel.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn enter_at(&self, entry: &Entry) -> Result<(), MachineError> {
        regs::write_tables(&self.memory, entry).map_err(MachineError::Tables)?;
        if let Some(boot) = self.vcpus.first() {
            boot.enter_at(entry)?;
        }
        Ok(())
    }

    /// The address spaces, ready to be shared by the vCPUs.
    pub(crate) fn take_buses(&mut self) -> Buses {
        Buses {
            mmio: std::mem::take(&mut self.mmio),
            pio: std::mem::take(&mut self.pio),
            ioapic: self.irqchip.ioapic.clone(),
            windows: self.windows.all(),
        }
    }
}

/// A new generation of the machine. Straight from the host's kernel: a generator of our own would
/// have to be set up for these few bytes.
fn generation() -> io::Result<Uuid> {
    let mut bytes = [0; 16];
    // The kernel gives up to 256 bytes whole.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn shared(device: impl BusDevice + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

/// Parts of the machine that the running process holds on to.
pub struct LegacyParts {
    /// The console's port.
    pub serial: Arc<Mutex<SerialPort>>,
    /// A write of 1 presses the power button, if the machine has one.
    pub power_button: Option<EventFd>,
}
