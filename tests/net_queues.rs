//! Several pairs of queues: the guest serves each, a pause keeps them, a tap of one queue does.

use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Result, bail};
use fixture::{Lab, Slot, net};

/// Bytes of each of the streams that are sent at the same time.
const STREAM: usize = 2 << 20;

/// Streams at the same time; the tap divides them among its queues by their ports.
const STREAMS: u8 = 4;

const SLOT: &str = "[machine]\nvcpus = 2\n";

/// Puts a tap with `flags` in the place of the slot's.
fn replace_tap(slot: &Slot, flags: &[&str]) -> Result<()> {
    let steps = [
        vec!["link", "del", "vm-slot1"],
        [&["tuntap", "add", "vm-slot1", "mode", "tap"], flags].concat(),
        vec!["link", "set", "vm-slot1", "master", "br-slot1", "up"],
    ];
    for step in &steps {
        if !Command::new("ip").args(step).status()?.success() {
            bail!("ip {step:?} failed for {}", slot.path("").display());
        }
    }
    Ok(())
}

/// Queues of the tap that frames are divided among.
fn attached_queues() -> usize {
    (0..9)
        .take_while(|queue| {
            Path::new(&format!("/sys/class/net/vm-slot1/queues/tx-{queue}")).exists()
        })
        .count()
}

/// Sends a stream to each of the guest's listeners at the same time, and compares what comes back.
fn exchange() -> Result<()> {
    let streams: Vec<_> = (0..STREAMS)
        .map(|seed| {
            thread::spawn(move || -> Result<bool> {
                let sent: Vec<u8> = (0..251)
                    .map(|byte| byte ^ seed)
                    .cycle()
                    .take(STREAM)
                    .collect();
                let stream = net::connect(7000 + u16::from(seed))?;
                let writer = stream.try_clone()?;
                let copy = sent.clone();
                let sending = thread::spawn(move || net::send_all(&writer, &copy));
                let received = net::receive_all(&stream)?;
                Ok(matches!(sending.join(), Ok(Ok(()))) && received == sent)
            })
        })
        .collect();
    for stream in streams {
        if !matches!(stream.join(), Ok(Ok(true))) {
            bail!("a stream did not come back as it was sent");
        }
    }
    Ok(())
}

/// Threads of ours that serve queues, beside the card's own.
fn pair_threads(pid: u32) -> Result<usize> {
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = std::fs::read_to_string(thread?.path().join("comm"))?;
        threads += usize::from(name.starts_with("net0."));
    }
    Ok(threads)
}

#[test]
fn two_cpus_use_two_pairs_through_a_pause_and_a_restart_of_the_card() -> Result<()> {
    use_two_pairs("", 1)
}

#[test]
fn pairs_that_the_kernel_serves_do_as_well() -> Result<()> {
    use_two_pairs("[[net]]\nvhost = true\n", 0)
}

#[test]
fn kernel_that_is_not_allowed_to_serve_a_card_is_an_error_unless_it_may_be_absent() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot("[[net]]\nvhost = true\n")?;
    let none = None::<&str>;
    nix::mount::mount(
        Some("/dev/null"),
        "/dev/vhost-net",
        none,
        nix::mount::MsFlags::MS_BIND,
        none,
    )?;
    slot.call(&["run", "slot1"])?.expect_error(31, "vhost")?;
    slot.write_slot("[[net]]\nvhost = \"auto\"\n")?;
    let vm = slot.boot()?;
    assert!(net::answers_ping()?);
    vm.power_off()?;
    Ok(())
}

fn use_two_pairs(net: &str, threads: usize) -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot(&format!("{SLOT}{net}"))?;
    replace_tap(&slot, &["multi_queue", "vnet_hdr"])?;
    let mut vm = slot.boot()?;
    assert!(net::answers_ping()?);
    assert_eq!(
        vm.guest
            .run("cd /sys/class/net/eth0/queues; echo *; cd /")?,
        "rx-0 rx-1 tx-0 tx-1"
    );
    assert_eq!(attached_queues(), 2);
    assert_eq!(pair_threads(vm.pid())?, threads);
    for port in 0..STREAMS {
        vm.guest.run(&format!(
            "(while :; do nc -l -p 700{port} -e cat; done) 2>/dev/null &"
        ))?;
    }
    exchange()?;

    slot.call(&["pause", "slot1"])?.expect_code(0)?;
    slot.call(&["resume", "slot1"])?.expect_code(0)?;
    exchange()?;
    assert_eq!(attached_queues(), 2);

    vm.guest.run(
        "cd /sys/bus/virtio/drivers/virtio_net; card=$(echo virtio*); echo $card >unbind; \
         echo $card >bind; cd /; ip addr add 10.1.0.2/24 dev eth0; ip link set eth0 up",
    )?;
    assert!(
        net::answers_ping()?,
        "no answer after the driver started anew"
    );
    exchange()?;
    assert_eq!(attached_queues(), 2);
    vm.power_off()?;
    Ok(())
}

#[test]
fn tap_of_one_queue_makes_a_card_of_one_pair() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    let slot = lab.slot(&format!("{SLOT}[[net]]\nqueues = 2\n"))?;
    replace_tap(&slot, &["vnet_hdr"])?;
    let mut vm = slot.boot()?;
    assert!(net::answers_ping()?);
    assert_eq!(
        vm.guest
            .run("cd /sys/class/net/eth0/queues; echo *; cd /")?,
        "rx-0 tx-0"
    );
    vm.errors().see(0, "Tap was made for one queue")?;
    vm.power_off()?;
    Ok(())
}
