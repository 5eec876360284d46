//! The emulated machine's command line.

use std::path::{Path, PathBuf};

use super::job::{Limits, Timing};

/// What the emulated machine is made of.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) limits: Limits,
    pub(super) timing: Timing,
    pub(super) vmlinux: &'a Path,
    pub(super) initrd: &'a Path,
    /// Directory that only this run uses, shared writable.
    pub(super) run_dir: &'a Path,
    pub(super) channel: Channel,
}

/// How the job's output leaves the machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Channel {
    /// Inherited sockets for standard output and standard error.
    Sockets {
        /// Descriptor number for standard output.
        out: i32,
        /// Descriptor number for standard error.
        err: i32,
    },
    /// A console on the lab's own terminal.
    Terminal,
}

/// An AMD processor with nested paging, less what the emulator would warn about or is slow at.
const CPU: &str = "EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,\
                   -topoext,-nrip-save,-xsavec";

const CMDLINE: &str = "console=ttyS0 mitigations=off tsc=reliable clocksource=tsc nowatchdog \
                       random.trust_cpu=on nokaslr audit=0 quiet panic=-1";

/// A timer interrupt now and then gets lost between the emulator's threads while a guest is
/// entered or left. A timer that is set anew at every tick then stands still for ever, and the host
/// with it; a periodic one ticks on.
const PERIODIC: &str = "nohz=off highres=off";

impl Machine<'_> {
    /// The scratch disk's image.
    pub(super) fn scratch(&self) -> PathBuf {
        self.run_dir.join("scratch.img")
    }

    /// Arguments for `qemu-system-x86_64`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| args.extend([format!("-{name}"), value]);
        add("machine", "q35,usb=off,smbus=off,sata=off".into());
        match self.timing {
            Timing::Wall => {
                add("accel", "tcg,thread=multi,tb-size=1024".into());
                add("smp", self.limits.cpus.to_string());
            }
            Timing::Instructions => {
                add("accel", "tcg,thread=single,tb-size=1024".into());
                add("icount", "shift=0,sleep=off".into());
                add("smp", "1".into());
            }
        }
        add("cpu", CPU.into());
        add("m", self.limits.memory_mib.to_string());
        add("display", "none".into());
        add("kernel", self.vmlinux.display().to_string());
        add("initrd", self.initrd.display().to_string());
        add("append", self.cmdline());
        add("device", "isa-debug-exit,iobase=0xf4,iosize=1".into());
        add(
            "serial",
            format!("file:{}", self.run_dir.join("console.log").display()),
        );
        add("device", "virtio-rng-pci".into());
        self.disks(&mut add);
        self.output(&mut add);
        args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
        args
    }

    /// With counted instructions there is one thread and nothing to lose, and exact timers matter.
    fn cmdline(&self) -> String {
        match self.timing {
            Timing::Wall => format!("{CMDLINE} {PERIODIC}"),
            Timing::Instructions => CMDLINE.to_owned(),
        }
    }

    fn disks(&self, add: &mut impl FnMut(&str, String)) {
        let root = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap";
        add("fsdev", root.into());
        add(
            "device",
            "virtio-9p-pci,fsdev=root,mount_tag=lab-root".into(),
        );
        let run = self.run_dir.display();
        add(
            "fsdev",
            format!("local,id=run,path={run},security_model=none"),
        );
        add("device", "virtio-9p-pci,fsdev=run,mount_tag=lab-run".into());
        let scratch = self.scratch();
        add(
            "drive",
            format!(
                "if=none,id=scratch,format=raw,cache=unsafe,discard=unmap,file={}",
                scratch.display()
            ),
        );
        add(
            "device",
            "virtio-blk-pci,drive=scratch,serial=lab-scratch".into(),
        );
    }

    fn output(&self, add: &mut impl FnMut(&str, String)) {
        add("device", "virtio-serial-pci".into());
        match self.channel {
            Channel::Sockets { out, err } => {
                for (name, fd) in [("lab.out", out), ("lab.err", err)] {
                    add("chardev", format!("socket,id={name},fd={fd}"));
                    add(
                        "device",
                        format!("virtserialport,chardev={name},name={name}"),
                    );
                }
            }
            Channel::Terminal => {
                add("chardev", "stdio,id=lab.tty,signal=off".into());
                add("device", "virtconsole,chardev=lab.tty".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(timing: Timing) -> String {
        let machine = Machine {
            limits: Limits {
                cpus: 3,
                ..Limits::default()
            },
            timing,
            vmlinux: Path::new("/k"),
            initrd: Path::new("/i"),
            run_dir: Path::new("/run dir"),
            channel: Channel::Sockets { out: 7, err: 8 },
        };
        machine.arguments().join("\n")
    }

    #[test]
    fn wall_time_uses_every_processor() {
        let args = arguments(Timing::Wall);
        assert!(args.contains("-smp\n3"));
        assert!(!args.contains("-icount"));
    }

    #[test]
    fn counted_instructions_use_one_thread() {
        let args = arguments(Timing::Instructions);
        assert!(args.contains("thread=single"));
        assert!(args.contains("-icount\nshift=0,sleep=off\n-smp\n1"));
    }

    #[test]
    fn machine_root_is_shared_read_only() {
        assert!(arguments(Timing::Wall).contains("id=root,path=/,security_model=none,readonly=on"));
    }
}
