use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpFlags, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::*;

const CLIENT: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 9);

fn lease() -> Lease {
    Lease {
        mac: MacAddr(CLIENT.0),
        address: GUEST,
        prefix_len: 24,
        gateway: GATEWAY,
        dns: vec![GATEWAY, Ipv4Addr::new(9, 9, 9, 9)],
        hostname: "slot7".to_owned(),
        mtu: Some(1400),
    }
}

fn request(message_type: DhcpMessageType) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type,
        transaction_id: 0x1234_5678,
        secs: 3,
        client_hardware_address: CLIENT,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6, 12, 26]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

/// The frame of a request to `to`, from `port` to `port`'s other.
fn frame(request: &DhcpRepr<'_>, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: 68,
        dst_port: port,
    };
    let from = request.client_ip;
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + request.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: CLIENT,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; 14 + 20 + ip.payload_len];
    let checksums = ChecksumCapabilities::default();
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &from.into(),
        &to.into(),
        request.buffer_len(),
        |payload| {
            request
                .emit(&mut DhcpPacket::new_unchecked(payload))
                .unwrap()
        },
        &checksums,
    );
    bytes
}

/// An answer, taken apart by another implementation than the one that made it.
struct Answer {
    mac: EthernetAddress,
    ip: Ipv4Addr,
    message: Vec<u8>,
}

impl Answer {
    fn to(request: &DhcpRepr<'_>) -> Option<Self> {
        let frame = frame(request, Ipv4Addr::BROADCAST, 67);
        assert!(is_for_server(&frame[..HEADERS_BYTES], GATEWAY));
        answer(&lease(), &frame).map(|answer| Self::parse(&answer))
    }

    fn parse(bytes: &[u8]) -> Self {
        let checksums = ChecksumCapabilities::default();
        let frame = EthernetFrame::new_checked(bytes).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        let ip = Ipv4Repr::parse(&packet, &checksums).unwrap();
        assert_eq!(ip.src_addr, GATEWAY);
        let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
        let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
        let udp = UdpRepr::parse(&datagram, &from, &to, &checksums).unwrap();
        assert_eq!((udp.src_port, udp.dst_port), (67, 68));
        assert!(datagram.payload().len() >= 300);
        Self {
            mac: frame.dst_addr(),
            ip: ip.dst_addr,
            message: datagram.payload().to_vec(),
        }
    }

    fn packet(&self) -> DhcpPacket<&[u8]> {
        DhcpPacket::new_checked(self.message.as_slice()).unwrap()
    }

    fn option(&self, code: u8) -> Option<Vec<u8>> {
        let packet = self.packet();
        let found = packet.options().find(|option| option.kind == code);
        found.map(|option| option.data.to_vec())
    }

    fn kind(&self) -> u8 {
        self.option(53).unwrap()[0]
    }
}

#[test]
fn discover_is_offered_the_lease() {
    let answer = Answer::to(&request(DhcpMessageType::Discover)).unwrap();
    assert_eq!(answer.kind(), 2);
    let packet = answer.packet();
    assert_eq!(packet.transaction_id(), 0x1234_5678);
    assert_eq!(packet.your_ip(), GUEST);
    assert_eq!((answer.mac, answer.ip), (CLIENT, GUEST));
    for (code, expected) in [
        (1, vec![255, 255, 255, 0]),
        (3, GATEWAY.octets().to_vec()),
        (6, vec![10, 7, 0, 1, 9, 9, 9, 9]),
        (12, b"slot7".to_vec()),
        (26, 1400_u16.to_be_bytes().to_vec()),
        (51, 43_200_u32.to_be_bytes().to_vec()),
        (54, GATEWAY.octets().to_vec()),
        (58, 21_600_u32.to_be_bytes().to_vec()),
        (59, 37_800_u32.to_be_bytes().to_vec()),
    ] {
        assert_eq!(answer.option(code), Some(expected), "option {code}");
    }
}

#[test]
fn request_for_the_lease_is_acknowledged_in_every_state_of_a_client() {
    let selecting = DhcpRepr {
        requested_ip: Some(GUEST),
        server_identifier: Some(GATEWAY),
        ..request(DhcpMessageType::Request)
    };
    let rebooted = DhcpRepr {
        server_identifier: None,
        ..selecting.clone()
    };
    let renewing = DhcpRepr {
        client_ip: GUEST,
        ..request(DhcpMessageType::Request)
    };
    for request in [selecting, rebooted, renewing] {
        let answer = Answer::to(&request).unwrap();
        assert_eq!(answer.kind(), 5, "{request:?}");
        assert_eq!(answer.packet().your_ip(), GUEST);
        assert_eq!(answer.ip, GUEST);
    }
}

#[test]
fn request_for_the_address_of_another_slot_is_refused_to_everybody_on_the_wire() {
    let rebooted = DhcpRepr {
        requested_ip: Some(OTHER),
        ..request(DhcpMessageType::Request)
    };
    let renewing = DhcpRepr {
        client_ip: OTHER,
        ..request(DhcpMessageType::Request)
    };
    for request in [rebooted, renewing] {
        let answer = Answer::to(&request).unwrap();
        assert_eq!(answer.kind(), 6, "{request:?}");
        assert_eq!(answer.packet().your_ip(), Ipv4Addr::UNSPECIFIED);
        let all = (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST);
        assert_eq!((answer.mac, answer.ip), all);
        assert_eq!(answer.option(51), None);
    }
}

#[test]
fn inform_is_told_everything_but_an_address() {
    let inform = DhcpRepr {
        client_ip: OTHER,
        ..request(DhcpMessageType::Inform)
    };
    let answer = Answer::to(&inform).unwrap();
    assert_eq!(answer.kind(), 5);
    assert_eq!(answer.packet().your_ip(), Ipv4Addr::UNSPECIFIED);
    assert_eq!((answer.mac, answer.ip), (CLIENT, OTHER));
    assert_eq!(answer.option(51), None, "no lease time");
    assert_eq!(answer.option(3), Some(GATEWAY.octets().to_vec()));
}

#[test]
fn client_that_cannot_hear_its_address_yet_is_answered_by_broadcast() {
    let discover = DhcpRepr {
        broadcast: true,
        ..request(DhcpMessageType::Discover)
    };
    let answer = Answer::to(&discover).unwrap();
    assert_eq!(answer.ip, Ipv4Addr::BROADCAST);
    assert!(answer.packet().flags().contains(DhcpFlags::BROADCAST));
}

#[test]
fn client_identifier_is_given_back() {
    let identifier = [255, 1, 2, 3, 4, 0, 2, 9, 9];
    let options = [DhcpOption {
        kind: 61,
        data: &identifier,
    }];
    let discover = DhcpRepr {
        additional_options: &options,
        ..request(DhcpMessageType::Discover)
    };
    let answer = Answer::to(&discover).unwrap();
    assert_eq!(answer.option(61), Some(identifier.to_vec()));
}

#[test]
fn what_needs_no_answer_gets_none() {
    let release = request(DhcpMessageType::Release);
    let decline = request(DhcpMessageType::Decline);
    let from_a_server = request(DhcpMessageType::Offer);
    let for_another_server = DhcpRepr {
        requested_ip: Some(GUEST),
        server_identifier: Some(OTHER),
        ..request(DhcpMessageType::Request)
    };
    let for_nothing = request(DhcpMessageType::Request);
    let relayed = DhcpRepr {
        relay_agent_ip: OTHER,
        ..request(DhcpMessageType::Discover)
    };
    let another_client = DhcpRepr {
        client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, 8]),
        ..request(DhcpMessageType::Discover)
    };
    for request in [
        release,
        decline,
        from_a_server,
        for_another_server,
        for_nothing,
        relayed,
        another_client,
    ] {
        assert!(Answer::to(&request).is_none(), "{request:?}");
    }
}

#[test]
fn only_datagrams_to_the_server_are_taken_from_the_wire() {
    let discover = request(DhcpMessageType::Discover);
    let taken = |frame: &[u8]| is_for_server(frame, GATEWAY);
    assert!(taken(&frame(&discover, Ipv4Addr::BROADCAST, 67)));
    assert!(taken(&frame(&discover, GATEWAY, 67)), "a renewal");
    assert!(!taken(&frame(&discover, OTHER, 67)));
    assert!(!taken(&frame(&discover, GATEWAY, 53)));
    let whole = frame(&discover, GATEWAY, 67);
    for (place, byte, what) in [
        (12, 0x86, "another protocol"),
        (14, 0x65, "another version of IP"),
        (14, 0x44, "too short a header"),
        (20, 0x01, "a fragment"),
        (23, 6, "TCP"),
    ] {
        let mut changed = whole.clone();
        changed[place] = byte;
        assert!(!taken(&changed), "{what}");
    }
    for length in 0..38 {
        assert!(!taken(&whole[..length]), "{length}");
    }
}

#[test]
fn answer_is_never_longer_than_every_client_takes() {
    let identifier = [7; 255];
    let options = [DhcpOption {
        kind: 61,
        data: &identifier,
    }];
    let long = Lease {
        hostname: "h".repeat(255),
        dns: vec![GATEWAY; 100],
        prefix_len: 0,
        ..lease()
    };
    let plain = request(DhcpMessageType::Discover);
    let identified = DhcpRepr {
        additional_options: &options,
        ..plain.clone()
    };
    let told = |request| {
        let bytes = answer(&long, &frame(&request, GATEWAY, 67)).unwrap();
        assert!(bytes.len() <= 14 + 576, "{}", bytes.len());
        Answer::parse(&bytes)
    };
    // The host name goes first, then what else can be done without; never the identifier.
    let (plain, identified) = (told(plain), told(identified));
    assert_eq!(plain.option(6).map(|dns| dns.len()), Some(32));
    assert_eq!(plain.option(12), None);
    assert_eq!(identified.option(61), Some(identifier.to_vec()));
    assert_eq!(identified.option(1), Some(vec![0; 4]));
    assert_eq!(identified.option(6), None);
}

proptest! {
    #[test]
    fn any_frame_is_survived(frame: Vec<u8>) {
        let _ = is_for_server(&frame, GATEWAY);
        let _ = answer(&lease(), &frame);
        crate::testing::fuzz::dhcp(&frame);
    }

    #[test]
    fn damaged_request_is_ignored_or_answered_like_any(
        changes in prop::collection::vec((0..320_usize, any::<u8>()), 0..8),
        length in 0..600_usize,
    ) {
        let mut bytes = frame(&request(DhcpMessageType::Discover), GATEWAY, 67);
        for (place, byte) in changes {
            if let Some(target) = bytes.get_mut(place) {
                *target = byte;
            }
        }
        bytes.resize(length, 0);
        if let Some(answered) = answer(&lease(), &bytes) {
            prop_assert!(answered.len() <= 14 + 576);
            let _ = Answer::parse(&answered);
        }
    }
}

/// As busybox 1.37 sends it; the kernel leaves the checksum as it found it.
#[test]
fn discover_of_a_common_client_is_answered() {
    let hex = "ffffffffffff02000000000708004500014800000000401179a600000000ffffffff0044004301349e04\
               01010600b3ef6f690000000000000000000000000000000000000000020000000007";
    let mut frame: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    frame.resize(42 + 236, 0);
    frame.extend([99, 130, 83, 99, 53, 1, 1, 57, 2, 2, 64]);
    frame.extend([55, 7, 1, 3, 6, 12, 15, 28, 42, 60, 12]);
    frame.extend(b"udhcp 1.37.0=\x07\x01\x02\x00\x00\x00\x00\x07\xff");
    frame.resize(14 + 0x148, 0);
    assert!(is_for_server(&frame[..HEADERS_BYTES], GATEWAY));
    let answer = Answer::parse(&answer(&lease(), &frame).unwrap());
    assert_eq!(answer.kind(), 2);
    assert_eq!(answer.option(61), Some(vec![1, 2, 0, 0, 0, 0, 7]));
}
