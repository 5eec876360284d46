//! The smallest kernel that shows it runs and ends its machine.
//!
//! Entered in 64-bit mode by the Linux boot protocol, with the address of the zero page in `rsi`. Its
//! first instructions write `B` to the serial port at 0x3f8. What it does next is chosen by the first
//! `tiny=` on the kernel command line:
//!
//! - nothing, or `tiny=reset`: reset through the keyboard controller (0xfe to port 0x64);
//! - `tiny=poweroff`: find the FADT from the zero page's RSDP and write S5 to its sleep control
//!   register;
//! - `tiny=acpireset`: write the FADT's reset value to its reset register;
//! - `tiny=echo`: write back every byte of the serial port, until a `q`, then reset;
//! - `tiny=halt`: stop for ever, with interrupts off;
//! - `tiny=write`: write to the first block device for ever, see `disk`. For a `?` at the serial port it
//!   says how long it waited; every other byte is written back once what was written before is done.
//!   After an error it writes `!` and stops.
//! - `tiny=data`: the same, but only to the first of every 8 MiB.
//! - `tiny=one`: as `tiny=data`, with one write at a time.
//! - `tiny=clock`: read the time stamp counter for ever. For every byte of the serial port it writes the
//!   counter and the longest time between two readings since the last byte, in hexadecimal digits.
//!
//! A machine monitor that only knows the PVH protocol enters it in 32-bit mode. Unless the command line
//! begins with `tiny` it resets at once; where there is no keyboard controller, a debug exit device at
//! port 0xf4 ends it.
//!
//! Before the last step it writes a letter that says which way it takes, and a newline. Where the
//! ACPI tables do not lead anywhere it writes `?` and resets.
//!
//! Everything is plain loads, stores and port accesses: no SSE, no interrupts and no page tables of
//! its own, so that it also runs where ring 0 is interpreted.

#![no_std]
#![no_main]

mod disk;

use core::arch::{asm, global_asm};
use core::ptr::{read_unaligned, write_volatile};

global_asm!(
    ".section .text.start, \"ax\"",
    ".global _start",
    "_start:",
    "mov dx, 0x3f8",
    "mov al, 0x42",
    "out dx, al",
    "lea rsp, [rip + stack_top]",
    "mov rdi, rsi",
    "call {main}",
    "ud2",
    main = sym main,
);

global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY: where the PVH protocol enters.
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long pvh_start",
    ".section .text.pvh, \"ax\"",
    ".code32",
    "pvh_start:",
    "mov dx, 0x3f8",
    "mov al, 0x42",
    "out dx, al",
    "mov eax, [ebx + 24]",
    "test eax, eax",
    "jz 2f",
    "cmp dword ptr [eax], 0x796e6974",
    "je pvh_long",
    "2: mov al, 0x52",
    "out dx, al",
    "mov al, 0x0a",
    "out dx, al",
    "mov al, 0xfe",
    "out 0x64, al",
    "out 0xf4, al",
    "3: cli",
    "hlt",
    "jmp 3b",
    // The lowest 4 GiB one to one, in pages of 2 MiB: present, writable, large.
    "pvh_long:",
    "mov edi, offset pages",
    "mov eax, 0x83",
    "4: mov [edi], eax",
    "mov dword ptr [edi + 4], 0",
    "add edi, 8",
    "add eax, 0x200000",
    "jnc 4b",
    // The next level, then the top, behind them.
    "mov eax, offset pages + 3",
    "5: mov [edi], eax",
    "mov dword ptr [edi + 4], 0",
    "add edi, 8",
    "add eax, 0x1000",
    "cmp eax, offset pages + 0x4003",
    "jb 5b",
    "mov eax, offset pages + 0x4003",
    "mov [pages + 0x5000], eax",
    // What `main` reads of a zero page: the command line and the RSDP, as PVH names them.
    "mov eax, [ebx + 24]",
    "mov [pages + 0x6228], eax",
    "mov eax, [ebx + 32]",
    "mov [pages + 0x6070], eax",
    // Physical address extension, long mode, paging: the order is the processor's.
    "mov eax, cr4",
    "or eax, 0x20",
    "mov cr4, eax",
    "mov eax, offset pages + 0x5000",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x100",
    "wrmsr",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    "lgdt [pvh_gdtr]",
    "mov esp, offset stack_top",
    "mov eax, 8",
    "push eax",
    "mov eax, offset pvh_64",
    "push eax",
    "retf",
    ".code64",
    "pvh_64:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "lea rsp, [rip + stack_top]",
    "mov edi, offset pages + 0x6000",
    "call {main}",
    "ud2",
    ".balign 8",
    "pvh_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "pvh_gdtr: .word 23",
    ".long pvh_gdt",
    ".section .bss.pages, \"aw\", @nobits",
    ".balign 4096",
    "pages: .skip 0x7000",
    main = sym main,
);

const SERIAL: u16 = 0x3f8;
const SERIAL_LINE_STATUS: u16 = 0x3fd;
const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE_RESET: u8 = 0xfe;

/// Sleep type 5 and the enable bit of a sleep control register (ACPI 6.5 §4.8.3.7).
const ENTER_S5: u8 = 5 << 2 | 1 << 5;

/// Loops to wait for a register write to end the machine, far below a second everywhere.
const PATIENCE: u32 = 100_000;

extern "C" fn main(zero_page: u64) -> ! {
    match choice(zero_page) {
        b'p' => {
            say(b'P');
            write_register(fadt(zero_page).map(|fadt| (fadt + 244, ENTER_S5)));
        }
        b'a' => {
            say(b'A');
            write_register(fadt(zero_page).map(|fadt| (fadt + 116, load::<u8>(fadt + 128))));
        }
        b'e' => echo(),
        b'h' => {
            say(b'H');
            halt();
        }
        b'w' => write(8, 1),
        b'd' => write(8, 8),
        b'o' => write(1, 8),
        b'c' => clock(),
        _ => say(b'R'),
    }
    outb(KEYBOARD_COMMAND, PULSE_RESET);
    halt()
}

/// The letter after the first `tiny=` on the command line, or `r`.
fn choice(zero_page: u64) -> u8 {
    let mut at = u64::from(load::<u32>(zero_page + 0x228));
    while at != 0 && load::<u8>(at) != 0 {
        if load::<u32>(at) == u32::from_le_bytes(*b"tiny") && load::<u8>(at + 4) == b'=' {
            return load(at + 5);
        }
        at += 1;
    }
    b'r'
}

/// The FADT, by way of the RSDP that the zero page names and the XSDT.
fn fadt(zero_page: u64) -> Option<u64> {
    let rsdp: u64 = load(zero_page + 0x70);
    if rsdp == 0 {
        return None;
    }
    let xsdt: u64 = load(rsdp + 24);
    let end = xsdt + u64::from(load::<u32>(xsdt + 4));
    let mut entry = xsdt + 36;
    while entry + 8 <= end {
        let table: u64 = load(entry);
        if load::<u32>(table) == u32::from_le_bytes(*b"FACP") {
            return Some(table);
        }
        entry += 8;
    }
    None
}

/// Writes a byte to the register that the generic address structure at the given place describes
/// (ACPI 6.5 §5.2.3.2): memory is space 0, ports are space 1.
fn write_register(register: Option<(u64, u8)>) {
    if let Some((structure, value)) = register {
        let address: u64 = load(structure + 4);
        match load::<u8>(structure) {
            // SAFETY: the machine's tables name this address as a register for us to write.
            0 if address != 0 => unsafe { write_volatile(address as *mut u8, value) },
            1 if address != 0 => outb(address as u16, value),
            _ => {}
        }
    }
    // The machine may take a moment to stop.
    for _ in 0..PATIENCE {
        // SAFETY: a hint to the processor.
        unsafe { asm!("pause", options(nomem, nostack, preserves_flags)) };
    }
    say(b'?');
}

fn echo() {
    say(b'E');
    loop {
        if inb(SERIAL_LINE_STATUS) & 1 != 0 {
            let byte = inb(SERIAL);
            if byte == b'q' {
                return say(b'R');
            }
            outb(SERIAL, byte);
        }
    }
}

fn write(in_flight: u64, spread: u64) {
    if let Some(disk) = disk::Disk::find(in_flight, spread) {
        say(b'W');
        while disk.round() {
            if inb(SERIAL_LINE_STATUS) & 1 != 0 {
                match inb(SERIAL) {
                    b'?' => disk::report(),
                    byte => outb(SERIAL, byte),
                }
            }
        }
        say(b'!');
        halt();
    }
    say(b'?');
}

fn clock() -> ! {
    say(b'C');
    let mut longest = 0;
    let mut last = time();
    loop {
        let mut readings = 0;
        while readings < 256 {
            let now = time();
            let gap = now - last;
            if gap > longest {
                longest = gap;
            }
            last = now;
            readings += 1;
        }
        if inb(SERIAL_LINE_STATUS) & 1 != 0 {
            inb(SERIAL);
            digits(last, 16);
            outb(SERIAL, b' ');
            digits(longest, 16);
            outb(SERIAL, b'\n');
            longest = 0;
            last = time();
        }
    }
}

/// Writes the last `count` hexadecimal digits of a number.
fn digits(number: u64, count: u32) {
    let mut shift = count * 4;
    while shift > 0 {
        shift -= 4;
        let digit = (number >> shift & 15) as u8;
        outb(
            SERIAL,
            if digit < 10 {
                b'0' + digit
            } else {
                b'a' - 10 + digit
            },
        );
    }
}

fn time() -> u64 {
    let (high, low): (u32, u32);
    // SAFETY: reading the time stamp counter touches no memory.
    unsafe { asm!("rdtsc", out("edx") high, out("eax") low, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

fn say(letter: u8) {
    outb(SERIAL, letter);
    outb(SERIAL, b'\n');
}

fn load<T: Copy>(address: u64) -> T {
    // SAFETY: all memory is mapped one to one and nobody else writes to it; callers pass addresses
    // that the boot protocol or the ACPI tables define, and integer types.
    unsafe { read_unaligned(address as *const T) }
}

fn outb(port: u16, value: u8) {
    // SAFETY: a port write touches no memory of this program.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags))
    };
}

fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: a port read touches no memory of this program.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags))
    };
    value
}

fn halt() -> ! {
    loop {
        // SAFETY: stops the processor; interrupts are off and stay off.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    halt()
}
