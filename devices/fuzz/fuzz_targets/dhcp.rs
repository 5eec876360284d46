//! Frames to the DHCP server in the network card.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::dhcp(input));
