use proptest::prelude::{any, proptest};
use virtio_queue::QueueOwnedT;
use virtio_vsock::packet::VsockPacket;

use super::*;
use crate::testing::{Part, QueueDriver, guest_memory};
use crate::vsock::HEADER_BYTES;

proptest! {
    #[test]
    fn any_header_survives(bytes in any::<[[u8; 22]; 2]>()) {
        let bytes: [u8; HEADER_BYTES] = bytes.concat().try_into().unwrap();
        assert_eq!(Header::decode(&bytes).encode(), bytes);
    }
}

#[test]
fn fields_are_where_others_have_them() {
    let header = Header {
        src_cid: 0x0102_0304_0506_0708,
        dst_cid: 0x1112_1314_1516_1718,
        src_port: 0x2122_2324,
        dst_port: 0x3132_3334,
        len: 0,
        kind: 0x4142,
        op: 0x5152,
        flags: 0x6162_6364,
        buf_alloc: 0x7172_7374,
        fwd_cnt: 0x8182_8384,
    };
    let memory = guest_memory();
    let mut driver = QueueDriver::new(&memory, 0, 16);
    driver.add(&[Part::Readable(&header.encode())]);
    let mut queue = driver.queue();
    let mut chain = queue.iter(&memory).unwrap().next().unwrap();
    let packet = VsockPacket::from_tx_virtq_chain(&memory, &mut chain, 0).unwrap();
    let read = Header {
        src_cid: packet.src_cid(),
        dst_cid: packet.dst_cid(),
        src_port: packet.src_port(),
        dst_port: packet.dst_port(),
        len: packet.len(),
        kind: packet.type_(),
        op: packet.op(),
        flags: packet.flags(),
        buf_alloc: packet.buf_alloc(),
        fwd_cnt: packet.fwd_cnt(),
    };
    assert_eq!(read, header);
}
