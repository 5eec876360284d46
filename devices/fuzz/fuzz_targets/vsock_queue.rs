//! Garbage rings on the socket device.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::queues("vsock", input));
