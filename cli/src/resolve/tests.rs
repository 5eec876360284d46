//! Defaults and conflicts.

use std::fs;
use std::path::{Path, PathBuf};

use devices::registry::DeviceConfig;

use super::*;
use crate::config::{Cache, ConfigDir, OnBackendExit, Poll, Vhost};

/// Resolves slot `name` from the given host file and slot file.
pub(super) fn resolve(name: &str, host: &str, slot: &str) -> Result<Slot, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("slots")).unwrap();
    fs::write(dir.path().join("host.toml"), host).unwrap();
    if !slot.is_empty() {
        fs::write(dir.path().join(format!("slots/{name}.toml")), slot).unwrap();
    }
    let config = ConfigDir::new(dir.path().to_owned());
    let host = config.host().unwrap();
    let loaded = config.slot(&name.parse().unwrap()).unwrap();
    let prefix = format!("{}/slots/", dir.path().display());
    Slot::resolve(&host, &loaded).map_err(|error| error.to_string().replace(&prefix, ""))
}

pub(super) const HOST: &str = "[defaults.boot]\nbootstrap = \"/b.squashfs\"\n";

pub(super) fn error(slot: &str) -> String {
    resolve("slot1", HOST, slot)
        .unwrap_err()
        .replace("Configuration is not valid: ", "")
}

#[test]
fn a_slot_without_a_file_has_everything_from_its_name() {
    let slot = resolve("slot7", HOST, "").unwrap();
    assert_eq!(
        (
            slot.index.get(),
            slot.machine.vcpus,
            slot.machine.memory_mib
        ),
        (7, 1, 1024)
    );
    let [bootstrap, data] = slot.disks.as_slice() else {
        panic!("expected two disks")
    };
    assert_eq!((bootstrap.position, bootstrap.usage), (0, Use::ReadOnly));
    assert_eq!(bootstrap.path, Path::new("/b.squashfs"));
    assert_eq!((data.position, data.usage), (1, Use::Exclusive));
    assert_eq!(data.path, Path::new("/var/lib/microvms/slot7/data.img"));
    let create = data.create.as_ref().unwrap();
    assert_eq!(
        (create.size_mib, create.label.as_str()),
        (Some(65536), "microvm-root")
    );
    let [nic] = slot.nics.as_slice() else {
        panic!("expected one card")
    };
    assert_eq!((nic.tap.as_str(), nic.position), ("vm-slot7", 8));
    assert_eq!(nic.mac_text(), "02:00:00:00:00:07");
    assert_eq!(
        slot.paths.control_socket,
        Path::new("/run/slotvmm/slot7/control.sock")
    );
}

#[test]
fn the_uuid_belongs_to_the_slot() {
    let uuid = |name| resolve(name, HOST, "").unwrap().machine.uuid;
    assert_eq!(uuid("slot1"), uuid("slot1"));
    assert_ne!(uuid("slot1"), uuid("slot2"));
}

#[test]
fn the_slots_file_wins_over_the_hosts_defaults() {
    let host = "state_dir = \"/s\"\n[defaults.boot]\nbootstrap = \"/b\"\nparams = [\"a\"]\n\
                [defaults.machine]\nvcpus = 2\nmemory = 512\n[defaults.data]\nlabel = \"x\"\n";
    let slot = resolve(
        "slot1",
        host,
        "[machine]\nvcpus = 3\n[boot]\nkernel = \"/k\"\n",
    )
    .unwrap();
    assert_eq!((slot.machine.vcpus, slot.machine.memory_mib), (3, 512));
    let files = BootSource::Files {
        kernel: PathBuf::from("/k"),
        initrd: None,
    };
    assert_eq!(slot.boot.source, files);
    assert!(slot.boot.params.contains(&"a".to_owned()));
    // Without a bootstrap its position stays empty, so the data image stays /dev/vda's neighbour.
    let [data] = slot.disks.as_slice() else {
        panic!("expected one disk")
    };
    assert_eq!(
        (data.position, data.path.as_path()),
        (1, Path::new("/s/slot1/data.img"))
    );
    assert_eq!(data.create.as_ref().unwrap().label, "x");
}

#[test]
fn a_disk_or_card_never_moves_another() {
    let more = "[[disk]]\npath = \"/d\"\nposition = 5\n[[net]]\n[[net]]\ntap = \"t\"\n\
                mac = \"02:00:00:00:01:01\"\nposition = 9\n";
    let (few, many) = (
        resolve("slot1", HOST, "").unwrap(),
        resolve("slot1", HOST, more).unwrap(),
    );
    let positions = |slot: &Slot| -> Vec<(String, u8)> {
        let disks = slot
            .disks
            .iter()
            .map(|disk| (disk.id.clone(), disk.position));
        disks
            .chain(slot.nics.iter().map(|nic| (nic.id.clone(), nic.position)))
            .collect()
    };
    let (few, many) = (positions(&few), positions(&many));
    assert!(
        few.iter().all(|device| many.contains(device)),
        "{few:?} {many:?}"
    );
    assert_eq!(many.len(), few.len() + 2);
}

#[test]
fn a_slot_with_another_name_needs_an_index_and_short_interface_names() {
    let error = resolve("web", HOST, "").unwrap_err();
    assert!(
        error.contains("slot web needs an index from 1 to 255"),
        "{error}"
    );
    let slot = resolve("web", HOST, "index = 20").unwrap();
    assert_eq!(slot.nics[0].tap.as_str(), "vm-web");
    assert_eq!(slot.net().guest().to_string(), "10.20.0.2");
    let long = resolve("a-long-slot-name", HOST, "index = 20").unwrap_err();
    assert!(long.contains("the kernel allows 15"), "{long}");
    assert!(
        long.contains("`net.tap`") && long.contains("`net.bridge`"),
        "{long}"
    );
}

#[test]
fn contradictions_are_placed() {
    let cases = [
        (
            "index = 2",
            "slot1.toml:1:9: `index`: expected 1, which the name slot1 says, found 2",
        ),
        (
            "[boot]\nbootstrap = \"/b\"\nkernel = \"/k\"",
            "slot1.toml:3:10: `boot.kernel`: expected one source",
        ),
        (
            "[boot]\ninitrd = \"/i\"",
            "slot1.toml:2:10: `boot.initrd`: an initrd alone",
        ),
        (
            "[[disk]]\npath = \"/a\"\nposition = 2\n[[disk]]\npath = \"/b\"\nposition = 2\n",
            "slot1.toml:4:1: `disk[1]`: position 2 is used twice, by disk2 and by disk2",
        ),
        (
            "[[disk]]\npath = \"/var/lib/microvms/slot1/data.img\"\nposition = 2\n",
            "slot1.toml:1:1: `disk[0]`: disk /var/lib/microvms/slot1/data.img is used twice, by data",
        ),
        (
            "[[net]]\n[[net]]\ntap = \"vm-slot1\"\nmac = \"02:00:00:00:01:01\"\nposition = 9\n",
            "slot1.toml:2:1: `net[1]`: tap vm-slot1 is used twice, by net0 and by net1",
        ),
        (
            "[[net]]\n[[net]]\ntap = \"t\"\nmac = \"02:00:00:00:00:01\"\nposition = 9\n",
            "slot1.toml:2:1: `net[1]`: MAC 02:00:00:00:00:01 is used twice, by net0 and by net1",
        ),
        (
            "[[net]]\n[[net]]\ntap = \"t\"\n",
            "slot1.toml:2:1: `net[1]`: only the first network card has defaults; missing here: mac, position",
        ),
        (
            "[machine]\nmemory = 1",
            "slot1.toml:2:10: `machine.memory`: expected 32 MiB to",
        ),
    ];
    for (slot, expected) in cases {
        let error = error(slot);
        assert!(
            error.starts_with(expected),
            "{slot}\n  {error}\n  {expected}"
        );
    }
}

#[test]
fn nothing_to_boot_says_where_to_set_it() {
    let error = resolve("slot1", "", "").unwrap_err();
    assert!(
        error.contains("set `boot.bootstrap` in a file slots/slot1.toml"),
        "{error}"
    );
}

#[test]
fn one_preset_image_for_every_slot_is_refused() {
    let host = format!("{HOST}[defaults.data]\npath = \"/d\"\n");
    let error = resolve("slot1", &host, "").unwrap_err();
    assert!(
        error.contains("one image cannot serve every slot"),
        "{error}"
    );
}

#[test]
fn socket_paths_must_fit_a_socket() {
    let host = format!("run_dir = \"/{}\"\n{HOST}", "r".repeat(100));
    let error = resolve("slot1", &host, "").unwrap_err();
    assert!(error.contains("a socket has room for 107"), "{error}");
}

#[test]
fn two_slots_do_not_share_what_only_one_can_have() {
    let one = resolve("slot1", HOST, "").unwrap();
    let other = resolve("slot2", HOST, "").unwrap();
    assert_eq!(unique::across(&[one.clone(), other.clone()]), Vec::new());

    let index = resolve(
        "web",
        HOST,
        "index = 1\n[[net]]\nmac = \"02:00:00:00:02:01\"\n",
    )
    .unwrap();
    let problems = unique::across(&[one.clone(), index]);
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        ["`index`: index 1 is used by slots slot1 and web: change it in one of them"]
    );

    let tap = resolve("slot3", HOST, "[[net]]\ntap = \"vm-slot1\"\n").unwrap();
    let disk = resolve(
        "slot4",
        HOST,
        "[data]\npath = \"/var/lib/microvms/slot1/data.img\"\n",
    )
    .unwrap();
    assert_eq!(unique::across(&[one.clone(), tap]).len(), 1);
    assert_eq!(unique::across(&[one, disk]).len(), 1);
}

#[test]
fn one_image_under_two_names_is_one_image() {
    let dir = tempfile::tempdir().unwrap();
    let (image, link) = (dir.path().join("image"), dir.path().join("link"));
    fs::write(&image, [0; 512]).unwrap();
    std::os::unix::fs::symlink(&image, &link).unwrap();
    let slot = format!("[data]\npath = {image:?}\n[[disk]]\npath = {link:?}\nposition = 2\n",);
    assert!(error(&slot).contains("is used twice, by data and by disk2"));
}

#[test]
fn the_machine_gets_every_device_at_its_position() {
    let slot = resolve(
        "slot1",
        HOST,
        "[[disk]]\npath = \"/d\"\nposition = 2\nreadonly = true\n",
    )
    .unwrap();
    let config = plan::vm_config(&slot);
    let devices: Vec<(String, u8)> = config
        .devices
        .iter()
        .map(|device| (device.id().to_string(), device.position().0))
        .collect();
    let expected = [
        ("bootstrap", 0),
        ("data", 1),
        ("disk2", 2),
        ("net0", 8),
        ("rng0", 12),
        ("vsock0", 13),
    ];
    assert_eq!(
        devices,
        expected.map(|(id, position)| (id.to_owned(), position))
    );
    config.validate().unwrap();
}

#[test]
fn a_slot_has_a_cid_of_its_own_unless_it_says() {
    let cid = |slot: &str| {
        let slot = resolve("slot7", HOST, slot).unwrap();
        slot.vsock.map(|vsock| vsock.cid)
    };
    assert_eq!(cid(""), Some(9));
    assert_eq!(cid("[vsock]\ncid = 4294967294\n"), Some(u32::MAX - 1));
    assert_eq!(cid("[vsock]\nenabled = false\n"), None);
}

#[test]
fn a_slot_can_do_without_data_and_network() {
    let slot = resolve("slot1", HOST, "net = []\n[data]\nenabled = false\n").unwrap();
    assert!(slot.nics.is_empty());
    let [bootstrap] = slot.disks.as_slice() else {
        panic!("expected one disk")
    };
    assert_eq!(bootstrap.id, "bootstrap");
}

#[test]
fn a_share_is_served_by_ourselves_and_read_only() {
    let slot = resolve(
        "slot1",
        HOST,
        "[machine]\nvcpus = 6\n[[fs]]\ntag = \"ro-store\"\nsource = \"/nix/store\"\n",
    )
    .unwrap();
    let [share] = slot.shares.as_slice() else {
        panic!("expected one share")
    };
    assert_eq!((share.id.as_str(), share.position), ("fs14", 14));
    assert_eq!((share.tag.as_str(), share.queues), ("ro-store", 4));
    assert_eq!(share.on_backend_exit, OnBackendExit::Restart);
    assert!(matches!(
        &share.backend,
        Backend::BuiltIn { source, cache: Cache::Always, dax_mib: None, poll: Poll::Auto }
            if source == Path::new("/nix/store")
    ));
}

#[test]
fn a_share_has_the_window_that_it_asks_for() {
    let window = |dax: &str| {
        let share = format!("[[fs]]\ntag = \"a\"\nsource = \"/a\"\ndax = {dax}\n");
        let slot = resolve("slot1", HOST, &share).unwrap();
        match &slot.shares[0].backend {
            Backend::BuiltIn { dax_mib, .. } => *dax_mib,
            Backend::External { .. } => None,
        }
    };
    assert_eq!(window("false"), None);
    assert_eq!(window("16"), Some(16));
    assert_eq!(window("\"1GiB\""), Some(1024));
    assert_eq!(window("\"16GiB\""), Some(16 << 10));
}

#[test]
fn shares_of_others_fail_with_their_backend() {
    let slot = resolve(
        "slot1",
        HOST,
        "[[fs]]\ntag = \"home\"\nsocket = \"/run/v.sock\"\nreadonly = false\nposition = 7\n",
    )
    .unwrap();
    let [share] = slot.shares.as_slice() else {
        panic!("expected one share")
    };
    assert_eq!((share.position, share.queues), (7, 1));
    assert_eq!(share.on_backend_exit, OnBackendExit::Fail);
}

#[test]
fn shares_that_contradict_themselves_are_refused() {
    let share = |rest: &str| error(&format!("[[fs]]\ntag = \"a\"\n{rest}"));
    let cases = [
        ("", "nothing to share"),
        ("source = \"/a\"\nsocket = \"/b\"\n", "remove one of them"),
        ("source = \"/a\"\nreadonly = false\n", "run virtiofsd"),
        (
            "socket = \"/b\"\nreadonly = true\n",
            "whoever starts the backend",
        ),
        (
            "socket = \"/b\"\ncache = \"auto\"\n",
            "whoever starts the backend",
        ),
        (
            "socket = \"/b\"\non_backend_exit = \"restart\"\n",
            "only \"fail\" is possible",
        ),
        (
            "socket = \"/b\"\ndax = \"1GiB\"\n",
            "only the built-in backend",
        ),
        (
            "source = \"/a\"\ncache = \"never\"\ndax = \"1GiB\"\n",
            "a window is of no use",
        ),
        (
            "source = \"/a\"\nposition = 8\n",
            "position 8 is used twice, by net0 and by fs8",
        ),
        (
            "source = \"/a\"\nposition = 12\n",
            "position 12 is used twice",
        ),
        (
            "source = \"/a\"\n[[fs]]\ntag = \"a\"\nsource = \"/b\"\n",
            "tag a is used twice, by fs14 and by fs15",
        ),
        (
            "source = \"/a\"\n[[fs]]\ntag = \"b\"\nsource = \"/b\"\n\
             [[fs]]\ntag = \"c\"\nsource = \"/c\"\n",
            "only the first two shares have a position by default",
        ),
    ];
    for (rest, message) in cases {
        let error = share(rest);
        assert!(error.contains(message), "{rest}: {error}");
    }
}

#[test]
fn two_slots_do_not_share_an_external_backend() {
    let text = "[[fs]]\ntag = \"home\"\nsocket = \"/run/v.sock\"\n";
    let slots = ["slot1", "slot2"].map(|name| resolve(name, HOST, text).unwrap());
    let problems = unique::across(&slots);
    assert!(
        problems
            .iter()
            .any(|problem| problem.message.contains("socket /run/v.sock")),
        "{problems:?}"
    );
}

#[test]
fn a_card_has_a_pair_of_queues_per_cpu_unless_it_says_how_many() {
    let queues = |slot: &str| resolve("slot1", HOST, slot).unwrap().nics[0].queues;
    assert_eq!(queues(""), Queues::AtMost(1));
    assert_eq!(queues("[machine]\nvcpus = 3\n"), Queues::AtMost(3));
    assert_eq!(queues("[machine]\nvcpus = 16\n"), Queues::AtMost(8));
    assert_eq!(queues("[[net]]\nqueues = 4\n"), Queues::Set(4));
}

#[test]
fn limits_have_a_burst_of_a_tenth_of_a_second_unless_they_say_another() {
    let slot = "[[net]]\n[net.rx]\nbandwidth = \"10MiB\"\npackets = 100\n\
                [net.tx]\nbandwidth = 1000\nburst = \"1KiB\"\n";
    let slot = resolve("slot1", HOST, slot).unwrap();
    let [nic] = slot.nics.as_slice() else {
        panic!("expected one card")
    };
    let rate =
        |rate: Option<limits::Rate>| rate.map(|rate| (rate.per_second.get(), rate.burst.get()));
    assert_eq!(rate(nic.rx.bytes), Some((10 << 20, 1 << 20)));
    assert_eq!(rate(nic.rx.packets), Some((100, 64)));
    assert_eq!(rate(nic.tx.bytes), Some((1000, 1024)));
    assert_eq!(rate(nic.tx.packets), None);
}

#[test]
fn a_burst_without_a_rate_is_refused() {
    for (slot, expected) in [
        (
            "[[net]]\n[net.rx]\nburst = 5\n",
            "slot1.toml:3:9: `net[0].rx.burst`: limits nothing alone: set `bandwidth` as well",
        ),
        (
            "[[net]]\n[net.tx]\npacket_burst = 5\n",
            "slot1.toml:3:16: `net[0].tx.packet_burst`: limits nothing alone: set `packets` as well",
        ),
    ] {
        assert_eq!(error(slot), expected, "{slot}");
    }
}

#[test]
fn a_card_that_answers_dhcp_tells_the_addresses_of_its_slot() {
    let slot = "[boot]\nidentity = \"none\"\n[[net]]\ndhcp = true\nmtu = 1400\n";
    let slot = resolve("slot7", HOST, slot).unwrap();
    let machine = plan::vm_config(&slot);
    let lease = machine.devices.iter().find_map(|device| match device {
        DeviceConfig::Net(card) => card.dhcp.clone(),
        _ => None,
    });
    let lease = lease.unwrap();
    assert_eq!(lease.mac.0, [2, 0, 0, 0, 0, 7]);
    assert_eq!(lease.address.to_string(), "10.7.0.2");
    assert_eq!(
        (lease.gateway.to_string(), lease.prefix_len),
        ("10.7.0.1".to_owned(), 24)
    );
    assert_eq!((lease.hostname.as_str(), lease.mtu), ("slot7", Some(1400)));
}

#[test]
fn only_the_first_card_has_addresses_to_tell() {
    let second =
        "[[net]]\n[[net]]\ntap = \"t\"\nmac = \"02:00:00:00:01:01\"\nposition = 9\ndhcp = true\n";
    let found = error(second);
    assert!(
        found.contains("`net[1].dhcp`: only the first network card has addresses"),
        "{found}"
    );
}

#[test]
fn the_kernel_serves_no_card_that_asks_for_more_than_it_can() {
    for (more, key) in [
        ("dhcp = true", "dhcp"),
        ("rx = { packets = 5 }", "rx"),
        ("tx = { bandwidth = 5 }", "tx"),
    ] {
        let found = error(&format!("[[net]]\nvhost = true\n{more}\n"));
        let expected = format!("`net[0].vhost`: the kernel serves the queues then, and `{key}` is");
        assert!(found.contains(&expected), "{found}");
        let auto = resolve(
            "slot1",
            HOST,
            &format!("[[net]]\nvhost = \"auto\"\n{more}\n"),
        );
        assert_eq!(auto.unwrap().nics[0].vhost, Vhost::Off, "{more}");
    }
    let auto = resolve("slot1", HOST, "[[net]]\nvhost = \"auto\"\n").unwrap();
    assert_eq!(auto.nics[0].vhost, Vhost::Auto);
}

#[test]
fn a_virtio_console_takes_its_place_and_is_what_the_kernel_is_told_of() {
    let slot = resolve("slot1", HOST, "console.mode = \"hvc\"\n").unwrap();
    assert_eq!(slot.boot.params.last().unwrap(), "console=hvc0");
    let named = |text: &str| slot.boot.defaults.iter().any(|param| param.text == text);
    assert!(!named("console=ttyS0") && named("panic=-1"));
    let machine = plan::vm_config(&slot);
    let console = machine.devices.last().unwrap();
    assert!(matches!(console, DeviceConfig::Console(config) if config.position.0 == 11));

    let preset = format!("{HOST}[defaults.console]\nmode = \"hvc\"\n");
    let own = "boot.params = [\"console=ttyS0\"]\n";
    let slot = resolve("slot1", &preset, own).unwrap();
    assert!(!slot.boot.params.contains(&"console=hvc0".to_owned()));
    let serial = resolve("slot1", &preset, "console.mode = \"serial\"\n").unwrap();
    assert_eq!(plan::vm_config(&serial).devices.len(), 5);

    let taken = error(
        "console.mode = \"hvc\"\n[[net]]\n[[net]]\nposition = 11\ntap = \"t1\"\nmac = \"02:00:00:00:01:01\"\n",
    );
    assert!(taken.contains("the virtio console"), "{taken}");
}
