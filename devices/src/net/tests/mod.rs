//! The card against a driver in guest memory, and a datagram socket or a real tap as its wire.

mod control;
mod device;
mod garbage;
mod limits;
mod rx;
mod tap;
mod tx;

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use super::ring::Ring;
use super::rx::{Buffers, Rx};
use super::tap::Tap;
use super::tx::Tx;
use super::{Burst, HEADER_BYTES, LARGEST_FRAME_BYTES, NetCounters};
use crate::device::Memory;
use crate::testing::QueueDriver;

/// Every feature, the event index included.
const ALL_FEATURES: u64 = u64::MAX;

/// A tap that is a datagram socket, and its other end.
fn wire() -> (Tap, UnixDatagram) {
    let (card, host) = UnixDatagram::pair().unwrap();
    host.set_nonblocking(true).unwrap();
    (Tap::over_datagrams(card.into()).unwrap(), host)
}

/// `bytes` bytes, header included, that differ from those of any other `seed`.
fn frame(seed: u8, bytes: usize) -> Vec<u8> {
    (0..251_u8)
        .cycle()
        .take(bytes)
        .map(|byte| byte ^ seed)
        .collect()
}

/// What the driver sees of `frame`: the same, with the number of chains it takes.
fn delivered(frame: &[u8], chains: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[10..HEADER_BYTES].copy_from_slice(&chains.to_le_bytes());
    frame
}

fn receive_all(host: &UnixDatagram) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 2 * LARGEST_FRAME_BYTES];
    std::iter::from_fn(|| {
        let bytes = host.recv(&mut buffer).ok()?;
        Some(buffer[..bytes].to_vec())
    })
    .collect()
}

fn tx(memory: &Memory, driver: &QueueDriver) -> Tx {
    let ring = Ring::new(driver.active_queue(ALL_FEATURES), memory.clone());
    Tx::new(ring, Arc::new(NetCounters::default()))
}

fn rx(memory: &Memory, driver: &QueueDriver, buffers: Buffers) -> Rx {
    let ring = Ring::new(driver.active_queue(ALL_FEATURES), memory.clone());
    Rx::new(ring, buffers, Arc::new(NetCounters::default()))
}

/// All used chains' contents, one after the other.
fn used_bytes(driver: &mut QueueDriver, parts: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(used) = driver.take_used() {
        let chain: Vec<u8> = (0..parts)
            .flat_map(|part| driver.bytes(used.head, part))
            .collect();
        bytes.extend_from_slice(&chain[..usize::try_from(used.written).unwrap()]);
    }
    bytes
}
