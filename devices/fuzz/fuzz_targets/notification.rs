//! What a guest's service manager says of itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::notification(input));
