//! Network namespaces as machines: a host with slots, the guests behind its taps, and an internet.
//!
//! A guest's end is a virtual Ethernet cable in place of its tap, with the tap's name, which is all
//! that the rules know. Everything goes with the test's process.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::common::{Ended, Host};

/// How long something that is let through may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for what should not come: a packet between namespaces takes microseconds.
const SILENCE: Duration = Duration::from_millis(400);

/// The internet's end of the uplink.
pub(crate) const INTERNET: &str = "203.0.113.1";

/// The host's end of the uplink.
pub(crate) const HOST: &str = "203.0.113.2";

/// What is expected of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Passes,
    IsDropped,
}

impl Fate {
    fn patience(self) -> Duration {
        match self {
            Self::Passes => PATIENCE,
            Self::IsDropped => SILENCE,
        }
    }

    #[track_caller]
    fn is(self, arrived: bool, what: &str) {
        assert_eq!(arrived, self == Self::Passes, "{what}: expected {self:?}");
    }
}

/// A network namespace.
pub(crate) struct Machine {
    namespace: File,
}

impl Machine {
    /// One whose loopback is up; nothing, after saying why, where none can be had.
    pub(crate) fn new() -> Option<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            Ok::<_, std::io::Error>(Self { namespace })
        });
        let machine = match made.join().unwrap() {
            Ok(machine) => machine,
            Err(error) => {
                eprintln!("skipped: no network namespace can be made: {error}");
                return None;
            }
        };
        machine.shell("ip link set lo up");
        Some(machine)
    }

    /// Runs `work` as a program of this machine would.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a script that must succeed.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.run(|| {
            let path = format!(
                "{}:/usr/sbin:/sbin",
                std::env::var("PATH").unwrap_or_default()
            );
            let mut command = Command::new("sh");
            command
                .args(["-e", "-c", script])
                .env("PATH", path)
                .output()
        });
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {text}{complaint}");
        text
    }

    /// A name that `ip link set netns` takes.
    fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.namespace.as_raw_fd()
        )
    }

    /// Lays a cable: `name` here, `other_name` at `other`.
    pub(crate) fn connect(&self, name: &str, other: &Self, other_name: &str) {
        let path = other.path();
        self.shell(&format!(
            "ip link add {name} type veth peer name {other_name} netns {path}"
        ));
    }

    /// Answers TCP on `ports` with one byte, and UDP with what came.
    pub(crate) fn serve(&self, ports: &[u16]) {
        for port in ports {
            let any = (Ipv4Addr::UNSPECIFIED, *port);
            let tcp = self.run(|| TcpListener::bind(any).unwrap());
            let udp = self.run(|| UdpSocket::bind(any).unwrap());
            thread::spawn(move || {
                for mut stream in tcp.incoming().flatten() {
                    let from = match stream.peer_addr().unwrap().ip() {
                        IpAddr::V4(from) => from,
                        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
                    };
                    let _ = stream.write_all(&from.octets());
                }
            });
            thread::spawn(move || {
                let mut packet = [0; 64];
                while let Ok((length, from)) = udp.recv_from(&mut packet) {
                    let _ = udp.send_to(packet.get(..length).unwrap_or_default(), from);
                }
            });
        }
    }

    /// Connects to `to`, and returns as whom the other side saw us.
    pub(crate) fn seen_as(&self, to: &str) -> Option<Ipv4Addr> {
        self.tcp(to, PATIENCE)
    }

    fn tcp(&self, to: &str, patience: Duration) -> Option<Ipv4Addr> {
        let to: SocketAddr = to.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
            stream.set_read_timeout(Some(patience)).unwrap();
            let mut seen = [0; 4];
            stream.read_exact(&mut seen).ok()?;
            Some(Ipv4Addr::from(seen))
        })
    }

    /// Whether a connection to `to`, such as `10.1.0.2:80`, comes about.
    #[track_caller]
    pub(crate) fn expect_tcp(&self, to: &str, fate: Fate) {
        let arrived = self.tcp(to, fate.patience()).is_some();
        fate.is(arrived, &format!("TCP to {to}"));
    }

    /// Whether a datagram to `to` is answered.
    #[track_caller]
    pub(crate) fn expect_udp(&self, to: &str, fate: Fate) {
        let arrived = self.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(fate.patience())).unwrap();
            let sent = socket.connect(to).and_then(|()| socket.send(b"ask"));
            let mut answer = [0; 8];
            sent.is_ok() && socket.recv(&mut answer).is_ok()
        });
        fate.is(arrived, &format!("UDP to {to}"));
    }

    /// Whether a ping to `to` is answered.
    #[track_caller]
    pub(crate) fn expect_ping(&self, to: &str, fate: Fate) {
        let to: Ipv4Addr = to.parse().unwrap();
        let arrived = self.run(|| ping(to, fate.patience()));
        fate.is(arrived, &format!("ping to {to}"));
    }
}

impl Machine {
    /// Sends a packet of a protocol that nobody speaks: 253 is for experiments (RFC 3692).
    pub(crate) fn send_unknown_protocol(&self, to: &str) {
        let to: Ipv4Addr = to.parse().unwrap();
        // The kernel fills in length, checksum and sender.
        let mut header = [
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        header[16..].copy_from_slice(&to.octets());
        self.run(|| {
            let (family, kind) = (AddressFamily::Inet, SockType::Raw);
            let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
            let address = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
            sendto(fd.as_raw_fd(), &header, &address, MsgFlags::empty()).unwrap();
        });
    }

    /// Sends an IPv6 packet to everybody on the link of `eth0`.
    pub(crate) fn send_ipv6(&self) {
        self.shell("ip -6 addr add fe80::77/64 dev eth0 nodad");
        self.run(|| {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
            let everybody: Ipv6Addr = "ff02::1".parse().unwrap();
            let to = SocketAddrV6::new(everybody, 9, 0, index);
            socket.send_to(b"anybody", to).unwrap();
        });
    }
}

/// Sends one ICMP echo request (RFC 792) and waits for its reply.
fn ping(to: Ipv4Addr, patience: Duration) -> bool {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )
    .unwrap();
    // Type 8, checksum of the eight bytes, identifier and number.
    let request = [8, 0, 0xa6, 0xf7, 0x51, 0x07, 0, 1];
    let address = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
    if sendto(fd.as_raw_fd(), &request, &address, MsgFlags::empty()).is_err() {
        return false;
    }
    let wait = TimeVal::microseconds(i64::try_from(patience.as_micros()).unwrap());
    setsockopt(&fd, sockopt::ReceiveTimeout, &wait).unwrap();
    let mut packet = [0; 128];
    while let Ok(length) = recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        // 20 bytes of IP header; type 0 is a reply.
        if packet
            .get(20..length)
            .is_some_and(|icmp| icmp.first() == Some(&0))
        {
            return true;
        }
    }
    false
}

/// A host with an uplink, its guests and the internet behind it.
pub(crate) struct Lab {
    pub(crate) config: Host,
    pub(crate) host: Machine,
    pub(crate) internet: Machine,
    guests: Vec<Machine>,
}

impl Lab {
    /// A host that is configured by `net`, the `[net]` of its file, and `slots`, the files of its
    /// slots. Nothing where it cannot be had.
    pub(crate) fn new(net: &str, slots: &[&str]) -> Option<Self> {
        let config = Host::new();
        let text = std::fs::read_to_string(config.path("etc/host.toml")).unwrap();
        config.write("etc/host.toml", &format!("{text}\n[net]\n{net}\n"));
        for (number, slot) in (1..).zip(slots) {
            config.write(&format!("etc/slots/slot{number}.toml"), slot);
        }
        let (host, internet) = (Machine::new()?, Machine::new()?);
        let probe =
            "nft list tables && ip tuntap add probe mode tap && ip tuntap del probe mode tap";
        let probe = host.run(|| Command::new("sh").args(["-c", probe]).output().unwrap());
        if !probe.status.success() {
            let reason = String::from_utf8_lossy(&probe.stderr).into_owned();
            eprintln!("skipped: no taps or rules here: {}", reason.trim());
            return None;
        }
        host.connect("eth0", &internet, "eth0");
        internet.shell(&format!(
            "ip addr add {INTERNET}/24 dev eth0; ip addr add 169.254.169.254/32 dev eth0
             ip addr add 192.0.2.53/32 dev eth0; ip link set eth0 up"
        ));
        host.shell(&format!(
            "ip addr add {HOST}/24 dev eth0; ip link set eth0 up; ip route add default via {INTERNET}
             # The other end has been up only just: the kernel tells a moment later.
             timeout 60 sh -c 'until ip -br link show eth0 | grep -q \" UP \"; do sleep 0.01; done'"
        ));
        Some(Self {
            config,
            host,
            internet,
            guests: Vec::new(),
        })
    }

    /// Runs `slotvmm` on the host.
    pub(crate) fn slotvmm(&self, arguments: &[&str]) -> Ended {
        self.host.run(|| self.config.run(arguments))
    }

    /// Brings all slots up, and puts a guest behind each of the first `count`.
    pub(crate) fn boot(&mut self, count: usize) {
        let ended = self.slotvmm(&["net", "apply"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for number in 1..=count {
            let guest = Machine::new().unwrap();
            self.host.shell(&format!("ip link del vm-slot{number}"));
            self.host
                .connect(&format!("vm-slot{number}"), &guest, "eth0");
            self.host.shell(&format!(
                "ip link set vm-slot{number} master br-slot{number} up"
            ));
            guest.shell(&format!(
                "ip link set eth0 address 02:00:00:00:00:{number:02x} up
                 ip addr add 10.{number}.0.2/24 dev eth0
                 ip route add default via 10.{number}.0.1"
            ));
            self.guests.push(guest);
        }
    }

    /// The guest of slot `number`.
    pub(crate) fn guest(&self, number: usize) -> &Machine {
        &self.guests[number - 1]
    }

    /// How many packets the drop rules of a chain have dropped.
    pub(crate) fn drops(&self, family: &str, chain: &str) -> u64 {
        let text = self
            .host
            .shell(&format!("nft list chain {family} slotvmm {chain}"));
        let counts = text
            .lines()
            .filter(|line| line.ends_with("drop"))
            .map(|line| {
                let mut words = line.split(' ').skip_while(|word| *word != "packets");
                words.nth(1).unwrap().parse::<u64>().unwrap()
            });
        counts.sum()
    }
}
