//! Saved state from an untrusted file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::saved_state(input));
