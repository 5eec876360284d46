//! Bytes between a guest's program and one of the host, through the whole socket device: the guest sends,
//! the host's program reads and answers as much, the guest has it.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use benches::rig::Rig;
use criterion::{Criterion, Throughput};
use devices::device::DeviceId;
use devices::registry::Position;
use devices::testing::{Part, QueueDriver};
use devices::vsock::{Cid, Dial, HEADER_BYTES, Header, Op, Vsock, VsockConfig, VsockHost};

const GUEST: u64 = 3;
const HOST: u64 = 2;
const PORT: u32 = 1024;
/// A stream (virtio 1.2 §5.10.6).
const STREAM: u16 = 1;
/// Room for answers that the guest offers.
const WINDOW: u32 = 256 << 10;
/// Buffers of the guest, each for a header and a page, as Linux has them.
const BUFFERS: u32 = 32;
const BUFFER_BYTES: u32 = 4096;

/// Leads every port to the benchmark.
#[derive(Debug)]
struct Here(mpsc::Sender<UnixStream>);

impl Dial for Here {
    fn dial(&mut self, _port: u32) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        self.0.send(theirs).map_err(io::Error::other)?;
        Ok(ours)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let (sender, dialled) = mpsc::channel();
    let config = VsockConfig {
        id: DeviceId::new("vsock0"),
        position: Position(0),
        cid: Cid::new(GUEST)?,
    };
    let host = VsockHost {
        dial: Some(Box::new(Here(sender))),
        ..VsockHost::default()
    };
    let (rig, drivers) = Rig::activate(Box::new(Vsock::build(&config, host, None)?))?;
    let [rx, tx, _events] =
        <[QueueDriver; 3]>::try_from(drivers).map_err(|_| "the device has three queues")?;
    let mut guest = Guest::connect(rig, rx, tx);
    let mut program = dialled.recv()?;
    let mut group = criterion.benchmark_group("vsock");
    for bytes in [64_usize, 4000] {
        let data = vec![0x5a; bytes];
        let mut back = vec![0; bytes];
        group.throughput(Throughput::Bytes(2 * bytes as u64));
        group.bench_function(format!("there_and_back_{bytes}"), |bench| {
            bench.iter(|| {
                guest.send(Op::Data, &data);
                let moved = program
                    .read_exact(&mut back)
                    .and_then(|()| program.write_all(&back));
                assert!(moved.is_ok(), "{moved:?}");
                guest.receive(bytes);
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// The guest's side of one connection.
struct Guest {
    rig: Rig,
    rx: QueueDriver,
    tx: QueueDriver,
    /// Bytes that its program has taken, modulo 2³² (§5.10.6.3).
    taken: u32,
}

impl Guest {
    fn connect(rig: Rig, mut rx: QueueDriver, tx: QueueDriver) -> Self {
        for _ in 0..BUFFERS {
            rx.add(&[Part::Writable(BUFFER_BYTES)]);
        }
        let mut guest = Self {
            rig,
            rx,
            tx,
            taken: 0,
        };
        guest.send(Op::Request, &[]);
        let answer = guest.packet();
        assert_eq!(Op::of(answer.op), Some(Op::Response), "{answer:?}");
        guest
    }

    fn send(&mut self, op: Op, data: &[u8]) {
        let header = Header {
            src_cid: GUEST,
            dst_cid: HOST,
            src_port: PORT,
            dst_port: PORT,
            len: u32::try_from(data.len()).unwrap_or(u32::MAX),
            kind: STREAM,
            op: op as u16,
            buf_alloc: WINDOW,
            fwd_cnt: self.taken,
            ..Header::default()
        };
        let header = header.encode();
        let parts = [Part::Readable(&header), Part::Readable(data)];
        let used = if data.is_empty() { 1 } else { 2 };
        self.tx.add(&parts[..used]);
        self.tx.kick();
        let done = self.rig.wait(&mut self.tx);
        assert!(done.is_some(), "a packet was not taken");
    }

    /// The next packet; its buffer is offered again.
    fn packet(&mut self) -> Header {
        self.rx.kick();
        let used = self.rig.wait(&mut self.rx);
        let bytes = used.map(|used| self.rx.bytes(used.head, 0));
        let header = bytes
            .as_deref()
            .and_then(<[u8]>::first_chunk::<HEADER_BYTES>);
        assert!(header.is_some(), "no packet came");
        self.rx.add(&[Part::Writable(BUFFER_BYTES)]);
        header.map(Header::decode).unwrap_or_default()
    }

    /// Takes packets until `bytes` bytes of data have come.
    fn receive(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let header = self.packet();
            if Op::of(header.op) == Some(Op::Data) {
                self.taken = self.taken.wrapping_add(header.len);
                left = left.saturating_sub(header.len as usize);
            }
        }
    }
}
