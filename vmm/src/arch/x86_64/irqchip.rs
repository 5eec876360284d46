//! KVM's split irqchip: local APICs in the kernel, the I/O APIC here.
//!
//! Split, because closing a machine with a full in-kernel irqchip costs ten times as much, and
//! nothing here needs an 8259 or a PIT. The I/O APIC only translates: each pin's redirection
//! entry becomes an MSI route, and the pin's irqfd fires along it without leaving the kernel.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use devices::legacy::ioapic::{IoApic, MsiMessage, PINS, RouteSink};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_msi,
};
use kvm_ioctls::{Cap, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::layout;
use crate::kvm::KvmError;

/// What KVM must be able to do.
pub const REQUIRED: [Cap; 3] = [Cap::SplitIrqchip, Cap::Irqfd, Cap::Ioeventfd];

/// The interrupt controllers of a machine.
pub struct Irqchip {
    /// The I/O APIC, for the MMIO bus at [`layout::IOAPIC`].
    pub ioapic: Arc<Mutex<IoApic>>,
    lines: Arc<Lines>,
}

impl Irqchip {
    /// Creates the local APICs' home in KVM and an I/O APIC with `count` pins here. Before any vCPU.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn create(vm: &Arc<VmFd>, count: u8) -> Result<Self, KvmError> {
        if needs_task_state() {
            let tss = usize::try_from(layout::KVM_TSS).unwrap_or_default();
            vm.set_tss_address(tss)
                .map_err(KvmError::on("place the task state segment"))?;
        }
        let split = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            args: [PINS as u64, 0, 0, 0],
            ..Default::default()
        };
        vm.enable_cap(&split)
            .map_err(KvmError::on("create the split irqchip"))?;
        let lines = Arc::new(Lines {
            vm: vm.clone(),
            pins: Mutex::new(Vec::from_iter((0..count).map(|_| Pin::default()))),
        });
        let ioapic = IoApic::new(count, Box::new(Sink(lines.clone())));
        Ok(Self {
            ioapic: Arc::new(Mutex::new(ioapic)),
            lines,
        })
    }

    /// An edge-triggered interrupt line into pin `gsi`: a write to the eventfd is one edge. The
    /// pin's irqfd is registered when the guest first unmasks the pin; an edge before that is
    /// kept by the eventfd.
    ///
    /// # Errors
    /// When the pin does not exist or the host refuses an eventfd.
    pub fn line(&self, gsi: u32) -> Result<EventFd, KvmError> {
        let line = EventFd::new(EFD_NONBLOCK).map_err(|error| eventfd_error(&error))?;
        let ours = line.try_clone().map_err(|error| eventfd_error(&error))?;
        let mut pins = self
            .lines
            .pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pin = usize::try_from(gsi).ok().and_then(|at| pins.get_mut(at));
        let Some(pin) = pin else {
            return Err(KvmError::Operation {
                action: "find the I/O APIC pin",
                source: kvm_ioctls::Error::new(libc::EINVAL),
            });
        };
        pin.line = Some(ours);
        Ok(line)
    }
}

/// Whether KVM runs real mode in virtual-8086 mode and wants three pages for that: on Intel
/// processors without unrestricted guests, which are older than 2010. Asking costs half a
/// millisecond of every boot, so it is asked only where it counts. The identity map page that goes
/// with it has a default address in KVM, [`layout::KVM_IDENTITY_MAP`].
fn needs_task_state() -> bool {
    match fs::read_to_string("/sys/module/kvm_intel/parameters/unrestricted_guest") {
        Ok(unrestricted) => unrestricted.trim() != "Y",
        // Not an Intel host, unless there is no sysfs to tell.
        Err(_) => !Path::new("/sys/module/kvm").exists(),
    }
}

fn eventfd_error(error: &std::io::Error) -> KvmError {
    KvmError::Operation {
        action: "create an interrupt line",
        source: kvm_ioctls::Error::new(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

#[derive(Default)]
struct Pin {
    line: Option<EventFd>,
    registered: bool,
    route: Option<MsiMessage>,
}

/// The routes of all pins, as KVM has them.
struct Lines {
    vm: Arc<VmFd>,
    pins: Mutex<Vec<Pin>>,
}

impl Lines {
    fn update(&self, gsi: u8, route: Option<MsiMessage>) -> Result<(), KvmError> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = pins.get_mut(usize::from(gsi)) {
            pin.route = route;
        }
        let entries: Vec<_> = (0u32..)
            .zip(pins.iter())
            .filter_map(|(gsi, pin)| pin.route.map(|route| msi_route(gsi, route)))
            .collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| KvmError::Operation {
            action: "build the interrupt routes",
            source: kvm_ioctls::Error::new(libc::ENOMEM),
        })?;
        self.vm
            .set_gsi_routing(&table)
            .map_err(KvmError::on("set the interrupt routes"))?;
        // Routes are in place before their irqfd is: some kernels do not survive the reverse.
        if let Some(pin) = pins.get_mut(usize::from(gsi))
            && pin.route.is_some()
            && !pin.registered
            && let Some(line) = &pin.line
        {
            self.vm
                .register_irqfd(line, u32::from(gsi))
                .map_err(KvmError::on("register an irqfd"))?;
            pin.registered = true;
        }
        Ok(())
    }
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = (message.address & 0xffff_ffff) as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

struct Sink(Arc<Lines>);

impl RouteSink for Sink {
    fn update(&mut self, pin: u8, message: Option<MsiMessage>) {
        if let Err(error) = self.0.update(pin, message) {
            tracing::error!(
                pin,
                error = &error as &dyn std::error::Error,
                "failed to route an interrupt"
            );
        }
    }

    fn deliver(&mut self, pin: u8, message: MsiMessage) {
        let msi = kvm_msi {
            address_lo: (message.address & 0xffff_ffff) as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        if let Err(error) = self.0.vm.signal_msi(msi) {
            tracing::error!(pin, %error, "failed to deliver an interrupt");
        }
    }
}
