//! Packets of a guest to the socket device, without rings.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::vsock_packets(input));
