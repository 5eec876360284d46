//! Any register access to any device, through its transport.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::registers(input));
