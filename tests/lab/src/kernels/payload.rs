//! The ELF kernel inside a bzImage, found by the setup header's `payload_offset` and
//! `payload_length` (Linux `Documentation/arch/x86/boot.rst`, protocol 2.08 and newer).
//!
//! The VMM has its own, hardened for untrusted images; the lab keeps this one so that it can boot
//! its emulated host before, and whether or not, the VMM builds.

use std::io::Read;

use anyhow::{Context, Result, bail};

/// Offsets in the setup header.
const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// A kernel larger than this is taken for garbage.
const ELF_MAX_BYTES: u64 = 512 << 20;

/// Unpacks the ELF kernel from the bzImage in `image`.
///
/// # Errors
/// When the image is no bzImage, its payload is compressed by an unknown method, or what comes out
/// is no ELF file.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS".as_slice()) {
        bail!("Not a bzImage: no setup header");
    }
    let sectors = match image.get(SETUP_SECTS) {
        Some(0) | None => 4,
        Some(count) => usize::from(*count),
    };
    let start = (sectors + 1) * 512 + word(image, PAYLOAD_OFFSET)?;
    let length = word(image, PAYLOAD_LENGTH)?;
    let end = start
        .checked_add(length)
        .context("The payload wraps around")?;
    let payload = image
        .get(start..end)
        .context("The payload lies outside the image")?;
    let elf = decompress(payload)?;
    if !elf.starts_with(b"\x7fELF") {
        bail!("The payload is no ELF kernel");
    }
    Ok(elf)
}

fn word(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image
        .get(at..at + 4)
        .context("The image ends within its setup header")?;
    let value = u32::from_le_bytes(bytes.try_into()?);
    Ok(usize::try_from(value)?)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>> {
    match payload {
        [0x1f, 0x8b, ..] => read_all(flate2::read::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => read_all(liblzma::read::XzDecoder::new(payload)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => read_all(zstd::Decoder::new(payload)?.single_frame()),
        [0x02, 0x21, 0x4c, 0x18, chunks @ ..] => lz4_legacy(chunks),
        [a, b, c, d, ..] => bail!("Unknown compression (starts {a:02x} {b:02x} {c:02x} {d:02x})"),
        _ => bail!("The payload is empty"),
    }
}

fn read_all(reader: impl Read) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    reader
        .take(ELF_MAX_BYTES)
        .read_to_end(&mut out)
        .context("Broken compressed payload")?;
    Ok(out)
}

/// The kernel's LZ4 is the legacy frame: chunks of at most 8 MiB, each with its compressed length,
/// then the length of the whole kernel in the last four bytes.
fn lz4_legacy(mut rest: &[u8]) -> Result<Vec<u8>> {
    const CHUNK_BYTES: usize = 8 << 20;
    let mut out = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*head))?;
        let Some((chunk, tail)) = tail.split_at_checked(length) else {
            break;
        };
        out.extend(lz4_flex::block::decompress(chunk, CHUNK_BYTES).context("Broken LZ4 chunk")?);
        rest = tail;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0_u8; 1024];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    const ELF: &[u8] = b"\x7fELF kernel kernel kernel";

    #[test]
    fn every_compression_unpacks() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(ELF).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(ELF).unwrap();
        let chunk = lz4_flex::block::compress(ELF);
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        lz4.extend(u32::try_from(chunk.len()).unwrap().to_le_bytes());
        lz4.extend(chunk);
        lz4.extend(u32::try_from(ELF.len()).unwrap().to_le_bytes());
        let zstd = zstd::encode_all(ELF, 1).unwrap();
        for payload in [gzip.finish().unwrap(), xz.finish().unwrap(), lz4, zstd] {
            assert_eq!(vmlinux(&bzimage(&payload)).unwrap(), ELF);
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert!(vmlinux(b"short").is_err());
        assert!(vmlinux(&bzimage(b"????????")).is_err());
        let mut outside = bzimage(b"");
        outside[PAYLOAD_LENGTH] = 1;
        assert!(vmlinux(&outside).is_err());
        assert!(vmlinux(&bzimage(&zstd::encode_all(&b"no kernel"[..], 1).unwrap())).is_err());
    }
}
