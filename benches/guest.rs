//! What the boot benchmarks boot: the tiny guest, and the same guest as large as a real kernel with
//! an initrd and a bootstrap image around both.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::process::Command;

use backhand::compression::Compressor;
use backhand::{FilesystemCompressor, FilesystemWriter, NodeHeader};

/// What the guest writes to its serial port: the first byte is its first instruction's.
pub const MARK: &[u8] = b"BR";

/// Size of the large guest's kernel.
const KERNEL_MIB: u32 = 40;
/// Size of the large guest's initrd.
const INITRD_BYTES: usize = 7 << 19;

/// A guest to boot.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its kernel, an ELF file for the 64-bit and the PVH protocol.
    pub kernel: PathBuf,
    /// What comes with a kernel of real size.
    pub around: Option<Surroundings>,
    /// What the kernel command line tells it: `tiny=halt` to stay, or nothing to reset at once.
    pub params: &'static str,
    /// A writable disk of its own.
    pub disk: Option<PathBuf>,
}

/// What comes with a kernel of real size.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// An initrd.
    pub initrd: PathBuf,
    /// A squashfs image with kernel and initrd in `/boot`, which is the guest's disk as well.
    pub bootstrap: PathBuf,
    /// Where unpacked kernels are kept.
    pub cache: PathBuf,
}

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A program failed.
    #[error("Failed to run {program}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// What it said.
        reason: String,
    },
    /// A file could not be written.
    #[error("Failed to write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The bootstrap image could not be made.
    #[error("Failed to make the bootstrap image")]
    Image(#[from] backhand::BackhandError),
}

impl Guest {
    /// The tiny guest alone. Builds it when needed.
    ///
    /// # Errors
    /// When cargo does not build it.
    pub fn tiny() -> Result<Self, GuestError> {
        Ok(Self {
            kernel: build()?.join("tiny-guest"),
            around: None,
            params: "",
            disk: None,
        })
    }

    /// The tiny guest with a disk in `dir`, which halts instead of resetting.
    ///
    /// # Errors
    /// When cargo does not build it or the disk cannot be made.
    pub fn halting(dir: &Path) -> Result<Self, GuestError> {
        let disk = dir.join("disk.img");
        write(&disk, &[0; 1 << 20])?;
        Ok(Self {
            params: "tiny=halt",
            disk: Some(disk),
            ..Self::tiny()?
        })
    }

    /// The same guest in a kernel of 40 MiB, with an initrd of 3.5 MiB, both also inside a bootstrap
    /// image. Everything is written to `dir`.
    ///
    /// # Errors
    /// When cargo does not build it or a file cannot be written.
    pub fn large(dir: &Path) -> Result<Self, GuestError> {
        let programs = build()?;
        let kernel = dir.join("vmlinux");
        let size = KERNEL_MIB.to_string();
        let tiny = programs.join("tiny-guest");
        run(
            &programs.join("pad"),
            [tiny.as_os_str(), OsStr::new(&size), kernel.as_os_str()],
        )?;
        let initrd = dir.join("initrd");
        write(&initrd, &initrd_bytes())?;
        let bootstrap = dir.join("bootstrap.squashfs");
        squash(&kernel, &initrd, &bootstrap)?;
        Ok(Self {
            kernel,
            around: Some(Surroundings {
                initrd,
                bootstrap,
                cache: dir.join("cache"),
            }),
            params: "",
            disk: None,
        })
    }
}

/// Builds the guest's programs and returns their directory.
fn build() -> Result<PathBuf, GuestError> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-guest");
    let target = source.join("target");
    let manifest = source.join("Cargo.toml");
    let args = [
        OsStr::new("build"),
        OsStr::new("--release"),
        OsStr::new("--quiet"),
        OsStr::new("--manifest-path"),
        manifest.as_os_str(),
        OsStr::new("--target-dir"),
        target.as_os_str(),
    ];
    run(Path::new(env!("CARGO")), args)?;
    Ok(target.join("release"))
}

/// Builds the `slotvmm` binary and returns its path.
///
/// # Errors
/// When cargo does not build it.
pub fn build_slotvmm() -> Result<PathBuf, GuestError> {
    // As `cargo static`.
    let args = "rustc --release --quiet --package slotvmm --bin slotvmm --message-format=json -- -C target-feature=+crt-static";
    let output = output(Path::new(env!("CARGO")), args.split(' ').map(OsStr::new))?;
    let messages = serde_json::Deserializer::from_slice(&output).into_iter::<serde_json::Value>();
    messages
        .flatten()
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .last()
        .ok_or_else(|| GuestError::Program {
            program: "cargo build".to_owned(),
            reason: "it named no executable".to_owned(),
        })
}

fn run<'a>(program: &Path, args: impl IntoIterator<Item = &'a OsStr>) -> Result<(), GuestError> {
    output(program, args).map(drop)
}

fn output<'a>(
    program: &Path,
    args: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Vec<u8>, GuestError> {
    let failed = |reason: String| GuestError::Program {
        program: program.display().to_string(),
        reason,
    };
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), GuestError> {
    fs::write(path, bytes).map_err(|source| GuestError::Write {
        path: path.to_owned(),
        source,
    })
}

/// An initrd that nobody unpacks: a cpio magic, then a pattern.
fn initrd_bytes() -> Vec<u8> {
    let mut bytes = b"070701".to_vec();
    bytes.extend((0..=255_u8).cycle().take(INITRD_BYTES - bytes.len()));
    bytes
}

fn squash(kernel: &Path, initrd: &Path, image: &Path) -> Result<(), GuestError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| GuestError::Write { path, source }
    };
    let header = NodeHeader::new(0o644, 0, 0, 0);
    let mut writer = FilesystemWriter::default();
    writer.set_compressor(FilesystemCompressor::new(Compressor::Zstd, None)?);
    writer.push_dir("boot", NodeHeader::new(0o755, 0, 0, 0))?;
    for (from, to) in [(kernel, "boot/vmlinux"), (initrd, "boot/initrd")] {
        let bytes = fs::read(from).map_err(unreadable(from))?;
        writer.push_file(Cursor::new(bytes), to, header)?;
    }
    let file = File::create(image).map_err(unreadable(image))?;
    writer.write(&file)?;
    Ok(())
}
