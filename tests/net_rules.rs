//! Real guests under the rules of the host: what they reach, and what they do not. Every rule is
//! tried with namespaces in place of guests in `cli/tests/rules.rs`, too.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Result, bail, ensure};
use fixture::internet::{HOST, IMDS, INTERNET, Internet, fetch, ip};
use fixture::{Lab, PATIENCE, Slot, TestVm};

/// What answers on the internet.
const PORTS: [u16; 3] = [80, 22, 853];

/// The files of five slots: egress of every class, and what only one of them may.
const SLOTS: [&str; 5] = [
    "publish = [{ host = 8080, guest = 80 }]\n",
    "egress = \"unrestricted\"\nallow_imds = true\n",
    "egress = \"none\"\n",
    "egress = [{ proto = \"tcp\", ports = [22] }, { proto = \"icmp\" }]\n",
    "",
];

/// The fifth may connect to the first, to one port.
const PAIR: &str = "[net]\nallow = [{ from = \"slot5\", to = \"slot1\", tcp = [5432] }]\n";

/// Ports of the internet and of a metadata service that each of the slots reaches, in order.
const REACHED: [&str; 5] = [
    "203.0.113.1:80",
    "203.0.113.1:80 203.0.113.1:22 203.0.113.1:853 169.254.169.254:80",
    "",
    "203.0.113.1:22",
    "203.0.113.1:80",
];

/// Puts a function into the guest that prints which of its arguments, ADDRESS:PORT, it reaches. It
/// asks all at once.
const REACH: &str = "reach() { p=; for t in $*; do \
    (nc -w 8 ${t%:*} ${t#*:} </dev/null >/dev/null 2>&1; echo $? >/tmp/r$t) & p=\"$p $!\"; done; wait $p; \
    for t in $*; do [ $(cat /tmp/r$t) != 0 ] || echo $t; done; }";

/// As [`REACH`], by ping, for addresses.
const PINGS: &str = "pings() { p=; for t in $*; do \
    (ping -c 1 -W 8 $t >/dev/null 2>&1; echo $? >/tmp/p$t) & p=\"$p $!\"; done; wait $p; \
    for t in $*; do [ $(cat /tmp/p$t) != 0 ] || echo $t; done; }";

/// Boots the five, each with web servers at ports 80 and 5432 that say which it is.
fn boot_all(slot: &Slot) -> Result<Vec<TestVm>> {
    let names: Vec<String> = (1..=5).map(|n| format!("slot{n}")).collect();
    let start = |name: &String| TestVm::start(slot.command(&["run", name, "--console"]));
    let mut vms = names.iter().map(start).collect::<Result<Vec<_>>>()?;
    on_all(&mut vms, |n, vm| {
        vm.guest.wait_ready()?;
        vm.guest.run(REACH)?;
        vm.guest.run(PINGS)?;
        vm.guest.run("mkdir -p /tmp/www")?;
        vm.guest
            .run(&format!("echo guest {n} >/tmp/www/index.html"))?;
        // It listens before it goes into the background.
        for port in [80, 5432] {
            vm.guest.run(&format!("httpd -p {port} -h /tmp/www"))?;
        }
        Ok(())
    })?;
    Ok(vms)
}

/// Does `work` with all guests at once, the first one being number 1.
fn on_all(
    vms: &mut [TestVm],
    work: impl Fn(usize, &mut TestVm) -> Result<()> + Sync,
) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = vms
            .iter_mut()
            .zip(1..)
            .map(|(vm, n)| scope.spawn(move || work(n, vm)))
            .collect();
        for (thread, n) in threads.into_iter().zip(1..) {
            match thread.join() {
                Ok(done) => done.map_err(|error| error.context(format!("slot{n}")))?,
                Err(_) => bail!("slot{n} panicked"),
            }
        }
        Ok(())
    })
}

/// What of `targets` the guest reaches by TCP, or by ping where they have no port.
fn reached(vm: &mut TestVm, targets: &[String]) -> Result<Vec<String>> {
    let with_port = targets.iter().any(|target| target.contains(':'));
    let command = if with_port { "reach" } else { "pings" };
    let found = vm.guest.run(&format!("{command} {}", targets.join(" ")))?;
    Ok(found.split_whitespace().map(str::to_owned).collect())
}

/// The same of every guest, by number.
fn of_all(pattern: &str) -> Vec<String> {
    (1..=5)
        .map(|n| pattern.replace('N', &n.to_string()))
        .collect()
}

#[test]
fn five_guests_reach_what_their_slots_may_and_not_each_other() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let internet = Internet::new(&PORTS)?;
    let slot = five_slots(&lab)?;
    slot.call(&["net", "apply"])?.expect_code(0)?;
    let mut vms = boot_all(&slot)?;

    for (n, address) in (1..).zip(of_all("10.N.0.2:80")) {
        assert_eq!(fetch(&address)?, format!("guest {n}"), "the host is let in");
    }
    let published = format!("{HOST}:8080");
    assert_eq!(internet.run(|| fetch(&published))?, "guest 1");
    let seen = vms[0]
        .guest
        .run(&format!("nc -w 20 {INTERNET} 80 </dev/null"))?;
    assert_eq!(seen, HOST, "the internet sees the host");

    on_all(&mut vms, |n, vm| {
        let outside: Vec<String> = PORTS
            .iter()
            .map(|port| format!("{INTERNET}:{port}"))
            .chain([format!("{IMDS}:80")])
            .collect();
        assert_eq!(reached(vm, &outside)?.join(" "), REACHED[n - 1], "slot{n}");
        // Its own server answers, those of others do not, but for the pair.
        let own = format!("10.{n}.0.2");
        assert_eq!(reached(vm, &of_all("10.N.0.2:80"))?, [format!("{own}:80")]);
        let databases = reached(vm, &of_all("10.N.0.2:5432"))?;
        let pair = (n == 5).then(|| "10.1.0.2:5432".to_owned());
        let expected: Vec<String> = pair.into_iter().chain([format!("{own}:5432")]).collect();
        assert_eq!(databases, expected, "slot{n}");
        assert_eq!(reached(vm, &of_all("10.N.0.2"))?, [own]);
        assert_eq!(reached(vm, &of_all("10.N.0.1"))?, [format!("10.{n}.0.1")]);
        Ok(())
    })?;
    only_unrestricted_datagrams_arrive(&internet, &mut vms)?;
    on_all(&mut vms, lies_get_nowhere)?;
    for vm in vms {
        vm.power_off()?;
    }
    Ok(())
}

fn five_slots(lab: &Lab) -> Result<Slot> {
    let slot = lab.slot("")?;
    let bootstrap = lab.image("mini/6.1-cloud.squashfs");
    slot.write_host(&format!(
        "{PAIR}[defaults.boot]\nbootstrap = {bootstrap:?}\n[defaults.machine]\nmemory = 192\n\
         [defaults.data]\nenabled = false\n"
    ))?;
    for (n, text) in (1..).zip(SLOTS) {
        let path = slot.path(&format!("etc/slots/slot{n}.toml"));
        fs::write(path, format!("[net]\n{text}"))?;
    }
    Ok(slot)
}

/// Each asks a name server on the internet for a name of its own, the one that may as the last.
fn only_unrestricted_datagrams_arrive(internet: &Internet, vms: &mut [TestVm]) -> Result<()> {
    let queries = internet.datagrams(53)?;
    for n in [1, 3, 4, 5, 2] {
        let ask = format!("timeout 3 nslookup asked-by-{n} {INTERNET} >/dev/null 2>&1; true");
        vms[n - 1].guest.run(&ask)?;
    }
    let first = queries.recv_timeout(PATIENCE)?;
    ensure!(first.contains("asked-by-2"), "{first:?} came through");
    Ok(())
}

/// Under addresses that are not its own a guest reaches nobody, not even the host.
fn lies_get_nowhere(n: usize, vm: &mut TestVm) -> Result<()> {
    let (gateway, next) = (format!("10.{n}.0.1"), n % 5 + 1);
    let ping = |from: &str| format!("ping -c 1 -W 3 -I {from} {gateway} >/dev/null");
    vm.guest.run(&ping(&format!("10.{n}.0.2")))?;
    let others = [format!("10.{n}.0.77"), format!("10.{next}.0.2")];
    for address in &others {
        vm.guest
            .run(&format!("ip addr add {address}/32 dev eth0"))?;
        assert_ne!(vm.guest.attempt(&ping(address))?.1, 0, "as {address}");
        // The host has not even learned of it.
        let bridge = format!("br-slot{n}");
        let neighbours = Command::new("ip")
            .args(["neigh", "show", "dev", &bridge])
            .output()?;
        let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
        assert!(!neighbours.contains(&format!("{address} ")), "{neighbours}");
    }
    // As somebody else's card.
    vm.guest.run("ip link set eth0 down")?;
    vm.guest
        .run("ip link set eth0 address 02:00:00:00:00:99 up")?;
    assert_ne!(vm.guest.attempt(&ping(&format!("10.{n}.0.2")))?.1, 0);
    vm.guest.run("ip link set eth0 down")?;
    vm.guest
        .run(&format!("ip link set eth0 address 02:00:00:00:00:0{n} up"))?;
    vm.guest.run(&ping(&format!("10.{n}.0.2")))?;
    Ok(())
}

#[test]
fn run_says_what_the_network_lacks_and_brings_it_up_if_told_to() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    ip("link set br-slot1 down")?;
    ip("addr del 10.1.0.1/24 dev br-slot1")?;
    let ended = slot.call(&["run", "slot1"])?;
    let ended = ended.expect_error(31, "The network of slot1 is not complete")?;
    for said in [
        "`slotvmm net apply slot1`",
        "expected 10.1.0.1/24, found none",
        "expected up, found down",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    slot.call(&["net", "down"])?.expect_code(0)?;
    slot.write_slot("[net]\nauto = true\n")?;
    let mut vm = slot.boot()?;
    vm.guest.run("ping -c 1 -W 10 10.1.0.1 >/dev/null")?;
    vm.power_off()?;
    Ok(())
}
