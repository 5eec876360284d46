//! Any access to the I/O APIC.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::ioapic(input));
