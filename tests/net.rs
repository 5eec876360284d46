//! The network: the guest is reached, transfers are exact, floods pass.

use anyhow::{Context as _, Result};
use fixture::{Lab, net};

/// Size of a transfer.
const TRANSFER: u32 = 20 << 20;

/// Bytes that do not repeat at any distance a lost or swapped frame could have.
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..TRANSFER / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

/// Features that a stock driver takes when it is offered them (virtio 1.2 §5.1.3), by bit: checksums
/// and TCP segments of either version left to the other side, both ways, and merged buffers. How
/// large frames then are is up to the speed of both ends.
const OFFLOADS: [(usize, &str); 7] = [
    (0, "CSUM"),
    (1, "GUEST_CSUM"),
    (7, "GUEST_TSO4"),
    (8, "GUEST_TSO6"),
    (11, "HOST_TSO4"),
    (12, "HOST_TSO6"),
    (15, "MRG_RXBUF"),
];

#[test]
fn guest_is_reached_and_transfers_arrive_as_they_were_sent() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let mut vm = lab.slot("")?.boot()?;
    assert!(net::answers_ping()?);
    assert_eq!(
        vm.guest.run("cat /sys/class/net/eth0/address")?,
        "02:00:00:00:00:01"
    );
    assert_eq!(vm.guest.run("cat /sys/class/net/eth0/mtu")?, "1500");
    vm.guest.run("ping -c 2 -W 5 10.1.0.1 >/dev/null")?;

    let features = vm.guest.run("cat /sys/class/net/eth0/device/features")?;
    for (bit, name) in OFFLOADS {
        assert_eq!(
            features.as_bytes().get(bit),
            Some(&b'1'),
            "{name}: {features}"
        );
    }

    let sent = noise();
    vm.guest
        .run("(nc -l -p 7000 </dev/null >/tmp/got; touch /tmp/all) &")?;
    let stream = net::connect(7000)?;
    net::send_all(&stream, &sent)?;
    vm.guest
        .run("until [ -e /tmp/all ]; do usleep 50000; done")?;
    assert_eq!(vm.guest.number("stat -c %s /tmp/got")?, u64::from(TRANSFER));

    vm.guest.run("nc -l -p 7001 </tmp/got >/dev/null &")?;
    let received = net::receive_all(&net::connect(7001)?)?;
    let differs = received.iter().zip(&sent).position(|(a, b)| a != b);
    assert_eq!((received.len(), differs), (sent.len(), None));
    assert_eq!(net::counter("vm-slot1", "rx_errors")?, 0);
    assert_eq!(
        vm.guest
            .run("cat /sys/class/net/eth0/statistics/rx_errors")?,
        "0"
    );
    vm.power_off()?;
    Ok(())
}

#[test]
fn flood_beyond_what_the_guest_takes_is_survived() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    assert!(net::answers_ping()?);
    net::flood(30_000)?;
    // What waits in queues comes before the answer.
    vm.guest.run("true")?;
    assert!(net::answers_ping()?, "no answer after a flood");

    // Buffers run out for good while the guest is not there to give them back.
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    net::flood(5_000)?;
    slot.call(&["resume", "slot1"])?.expect_code(0)?;
    vm.guest.run("true")?;
    assert!(net::answers_ping()?, "no answer after a flood while paused");

    vm.guest.run("ip link set eth0 down")?;
    net::flood(5_000)?;
    vm.guest
        .run("ip link set eth0 up && ping -c 1 -W 10 10.1.0.1 >/dev/null")?;
    assert!(net::answers_ping()?, "no answer after the card was down");
    vm.power_off()?;
    Ok(())
}

#[test]
fn second_card_has_its_own_tap() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let made = std::process::Command::new("ip")
        .args(["tuntap", "add", "second", "mode", "tap", "vnet_hdr"])
        .status()
        .context("Cannot start ip")?;
    assert!(made.success());
    slot.write_slot(
        "[[net]]\n[[net]]\ntap = \"second\"\nmac = \"02:00:00:00:00:aa\"\nposition = 9\nmtu = 1400\n",
    )?;
    let mut vm = slot.boot()?;
    assert!(net::answers_ping()?);
    assert_eq!(
        vm.guest
            .run("cat /sys/class/net/eth1/address /sys/class/net/eth1/mtu")?,
        "02:00:00:00:00:aa\n1400"
    );
    vm.power_off()?;
    Ok(())
}
