//! A configuration directory of its own, and the binary run against it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A host whose directories lie in a temporary one.
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// Has a state directory, a bootable kernel file and no slots.
    pub(crate) fn new() -> Self {
        Self::with_kernel(&[0xf4])
    }

    /// The same with a kernel that consists of `code`.
    pub(crate) fn with_kernel(code: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Self { dir };
        fs::create_dir_all(host.path("etc/slots")).unwrap();
        fs::create_dir(host.path("state")).unwrap();
        fs::write(host.path("vmlinux"), kernel(code)).unwrap();
        let place = host.dir.path().display();
        host.write(
            "etc/host.toml",
            &format!(
                "state_dir = \"{place}/state\"\nrun_dir = \"{place}/run\"\n\
                 cache_dir = \"{place}/cache\"\n[defaults.boot]\nkernel = \"{place}/vmlinux\"\n\
                 [defaults.data]\nsize = 8\n"
            ),
        );
        host
    }

    /// A path on this host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file on this host.
    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// A command against this host's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotvmm"));
        command
            .env_remove("SLOTVMM_LOG")
            .env("SLOTVMM_CONFIG", self.path("etc"))
            .args(arguments);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.ended(self.command(arguments).output().unwrap())
    }

    /// What a command printed, with this host's directory as `/HOST`.
    pub(crate) fn ended(&self, output: Output) -> Ended {
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&self.dir.path().display().to_string(), "/HOST")
        };
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Every file below `name`, sorted.
    pub(crate) fn files(&self, name: &str) -> Vec<String> {
        fn walk(top: &Path, dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                found.push(path.strip_prefix(top).unwrap().display().to_string());
                walk(top, &path, found);
            }
        }
        let mut found = Vec::new();
        walk(&self.path(name), &self.path(name), &mut found);
        found.sort();
        found
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Checks the exit code, and that the error is one chain that says `message`.
    #[track_caller]
    pub(crate) fn failed_with(&self, code: i32, message: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(
            self.stderr.contains(message),
            "expected {message:?} in {self:?}"
        );
        assert_eq!(self.stderr.matches("error: ").count(), 1, "{self:?}");
    }
}

/// The smallest file that is an x86-64 kernel: an ELF whose one segment, at 16 MiB, is `code`.
fn kernel(code: &[u8]) -> Vec<u8> {
    const LOAD: u64 = 0x100_0000;
    let mut elf = vec![0u8; 0x1000 + 64];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes()); // e_type: executable
    put(18, &62u16.to_le_bytes()); // e_machine: x86-64
    put(20, &1u32.to_le_bytes()); // e_version
    put(24, &LOAD.to_le_bytes()); // e_entry
    put(32, &64u64.to_le_bytes()); // e_phoff
    put(52, &64u16.to_le_bytes()); // e_ehsize
    put(54, &56u16.to_le_bytes()); // e_phentsize
    put(56, &1u16.to_le_bytes()); // e_phnum
    put(64, &1u32.to_le_bytes()); // p_type: load
    put(68, &5u32.to_le_bytes()); // p_flags: read, execute
    put(72, &0x1000u64.to_le_bytes()); // p_offset
    put(80, &LOAD.to_le_bytes()); // p_vaddr
    put(88, &LOAD.to_le_bytes()); // p_paddr
    put(96, &64u64.to_le_bytes()); // p_filesz
    put(104, &64u64.to_le_bytes()); // p_memsz
    put(112, &0x1000u64.to_le_bytes()); // p_align
    put(0x1000, code);
    elf
}

/// Whether machines can be made here; says why not.
pub(crate) fn kvm_opens() -> bool {
    let kvm = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if let Err(error) = &kvm {
        eprintln!("skipped: /dev/kvm cannot be opened: {error}");
    }
    kvm.is_ok()
}
