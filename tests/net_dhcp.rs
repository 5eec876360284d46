//! The DHCP server in the network card, asked by a real client.

use anyhow::Result;
use fixture::{Lab, net};

/// What the client has its script do on each event; it prints what it was told.
const SCRIPT: &str = concat!(
    r#"printf '%s\n' '#!/bin/busybox sh' "#,
    r#"'echo "$1 $interface $ip/$mask via $router dns $dns name $hostname mtu $mtu "#,
    r#"for $lease by $serverid"' "#,
    r#"'[ "$1" != bound ] || busybox ip addr add $ip/$mask dev $interface' "#,
    r#">/tmp/told; chmod +x /tmp/told"#,
);

/// One exchange, or an exit status that is not 0.
const ASK: &str = "udhcpc -i eth0 -n -q -f -t 5 -s /tmp/told";

#[test]
fn guest_gets_the_address_of_its_slot_by_dhcp() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[[net]]\ndhcp = true\nmtu = 1400\n")?;
    let mut vm = slot.boot()?;
    assert!(net::answers_ping()?);
    vm.guest.run(SCRIPT)?;
    vm.guest.run("ip addr flush dev eth0")?;
    assert!(net::is_silent()?, "there is an address still");

    let told = vm.guest.run(&format!("{ASK} 2>/dev/null"))?;
    let bound = "bound eth0 10.1.0.2/24 via 10.1.0.1 dns 10.1.0.1 name slot1 mtu 1400 \
                 for 43200 by 10.1.0.1";
    assert!(told.lines().any(|line| line == bound), "{told}");
    assert!(
        net::answers_ping()?,
        "no answer at the address of the lease"
    );

    // A state that comes from another slot asks for its old address, and gets this slot's.
    let asked = vm.guest.run(&format!("{ASK} -r 10.9.0.2 2>/dev/null"))?;
    assert!(asked.contains("bound eth0 10.1.0.2/24"), "{asked}");

    // It keeps answering after a pause, and the card does all else it does.
    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    slot.call(&["resume", "slot1"])?.expect_code(0)?;
    vm.guest.run(&format!("{ASK} >/dev/null 2>&1"))?;
    assert!(net::answers_ping()?);
    vm.power_off()?;
    Ok(())
}

#[test]
fn guest_without_it_gets_no_answer() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let mut vm = lab.slot("")?.boot()?;
    vm.guest.run(SCRIPT)?;
    let (_, status) = vm
        .guest
        .attempt("udhcpc -i eth0 -n -q -f -t 2 -T 1 -s /tmp/told 2>/dev/null")?;
    assert_ne!(status, 0);
    vm.power_off()?;
    Ok(())
}
