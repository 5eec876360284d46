//! Credentials from files of the host to units of real guests, and to nowhere else.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fixture::search;
use fixture::share::digest;
use fixture::system::{Distribution, Overlay};
use fixture::{Ended, Lab, Slot, TestVm};

/// Small credentials; with three others there are 200 that the guest asks for.
const SMALL: usize = 197;

/// Most bytes of a credential.
const LARGEST: usize = 1 << 20;

/// Most that systemd gives to a unit, its name included.
const LARGEST_IN_UNIT: usize = LARGEST - "HOST-large".len();

/// Bytes of a mark, in hexadecimal digits.
const MARK: usize = 32;

/// Where a unit leaves the sums of what it got.
const LOOK: &str = "ExecStart=/bin/bash -c 'cd $CREDENTIALS_DIRECTORY && sha256sum * >/run/%N'\n";

const ONCE_AT_BOOT: &str = "[Unit]\nAfter=lab-shell.service\n\
                            [Service]\nType=oneshot\nRemainAfterExit=yes\n";

/// Connects from a port that anybody can have, and says what comes of it.
const ANYBODY: &str = "socket(S,40,1,0) or die \"no socket: $!\\n\";\n\
    connect(S,pack('SSLLx4',40,0,5121,2)) or die \"refused: $!\\n\";\n\
    syswrite S,\"LIST\\n\"; sysread S,$_,99; print \"answered: $_\\n\";\n";

/// Names every place of the guest, outside of memory that only credentials are in, that has the
/// first bytes of a credential.
const SCAN: &str = "cd /run\n\
    head -c 32 credstore/HOST-once >needle\n\
    grep -qaF -f needle credstore/HOST-large || echo nothing is found at all\n\
    journalctl --sync\n\
    journalctl -ab --no-pager >lab-journal\n\
    dmesg >lab-dmesg\n\
    grep -laF -f needle -s lab-journal lab-dmesg /proc/cmdline /proc/[0-9]*/cmdline \
    /proc/[0-9]*/environ\n\
    grep -rlaF -f needle -s --exclude-dir=credentials --exclude-dir=credstore \
    --exclude=needle /run/log /run/systemd /etc /var /tmp /root /home\n\
    true\n";

/// The credentials of a slot.
struct Secrets {
    /// By their names in the guest, in order of bytes.
    values: Vec<(String, Vec<u8>)>,
    /// What every value begins with that is long enough.
    mark: String,
}

impl Secrets {
    /// Values that break whatever handles text, of any length.
    fn new() -> Result<Self> {
        let mut random = [0u8; MARK / 2];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let mark: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let large = |bytes| {
            mark.bytes()
                .chain(0..=u8::MAX)
                .cycle()
                .take(bytes)
                .collect()
        };
        let mut values = vec![
            ("HOST-large".to_owned(), large(LARGEST_IN_UNIT)),
            ("HOST-largest".to_owned(), large(LARGEST)),
            ("HOST-once".to_owned(), format!("{mark} once").into_bytes()),
        ];
        let small = (0..SMALL).map(|number| (format!("HOST-s{number:03}"), value(&mark, number)));
        values.extend(small);
        Ok(Self { values, mark })
    }

    /// Writes them below the slot's directory, half of them where systemd puts them for a unit, and
    /// returns the tables of the slot's file.
    fn write(&self, slot: &Slot) -> Result<String> {
        let (unit, files) = (slot.path("unit"), slot.path("files"));
        fs::create_dir(&unit)?;
        fs::create_dir(&files)?;
        let mut text = String::from(
            "[credentials]\nstatic_oem_strings = [\"io.systemd.credential:PLAIN=shown\"]\n",
        );
        for (number, (name, value)) in self.values.iter().enumerate() {
            let key = name.trim_start_matches("HOST-");
            writeln!(text, "[credentials.map.{key}]\nonce = {}", key == "once")?;
            if number % 2 == 0 {
                fs::write(unit.join(name), value)?;
            } else {
                fs::write(files.join(key), value)?;
                writeln!(text, "source = {:?}", files.join(key))?;
            }
        }
        let early = files.join("early");
        fs::write(&early, self.early())?;
        writeln!(
            text,
            "[credentials.map.early]\ntransport = \"smbios\"\nsource = {early:?}"
        )?;
        Ok(text)
    }

    /// The credential that is in the machine's tables.
    fn early(&self) -> Vec<u8> {
        [self.mark.as_bytes(), b"\0early\xff\n"].concat()
    }

    /// The digest of what `sha256sum *` prints in a directory with those.
    fn sums(&self, wanted: impl Fn(&str) -> bool) -> String {
        let values = self.values.iter();
        let wanted = values.filter(|(name, _)| wanted(name));
        let lines = wanted.map(|(name, value)| format!("{}  {name}\n", digest(value)));
        digest(lines.collect::<String>().as_bytes())
    }
}

/// A small value; some have no room for the mark.
fn value(mark: &str, number: usize) -> Vec<u8> {
    let end: &[u8] = match number {
        0 => return Vec::new(),
        1 => return b"\0".to_vec(),
        2 => return b"\n".to_vec(),
        n if n % 4 == 0 => b"\0\xff\xfe\0",
        n if n % 4 == 1 => b"\n",
        n if n % 4 == 2 => b"\r\n\n",
        _ => b" ",
    };
    let middle = digest(&number.to_le_bytes()).repeat(number % 5);
    [mark.as_bytes(), middle.as_bytes(), end].concat()
}

/// Puts slotvmm's program for guests, its units and those of the test into the guest.
fn install(slot: &Slot, distribution: Distribution) -> Result<Overlay> {
    let overlay = Overlay::new(slot)?;
    let program = std::env::var_os("SLOTVMM_GUEST_BIN").context("SLOTVMM_GUEST_BIN is not set")?;
    overlay.program("usr/bin/slotvmm-guest", Path::new(&program))?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/guest");
    for name in [
        "slotvmm-creds.service",
        "slotvmm-creds.socket",
        "slotvmm-creds@.service",
    ] {
        overlay.unit(name, &fs::read_to_string(units.join(name))?)?;
    }
    overlay.want("sysinit.target", "slotvmm-creds.service")?;
    overlay.want("sockets.target", "slotvmm-creds.socket")?;
    overlay.put("usr/lib/lab/anybody.pl", ANYBODY)?;
    overlay.put("usr/lib/lab/scan.sh", SCAN)?;

    let small: String = (0..SMALL)
        .map(|number| format!("LoadCredential=HOST-s{number:03}:HOST-s{number:03}\n"))
        .collect();
    let large = "LoadCredential=HOST-large:HOST-large\n";
    let mut at_boot = vec![("load-small", small.as_str()), ("load-large", large)];
    if distribution == Distribution::Trixie {
        at_boot.push(("import-small", "ImportCredential=HOST-s*\n"));
    }
    for (name, credentials) in at_boot {
        let unit = format!("{name}.service");
        overlay.unit(&unit, &format!("{ONCE_AT_BOOT}{credentials}{LOOK}"))?;
        overlay.want("multi-user.target", &unit)?;
    }
    for name in ["s004", "large", "once", "nothing"] {
        let load = format!("LoadCredential={name}:/run/slotvmm/creds.sock");
        let unit = format!("[Service]\nType=oneshot\n{load}\n{LOOK}");
        overlay.unit(&format!("now-{name}.service"), &unit)?;
    }
    Ok(overlay)
}

/// Units get what is in the host's files, by every way there is.
fn expect_everything(vm: &mut TestVm, secrets: &Secrets, distribution: Distribution) -> Result<()> {
    let store = vm.guest.run("cd /run/credstore; sha256sum * | sha256sum")?;
    assert_eq!(&store[..64], secrets.sums(|_| true), "/run/credstore");
    let modes = vm.guest.run("stat -c %a . * | sort -u | xargs; cd /")?;
    assert_eq!(modes, "400 700");

    let entered = |unit| format!("systemctl show -P ActiveEnterTimestampMonotonic {unit}");
    let fetched = vm.guest.number(&entered("slotvmm-creds.service"))?;
    let initialised = vm.guest.number(&entered("sysinit.target"))?;
    assert!(0 < fetched && fetched <= initialised, "before the target");

    let small = secrets.sums(|name| name.starts_with("HOST-s"));
    let large = secrets.sums(|name| name == "HOST-large");
    let mut units = vec![("load-small", &small), ("load-large", &large)];
    if distribution == Distribution::Trixie {
        units.push(("import-small", &small));
    }
    for (unit, sums) in units {
        // Started by the boot; this waits for it.
        vm.guest.run(&format!("systemctl start {unit}"))?;
        let seen = vm.guest.run(&format!("sha256sum </run/{unit}"))?;
        assert_eq!(&seen[..64], sums, "{unit}");
    }

    let early = vm
        .guest
        .run("systemd-creds --system cat HOST-early | sha256sum")?;
    assert_eq!(&early[..64], digest(&secrets.early()), "HOST-early");
    assert_eq!(vm.guest.run("systemd-creds --system cat PLAIN")?, "shown");
    Ok(())
}

/// The socket gives what is in the file now, and no unit starts without its credential.
fn expect_values_of_the_moment(vm: &mut TestVm, slot: &Slot) -> Result<()> {
    let seen = "cut -c1-64 /run/now-s004";
    for value in [&b"first\0"[..], b"second\n\xff"] {
        fs::write(slot.path("files/new"), value)?;
        fs::rename(slot.path("files/new"), slot.path("files/s004"))?;
        vm.guest.run("systemctl start now-s004")?;
        assert_eq!(vm.guest.run(seen)?, digest(value));
    }
    vm.guest.run("systemctl restart slotvmm-creds")?;
    let stored = vm.guest.run("sha256sum </run/credstore/HOST-s004")?;
    assert_eq!(&stored[..64], digest(b"second\n\xff"));
    vm.guest.run("systemctl start now-large")?;
    let large = vm.guest.run("cut -c1-64 /run/now-large")?;
    assert_eq!(large, digest(&fs::read(slot.path("unit/HOST-large"))?));

    for (name, reason) in [
        ("once", "given out already"),
        ("nothing", "no such credential"),
    ] {
        let (said, status) = vm.guest.attempt(&format!("systemctl start now-{name}"))?;
        assert_ne!(status, 0, "{said}");
        vm.guest.run(&format!("[ ! -e /run/now-{name} ]"))?;
        vm.guest.run(&format!(
            "journalctl --sync; journalctl -b --no-pager | grep -q '{reason}'"
        ))?;
    }
    Ok(())
}

/// Programs of the guest without privileges are refused, whoever runs them.
fn expect_privileged_only(vm: &mut TestVm) -> Result<()> {
    for user in ["", "setpriv --reuid 65534 --clear-groups "] {
        let ask = format!("{user}perl /usr/lib/lab/anybody.pl 2>&1");
        let (said, status) = vm.guest.attempt(&ask)?;
        assert!(said.contains("refused: Connection reset"), "{said}");
        assert_ne!(status, 0);
    }
    let fetch = "setpriv --reuid 65534 --clear-groups slotvmm-guest creds fetch /tmp/x 2>&1";
    let (said, status) = vm.guest.attempt(fetch)?;
    assert!(said.contains("CAP_NET_BIND_SERVICE"), "{said}");
    assert_eq!(status, 1);
    vm.guest.run("[ ! -e /tmp/x ]")?;
    Ok(())
}

/// No secret byte is where people and programs look.
fn expect_nowhere_else(vm: &mut TestVm, slot: &Slot, mark: &str) -> Result<()> {
    let found = vm.guest.run("bash /usr/lib/lab/scan.sh")?;
    assert_eq!(found, "", "in the guest");
    let found = search::processes(Path::new("/proc"), mark)?;
    ensure!(found.is_empty(), "on the host in {found:?}");
    for arguments in [
        &["config", "show", "slot1"][..],
        &["creds", "list", "slot1"],
        &["run", "slot1", "--dry-run"],
        &["status", "slot1"],
    ] {
        let said = slot.json(arguments)?.to_string();
        assert!(!said.contains(mark), "{arguments:?}");
    }
    let kernel = Ended::of(Command::new("dmesg"))?.stdout;
    assert!(!kernel.contains(mark), "the host's kernel log");
    let own = search::memory(std::process::id(), mark)?;
    ensure!(!own.is_empty(), "the search of memory finds nothing");
    let copies = search::memory(vm.pid(), mark)?;
    ensure!(copies.is_empty(), "slotvmm keeps copies in {copies:?}");
    assert!(!vm.guest.screen().text().contains(mark), "the console");
    assert!(!vm.errors().text().contains(mark), "slotvmm's log");
    Ok(())
}

fn reach_units_and_nothing_else(lab: &Lab, distribution: Distribution) -> Result<()> {
    let slot = lab.slot("")?;
    let secrets = Secrets::new()?;
    let overlay = install(&slot, distribution)?;
    let tables = secrets.write(&slot)?;
    slot.write_slot(&(overlay.slot_text(lab, distribution)? + &tables))?;
    let mut run = slot.command(&["run", "slot1", "--console", "-vvv"]);
    run.env("CREDENTIALS_DIRECTORY", slot.path("unit"));
    let mut vm = TestVm::start(run)?;
    vm.guest.wait_ready()?;

    expect_everything(&mut vm, &secrets, distribution)?;
    expect_privileged_only(&mut vm)?;
    expect_nowhere_else(&mut vm, &slot, &secrets.mark)?;
    expect_values_of_the_moment(&mut vm, &slot)?;
    vm.power_off()?;

    fs::write(slot.path("needle"), &secrets.mark)?;
    let mut search = Command::new("grep");
    search.args(["-qaF", "-f"]).arg(slot.path("needle"));
    // 1: searched, and nothing found.
    Ended::of({
        search.arg(slot.data_image());
        search
    })?
    .expect_code(1)?;
    Ok(())
}

#[test]
fn credentials_reach_units_of_debian_12_and_nothing_else() -> Result<()> {
    let covered = "the other test has Debian 13, and readiness the program for guests in Debian 12";
    let Some(lab) = Lab::enter_for_long(covered)? else {
        return Ok(());
    };
    reach_units_and_nothing_else(&lab, Distribution::Bookworm)
}

#[test]
fn credentials_reach_units_of_debian_13_and_nothing_else() -> Result<()> {
    let Some(lab) = Lab::enter()? else {
        return Ok(());
    };
    reach_units_and_nothing_else(&lab, Distribution::Trixie)
}

#[test]
fn program_for_guests_is_small_and_static() -> Result<()> {
    let Some(_lab) = Lab::enter()? else {
        return Ok(());
    };
    let program = std::env::var_os("SLOTVMM_GUEST_BIN").context("SLOTVMM_GUEST_BIN is not set")?;
    let content = fs::read(&program)?;
    assert!(content.len() < 2 << 20, "{} bytes", content.len());
    // Nothing of it is where a dynamic linker would be named.
    assert!(
        !search::holds(&content, "/lib64/ld-linux"),
        "dynamically linked"
    );
    let version = Ended::of({
        let mut command = Command::new(&program);
        command.arg("--version");
        command
    })?;
    assert!(version.expect_code(0)?.stdout.starts_with("slotvmm-guest "));
    Ok(())
}
