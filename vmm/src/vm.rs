//! A virtual machine from boot to end. [`Vm::boot`] is the table of contents of a boot.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use devices::device::Memory;
use devices::registry::HostHandles;

use crate::boot::{self, Entry, LoadContext, LoadError, OpenError, Payload};
use crate::config::VmConfig;
use crate::console::{self, Console, ConsoleEnds};
use crate::control::{self, Callers};
use crate::events::{EventQueue, EventSender, event_channel};
use crate::kvm::{KvmError, Opening};
use crate::lifecycle::{Outcome, VmState};
use crate::machine::{Machine, MachineError, plan};
use crate::memory::{self, MemoryError};
use crate::phases::{Phase, Phases};
use crate::readiness::{Board, Supervision, Watch};
use crate::running::Running;
use crate::signals::StopSignals;
use crate::validate::ConfigError;
use crate::vcpu::{Surroundings, VcpuError, VcpuThreads};

/// What a boot needs besides the machine's configuration.
pub struct BootOptions {
    /// The boot's clock.
    pub phases: Arc<Phases>,
    /// Where the console leads.
    pub console: ConsoleEnds,
    /// The bound control socket.
    pub control: Option<UnixListener>,
    /// KVM on its way; started as early as possible.
    pub kvm: Opening,
    /// What the guest reports of itself.
    pub readiness: Arc<Board>,
    /// Who waits for the guest.
    pub supervision: Supervision,
}

/// Why a machine did not boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The configuration describes no machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel was not found.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM was not opened.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The machine was not built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The kernel was not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The thread that loads the kernel panicked: a mistake in slotvmm.
    #[error("The loader of kernel and initrd panicked")]
    LoaderPanicked,
    /// The vCPUs did not start.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The host refused a thread or a descriptor.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// Why a running machine could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A vCPU cannot run.
    #[error("vCPU {vcpu} cannot go on: {reason}")]
    Vcpu {
        /// Which one.
        vcpu: u8,
        /// What KVM reported.
        reason: String,
    },
    /// The control loop failed.
    #[error("The control loop failed")]
    Control(#[source] io::Error),
}

/// A machine, booted and paused before its first instruction.
pub struct Vm {
    running: Running,
    queue: EventQueue,
    callers: Callers,
    events: EventSender,
}

impl Vm {
    /// Boots the machine up to the point where its vCPUs can be let go: call [`run`](Self::run).
    /// SIGTERM, SIGINT and SIGHUP are blocked in the calling thread from here on and press the
    /// power button.
    ///
    /// # Errors
    /// When the configuration, the bootstrap, the host or KVM do not allow it. Nothing is left
    /// behind then.
    pub fn boot(
        config: &VmConfig,
        mut host: HostHandles,
        options: BootOptions,
    ) -> Result<Self, BootError> {
        config.validate()?;
        let signals = StopSignals::block().map_err(on("block the stop signals"))?;
        let phases = options.phases;
        let (events, queue) =
            event_channel(phases.clone()).map_err(on("create the event channel"))?;
        let outbox = console::outbox(events.clone(), phases.clone(), options.readiness.clone())
            .map_err(on("create the console"))?;
        let watch =
            Watch::new(options.readiness, options.supervision).map_err(on("create a timer"))?;
        let memory = memory::create(config.memory_mib, config.backing())?;
        phases.stamp(Phase::MemoryMapped);
        let payload = boot::open(&config.boot)?;
        phases.stamp(Phase::KernelFound);
        // From here to `finish`, kernel and initrd are read while KVM and the devices are set up.
        let loading = Loading::start(config, payload, &memory, &phases)?;
        let mut machine = Machine::create(config, memory, options.kvm.vm()?)?;
        phases.stamp(Phase::VmCreated);
        let input = console::connect(&config.devices, &mut host, &outbox)
            .map_err(on("connect the console"))?;
        machine.attach_all(&config.devices, host)?;
        let legacy = machine.attach_legacy(outbox.clone(), &events, config.discovery)?;
        machine.write_firmware_tables(config)?;
        phases.stamp(Phase::DevicesAttached);
        let console = Console::start(outbox, (legacy.serial, input), options.console)
            .map_err(on("start the console"))?;
        machine.describe_vcpus(&options.kvm.cpuid()?)?;
        machine.enter_at(&loading.finish()?)?;
        let surroundings = Surroundings {
            buses: Arc::new(machine.take_buses()),
            events: events.clone(),
            phases: phases.clone(),
        };
        let vcpus = VcpuThreads::start(std::mem::take(&mut machine.vcpus), &surroundings)?;
        Ok(Self {
            running: Running {
                slot: config.name.clone(),
                memory_mib: config.memory_mib,
                vcpu_count: config.vcpus,
                cid: config.cid(),
                state: VmState::Created,
                panicked: false,
                vcpus,
                machine,
                console,
                power_button: legacy.power_button,
                phases,
            },
            queue,
            callers: Callers {
                signals,
                watch,
                socket: options.control,
            },
            events,
        })
    }

    /// A way to send requests to the machine from another thread.
    pub fn events(&self) -> EventSender {
        self.events.clone()
    }

    /// Lets the guest run until it ends, and serves signals and the control socket meanwhile.
    ///
    /// # Errors
    /// When the host cannot run the guest any further. Everything is stopped then, too.
    pub fn run(self) -> Result<Outcome, RunError> {
        control::run(self.running, (self.queue, self.events), self.callers)
    }
}

fn on(action: &'static str) -> impl Fn(io::Error) -> BootError {
    move |source| BootError::Host { action, source }
}

/// Kernel and initrd on their way into guest memory.
struct Loading {
    thread: JoinHandle<Result<Entry, LoadError>>,
}

impl Loading {
    fn start(
        config: &VmConfig,
        payload: Payload,
        memory: &Memory,
        phases: &Arc<Phases>,
    ) -> Result<Self, BootError> {
        let cmdline = boot::params::insert(payload.params(), plan::extra_params(config));
        let context = LoadContext {
            ram_bytes: config.memory_mib << 20,
            rsdp: plan::rsdp(config),
        };
        let (memory, phases) = (memory.clone(), phases.clone());
        let thread = thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                let entry = payload.load(&memory, &cmdline, &context);
                phases.stamp(Phase::KernelLoaded);
                entry
            })
            .map_err(on("start the loader"))?;
        Ok(Self { thread })
    }

    fn finish(self) -> Result<Entry, BootError> {
        let loaded = self.thread.join().map_err(|_| BootError::LoaderPanicked)?;
        Ok(loaded?)
    }
}

/// Locks a mutex whose data stays valid even when a holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
