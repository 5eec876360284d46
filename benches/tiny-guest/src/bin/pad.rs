//! `pad <guest> <MiB> <output>`: writes a copy of an ELF guest with one more loadable segment of that
//! many MiB behind it, so that loading it costs what loading a real kernel costs. The bytes neither
//! compress nor repeat.

use std::error::Error;
use std::fs;
use std::path::Path;

const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const MIB: usize = 1 << 20;

/// Physical address of the added segment, behind anything the guest itself occupies.
const PAD_ADDRESS: u64 = 0x120_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [guest, mib, output] = args.as_slice() else {
        return Err("usage: pad <guest> <MiB> <output>".into());
    };
    let padded = pad(&fs::read(Path::new(guest))?, mib.parse::<usize>()? * MIB)?;
    fs::write(output, padded)?;
    Ok(())
}

/// Moves the program headers behind the file's contents, where there is room for one more.
fn pad(elf: &[u8], bytes: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    if elf.get(..5) != Some(b"\x7fELF\x02") || elf.len() < ELF_HEADER {
        return Err("not a 64-bit ELF file".into());
    }
    let table = usize::try_from(u64::from_le_bytes(elf[32..40].try_into()?))?;
    let count = usize::from(u16::from_le_bytes(elf[56..58].try_into()?));
    let old = elf
        .get(table..table + count * PROGRAM_HEADER)
        .ok_or("program headers lie outside the file")?;

    let mut out = elf.to_vec();
    out.resize(out.len().next_multiple_of(16), 0);
    let new_table = out.len();
    let data = (new_table + (count + 1) * PROGRAM_HEADER).next_multiple_of(4096);
    out.extend_from_slice(old);
    out.extend_from_slice(&segment(data as u64, bytes as u64));
    out.resize(data, 0);
    out.extend(noise(bytes));

    out[32..40].copy_from_slice(&(new_table as u64).to_le_bytes());
    out[56..58].copy_from_slice(&u16::try_from(count + 1)?.to_le_bytes());
    // No section headers: they would be of no use to a loader.
    out[40..48].fill(0);
    out[60..64].fill(0);
    Ok(out)
}

fn segment(offset: u64, bytes: u64) -> Vec<u8> {
    let (load, read_only) = (1_u32, 4_u32);
    let words = [offset, PAD_ADDRESS, PAD_ADDRESS, bytes, bytes, 4096];
    let mut header = [load, read_only].map(u32::to_le_bytes).concat();
    header.extend(words.into_iter().flat_map(u64::to_le_bytes));
    header
}

/// Bytes of a xorshift generator: the same in every build.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    let mut noise: Vec<u8> = words
        .take(bytes.div_ceil(8))
        .flat_map(u64::to_le_bytes)
        .collect();
    noise.truncate(bytes);
    noise
}
