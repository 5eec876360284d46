//! `run --dry-run`: the full plan of a slot, without starting or making anything.

use hostnet::inspect::{LinkKind, link};
use serde::Serialize;
use vmm::boot::{self, PayloadSummary, params};
use vmm::machine::plan::{MachinePlan, plan};

use super::creds::Listed;
use super::{CommandError, Context};
use crate::args::Run;
use crate::disk::{self, Presence};
use crate::exit::Exit;
use crate::output::{Report, or_dash, pairs, print, size, table};
use crate::resolve::{self, Disk, Nic, Queues, Slot};

/// Prints the plan of a slot.
pub(super) fn dry_run(args: &Run, context: &Context) -> Result<Exit, CommandError> {
    let (_, slot) = context.slot(&args.slot)?;
    let plan = Plan::of(slot)?;
    print(&plan, context.format).map_err(CommandError::on("print the plan"))?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Plan {
    slot: Slot,
    kernel: PayloadSummary,
    cmdline: String,
    machine: MachinePlan,
    disks: Vec<PlannedDisk>,
    taps: Vec<PlannedTap>,
    credentials: Listed,
}

#[derive(Serialize)]
struct PlannedDisk {
    id: String,
    #[serde(flatten)]
    presence: Presence,
}

#[derive(Serialize)]
struct PlannedTap {
    id: String,
    name: String,
    state: &'static str,
}

impl Plan {
    fn of(slot: Slot) -> Result<Self, CommandError> {
        let disks = slot
            .disks
            .iter()
            .map(planned_disk)
            .collect::<Result<_, _>>()?;
        let taps = slot
            .nics
            .iter()
            .map(planned_tap)
            .collect::<Result<_, _>>()?;
        let credentials = Listed::of(&slot);
        let mut config = resolve::plan::vm_config(&slot);
        let data = slot.disks.iter().find(|disk| disk.is_data());
        let number = data.and_then(|disk| store::identity::number_at(&disk.path));
        config
            .boot
            .params
            .extend(number.map(resolve::plan::reset_identity));
        let payload = boot::inspect(&config.boot)?;
        let machine = plan(&config);
        let cmdline = params::insert(payload.params(), &machine.extra_params);
        Ok(Self {
            slot,
            kernel: payload.describe(),
            cmdline,
            machine,
            disks,
            taps,
            credentials,
        })
    }
}

fn planned_disk(disk: &Disk) -> Result<PlannedDisk, CommandError> {
    Ok(PlannedDisk {
        id: disk.id.clone(),
        presence: disk::inspect(disk)?,
    })
}

fn planned_tap(nic: &Nic) -> Result<PlannedTap, CommandError> {
    let state = match link(&nic.tap)?.map(|link| link.kind) {
        None => "missing: run `slotvmm net apply`",
        Some(LinkKind::Tap { flags, .. })
            if !flags.multi_queue && matches!(nic.queues, Queues::Set(2..)) =>
        {
            "made for one queue"
        }
        Some(LinkKind::Tap { .. }) => "present",
        Some(_) => "not a tap",
    };
    Ok(PlannedTap {
        id: nic.id.clone(),
        name: nic.tap.to_string(),
        state,
    })
}

fn queues(queues: Queues) -> String {
    match queues {
        Queues::Set(queues) => queues.to_string(),
        Queues::AtMost(1) => "1".to_owned(),
        Queues::AtMost(most) => format!("up to {most}"),
    }
}

impl Report for Plan {
    fn text(&self) -> String {
        let sections = [
            ("Slot", self.about()),
            ("Memory", self.memory()),
            ("Devices", self.devices()),
            ("Disks", self.disk_table()),
            ("Network", self.network()),
            ("Shares", self.shares()),
            ("Credentials", self.credentials.text()),
        ];
        let sections = sections
            .into_iter()
            .filter(|(title, _)| match *title {
                "Shares" => !self.slot.shares.is_empty(),
                "Credentials" => !self.slot.credentials.list.is_empty(),
                _ => true,
            })
            .map(|(title, body)| format!("{title}\n{}", indented(&body)));
        sections.collect::<Vec<_>>().join("\n\n")
    }
}

impl Plan {
    fn about(&self) -> String {
        let machine = &self.slot.machine;
        let kernel = &self.kernel;
        let initrd = kernel
            .initrd
            .as_ref()
            .map(|initrd| format!("{}, {}", initrd.path, size(initrd.bytes)));
        pairs([
            (
                "name",
                format!("{} (index {})", self.slot.name, self.slot.index.get()),
            ),
            ("UUID", machine.uuid.to_string()),
            ("vCPUs", machine.vcpus.to_string()),
            ("memory", format!("{} MiB", machine.memory_mib)),
            ("kernel", format!("{} ({})", kernel.kernel, kernel.format)),
            ("version", or_dash(kernel.version.as_ref())),
            ("found by", kernel.found_by.clone()),
            ("cache", kernel.cache.to_string()),
            ("initrd", or_dash(initrd)),
            ("parameters", self.cmdline.clone()),
            ("ready", self.ready()),
            (
                "control",
                self.slot.paths.control_socket.display().to_string(),
            ),
            (
                "console",
                self.slot.paths.console_socket.display().to_string(),
            ),
        ])
    }

    fn ready(&self) -> String {
        let ready = &self.slot.ready;
        format!("when {}, within {} s", ready.when, ready.timeout)
    }

    fn memory(&self) -> String {
        let rows = self.machine.memory.iter().map(|range| {
            let bytes = range.end.saturating_sub(range.start).saturating_add(1);
            [
                address(range.start),
                address(range.end),
                range.kind.to_owned(),
                size(bytes),
            ]
        });
        table(["START", "END", "KIND", "SIZE"], rows)
    }

    fn devices(&self) -> String {
        let rows = self.machine.devices.iter().map(|device| {
            [
                or_dash(device.position),
                device.id.clone(),
                device.kind.to_owned(),
                device.registers.clone(),
                or_dash(device.gsi),
            ]
        });
        table(["POSITION", "DEVICE", "KIND", "REGISTERS", "GSI"], rows)
    }

    fn disk_table(&self) -> String {
        let rows = self
            .slot
            .disks
            .iter()
            .zip(&self.disks)
            .map(|(disk, planned)| {
                let state = match &planned.presence {
                    Presence::Present { bytes } => size(*bytes),
                    Presence::WillBeCreated => creation(disk),
                    Presence::InUse { bytes, holder } => {
                        format!("{}, in use by {holder}", size(*bytes))
                    }
                };
                let usage = match disk.usage {
                    resolve::Use::ReadOnly => "read-only",
                    resolve::Use::Exclusive => "writable",
                };
                [
                    disk.id.clone(),
                    disk.path.display().to_string(),
                    usage.to_owned(),
                    state,
                ]
            });
        table(["DISK", "PATH", "USE", "STATE"], rows)
    }

    fn network(&self) -> String {
        let rows = self.slot.nics.iter().zip(&self.taps).map(|(nic, tap)| {
            let bridge = or_dash(nic.bridge.as_ref());
            [
                nic.id.clone(),
                tap.name.clone(),
                tap.state.to_owned(),
                bridge,
                nic.mac_text(),
                queues(nic.queues),
            ]
        });
        let head = ["NETWORK", "TAP", "STATE", "BRIDGE", "MAC", "QUEUES"];
        table(head, rows)
    }

    fn shares(&self) -> String {
        let rows = self.slot.shares.iter().map(|share| {
            let (backend, path) = match &share.backend {
                resolve::Backend::BuiltIn { source, .. } => ("built-in, read-only", source),
                resolve::Backend::External { socket } => ("external", socket),
            };
            [
                share.id.clone(),
                share.tag.clone(),
                backend.to_owned(),
                path.display().to_string(),
                share.queues.to_string(),
            ]
        });
        table(["SHARE", "TAG", "BACKEND", "PATH", "QUEUES"], rows)
    }
}

fn creation(disk: &Disk) -> String {
    match &disk.create {
        Some(resolve::Create {
            template: Some(template),
            ..
        }) => {
            format!("will be copied from {}", template.display())
        }
        Some(resolve::Create {
            size_mib: Some(mib),
            label,
            ..
        }) => {
            format!(
                "will be created: {}, ext4, label {label}",
                size(mib.saturating_mul(1 << 20))
            )
        }
        _ => "missing".to_owned(),
    }
}

fn address(value: u64) -> String {
    format!("{value:#012x}")
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
