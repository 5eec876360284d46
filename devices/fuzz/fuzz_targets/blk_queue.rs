//! Garbage rings on every form of the blk device.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| devices::testing::fuzz::queues("blk", input));
