//! Two real guests under the rules of the host: what they reach, and what they do not. Every rule
//! is tried with namespaces in place of guests in `cli/tests/rules.rs`; here it is the whole way.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fixture::{Lab, PATIENCE, Slot, TestVm};
use nix::sched::{CloneFlags, setns, unshare};

/// The internet's end of the uplink, and the host's.
const INTERNET: &str = "203.0.113.1";
const HOST: &str = "203.0.113.2";

/// What answers on the internet, and what nobody may get at.
const PORTS: [u16; 3] = [80, 22, 853];

/// A network namespace behind the host's uplink.
struct Internet(File);

impl Internet {
    fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let Ok(namespace) = made.join() else {
            bail!("No namespace for the internet");
        };
        let internet = Self(namespace?);
        let path = format!("/proc/{}/fd/{}", std::process::id(), internet.0.as_raw_fd());
        ip(&format!(
            "link add uplink type veth peer name eth0 netns {path}"
        ))?;
        ip(&format!("addr add {HOST}/24 dev uplink"))?;
        ip("link set uplink up")?;
        internet.run(|| {
            ip("link set lo up")?;
            ip(&format!("addr add {INTERNET}/24 dev eth0"))?;
            ip("addr add 169.254.169.254/32 dev eth0")?;
            ip("link set eth0 up")
        })?;
        ip(&format!("route add default via {INTERNET}"))?;
        for port in PORTS {
            let listener = internet.run(|| Ok(TcpListener::bind(("0.0.0.0", port))?))?;
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let from = stream.peer_addr().map(|from| from.ip().to_string());
                    let _ = writeln!(stream, "{}", from.unwrap_or_default());
                }
            });
        }
        Ok(internet)
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread.join().unwrap_or_else(|_| bail!("It panicked"))
        })
    }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    ensure!(status.success(), "ip {arguments} failed");
    Ok(())
}

/// What `from` is told by whoever listens at `to`.
fn fetch(to: &str) -> Result<String> {
    let to: SocketAddr = to.parse()?;
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(30))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Boots a slot that is not the fixture's own.
fn boot(slot: &Slot, name: &str) -> Result<TestVm> {
    let mut vm = TestVm::start(slot.command(&["run", name, "--console"]))?;
    vm.guest.wait_ready()?;
    Ok(vm)
}

fn reaches(vm: &mut TestVm, to: &str) -> Result<bool> {
    let line = format!("nc -w 3 {to} </dev/null >/dev/null 2>&1");
    Ok(vm.guest.attempt(&line)?.1 == 0)
}

#[test]
fn guests_reach_the_web_and_not_each_other() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let internet = Internet::new()?;
    let slot = lab.slot("[net]\npublish = [{ host = 8080, guest = 80 }]\n")?;
    fs::write(slot.path("etc/slots/slot2.toml"), "")?;
    slot.call(&["net", "apply"])?.expect_code(0)?;
    let (mut one, mut two) = (slot.boot()?, boot(&slot, "slot2")?);
    for vm in [&mut one, &mut two] {
        let seen = vm
            .guest
            .run(&format!("nc -w 20 {INTERNET} 80 </dev/null"))?;
        assert_eq!(seen, HOST, "the internet sees the host");
        for other in ["22", "853"] {
            assert!(!reaches(vm, &format!("{INTERNET} {other}"))?, "{other}");
        }
        assert!(!reaches(vm, "169.254.169.254 80")?);
        vm.guest
            .run("(while :; do echo guest | nc -l -p 80; done) >/dev/null 2>&1 &")?;
    }
    // Listening before anybody asks: the host is let through.
    for guest in ["10.1.0.2:80", "10.2.0.2:80"] {
        assert_eq!(retry(|| fetch(guest))?, "guest");
    }
    assert!(!reaches(&mut one, "10.2.0.2 80")?);
    assert!(!reaches(&mut two, "10.1.0.2 80")?);
    for silent in ["10.2.0.2", "10.2.0.1"] {
        let ping = format!("ping -c 1 -W 2 {silent} >/dev/null");
        assert_ne!(one.guest.attempt(&ping)?.1, 0, "{silent}");
    }
    one.guest.run("ping -c 1 -W 10 10.1.0.1 >/dev/null")?;

    let published = format!("{HOST}:8080");
    assert_eq!(retry(|| internet.run(|| fetch(&published)))?, "guest");

    // Under an address that is not its own it reaches nobody, not even the host.
    one.guest.run("ip addr add 10.1.0.77/24 dev eth0")?;
    let spoofed = "ping -c 1 -W 2 -I 10.1.0.77 10.1.0.1 >/dev/null";
    assert_ne!(one.guest.attempt(spoofed)?.1, 0);
    let neighbours = Command::new("ip")
        .args(["neigh", "show", "dev", "br-slot1"])
        .output()?;
    assert!(!String::from_utf8_lossy(&neighbours.stdout).contains("10.1.0.77 "));
    one.power_off()?;
    two.power_off()?;
    Ok(())
}

/// The guest's server is away between two callers.
fn retry(ask: impl Fn() -> Result<String>) -> Result<String> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(text) => return Ok(text),
            Err(error) if std::time::Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn state_comes_up_under_the_address_of_its_slot() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("")?;
    let mut vm = slot.boot()?;
    vm.guest
        .run("mkdir -p /tmp/data && mount -t ext4 /dev/vdb /tmp/data && echo kept >/tmp/data/file && umount /tmp/data")?;
    let cmdline = vm.guest.run("cat /proc/cmdline")?;
    assert!(cmdline.contains("ip=10.1.0.2::10.1.0.1:255.255.255.0:slot1:eth0:off:10.1.0.1"));
    vm.power_off()?;

    // A slot with a network and a name of its own takes the same disk.
    let text = "index = 40\n[net]\nsubnet = \"192.168.40.0/28\"\ntap = \"vm-web\"\nbridge = \"br-web\"\nmac = \"02:00:00:00:00:28\"\n";
    fs::write(slot.path("etc/slots/webserver-two.toml"), text)?;
    slot.call(&["net", "apply", "webserver-two"])?
        .expect_code(0)?;
    let other = slot.path("state/webserver-two");
    fs::create_dir_all(&other)?;
    fs::rename(slot.data_image(), other.join("data.img")).context("Cannot move the image")?;
    let mut vm = boot(&slot, "webserver-two")?;
    vm.guest
        .run("mkdir -p /tmp/data && mount -t ext4 /dev/vdb /tmp/data")?;
    assert_eq!(vm.guest.run("cat /tmp/data/file")?, "kept");
    let cmdline = vm.guest.run("cat /proc/cmdline")?;
    let address =
        "ip=192.168.40.2::192.168.40.1:255.255.255.240:webserver-two:eth0:off:192.168.40.1";
    assert!(cmdline.contains(address), "{cmdline}");
    assert!(
        cmdline.contains("systemd.hostname=webserver-two"),
        "{cmdline}"
    );
    vm.guest.run("umount /tmp/data")?;
    vm.power_off()?;
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
