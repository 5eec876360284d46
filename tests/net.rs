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

/// Mean size of the frames that `direction` (`rx` or `tx`) of the tap counted since `before`.
fn mean_frame(direction: &str, before: (u64, u64)) -> Result<u64> {
    let (bytes, frames) = counters(direction)?;
    let frames = (frames - before.1).max(1);
    Ok((bytes - before.0) / frames)
}

fn counters(direction: &str) -> Result<(u64, u64)> {
    let counter = |what: &str| net::counter("vm-slot1", &format!("{direction}_{what}"));
    Ok((counter("bytes")?, counter("packets")?))
}

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

    let sent = noise();
    let to_guest = counters("tx")?;
    vm.guest
        .run("(nc -l -p 7000 </dev/null >/tmp/got; touch /tmp/all) &")?;
    let stream = net::connect(7000)?;
    net::send_all(&stream, &sent)?;
    vm.guest
        .run("until [ -e /tmp/all ]; do usleep 50000; done")?;
    assert_eq!(vm.guest.number("stat -c %s /tmp/got")?, u64::from(TRANSFER));
    let frame = mean_frame("tx", to_guest)?;
    assert!(
        frame > 3000,
        "frames to the guest have {frame} bytes: no offload"
    );

    let to_host = counters("rx")?;
    vm.guest.run("nc -l -p 7001 </tmp/got >/dev/null &")?;
    let received = net::receive_all(&net::connect(7001)?)?;
    let differs = received.iter().zip(&sent).position(|(a, b)| a != b);
    assert_eq!((received.len(), differs), (sent.len(), None));
    let frame = mean_frame("rx", to_host)?;
    assert!(
        frame > 3000,
        "frames to the host have {frame} bytes: no offload"
    );
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
