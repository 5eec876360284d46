//! The kernel out of a bzImage, by compression: what a boot with an empty kernel cache waits for. A kernel
//! of 40 MiB, wrapped as the Linux build does it (Linux/x86 boot protocol 2.15).

use std::error::Error;
use std::fs;
use std::io::Write as _;

use benches::guest::Guest;
use criterion::{Criterion, SamplingMode, Throughput};
use flate2::write::GzEncoder;
use vmm::boot::unpack_kernel;

/// Bytes of setup: what the header says with four sectors, and the boot sector.
const SETUP: usize = 5 * 512;
/// Offsets of fields in the file: sectors of setup, magic, protocol version, `xloadflags`, place and length
/// of the payload after the setup.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const XLOADFLAGS: usize = 0x236;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Most bytes of a block in the legacy format of LZ4.
const LZ4_BLOCK: usize = 8 << 20;
/// Magic of that format.
const LZ4_LEGACY: u32 = 0x184c_2102;

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let dir = tempfile::tempdir()?;
    let kernel = fs::read(Guest::large(dir.path())?.kernel)?;
    let size = u32::try_from(kernel.len())?.to_le_bytes();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(&kernel)?;
    let methods = [
        // The format itself ends with the size.
        ("gzip", gzip.finish()?),
        ("lz4", [&lz4(&kernel)?[..], &size].concat()),
        (
            "zstd",
            [&zstd::encode_all(&kernel[..], 6)?[..], &size].concat(),
        ),
    ];
    let mut group = criterion.benchmark_group("unpack");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Bytes(kernel.len() as u64));
    for (name, payload) in methods {
        let image = bzimage(&payload)?;
        if unpack_kernel(&image)? != kernel {
            return Err(format!("{name} does not unpack to what was packed").into());
        }
        group.bench_function(name, |bench| bench.iter(|| unpack_kernel(&image)));
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

fn bzimage(payload: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut image = vec![0; SETUP];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(SETUP_SECTORS, &[4]);
    put(MAGIC, b"HdrS");
    put(VERSION, &0x20f_u16.to_le_bytes());
    // The kernel has a 64-bit entry.
    put(XLOADFLAGS, &1_u16.to_le_bytes());
    put(PAYLOAD_OFFSET, &0_u32.to_le_bytes());
    put(PAYLOAD_LENGTH, &u32::try_from(payload.len())?.to_le_bytes());
    image.extend_from_slice(payload);
    Ok(image)
}

/// The legacy format, as `lz4 -l` writes it.
fn lz4(kernel: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut packed = LZ4_LEGACY.to_le_bytes().to_vec();
    for block in kernel.chunks(LZ4_BLOCK) {
        let block = lz4_flex::block::compress(block);
        packed.extend_from_slice(&u32::try_from(block.len())?.to_le_bytes());
        packed.extend_from_slice(&block);
    }
    Ok(packed)
}
