//! The entropy source's queue logic on garbage rings.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::rng_requests(input));
