//! A guest's request for credentials.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::credential_request(input));
