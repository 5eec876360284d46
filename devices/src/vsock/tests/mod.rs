//! The device is tested in three layers: the [`Mux`] with packets and no rings (`streams`,
//! `hostile`), the whole device with rings (`device`), and each part that counts (`window`,
//! `packet`).

mod device;
mod hostile;
mod packet;
mod services;
mod streams;
mod window;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;

use tempfile::TempDir;
use vm_memory::VolatileSlice;

use super::packet::{Op, TYPE_STREAM};
use super::{Cid, Dial, HOST_CID, Header, MAX_DATA_BYTES, Mux, Service, VsockHost};

const GUEST: u64 = 3;

/// Port of the host that leads to the test.
const DIALLED: u32 = 52;

/// Hands the test the other end of every stream to [`DIALLED`]; nobody is at any other port.
#[derive(Debug)]
struct Switchboard(mpsc::Sender<UnixStream>);

impl Dial for Switchboard {
    fn dial(&mut self, port: u32) -> io::Result<UnixStream> {
        if port != DIALLED {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.0.send(theirs).map_err(io::Error::other)?;
        Ok(ours)
    }
}

/// A mux and both sides of it: a guest that speaks in packets, and programs of the host.
struct Bench {
    mux: Mux,
    dialled: mpsc::Receiver<UnixStream>,
    dir: TempDir,
    buffer: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self::with_services([])
    }

    fn with_services(services: impl IntoIterator<Item = (u32, Box<dyn Service>)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, dialled) = mpsc::channel();
        let host = VsockHost {
            listener: Some(UnixListener::bind(dir.path().join("vsock.sock")).unwrap()),
            dial: Some(Box::new(Switchboard(sender))),
            services: BTreeMap::from_iter(services),
        };
        Self {
            mux: Mux::new(Cid::new(GUEST).unwrap(), host).unwrap(),
            dialled,
            dir,
            buffer: vec![0; 4096],
        }
    }

    /// A program of the host that connects to the listener.
    fn client(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("vsock.sock")).unwrap()
    }

    /// Has the guest send a packet.
    fn send(&mut self, header: Header, data: &[u8]) {
        self.mux.receive(&header, data);
    }

    /// The next packet for the guest, as far as the host's side has it ready.
    fn recv(&mut self) -> Option<(Header, Vec<u8>)> {
        while self.mux.poll() > 0 {}
        let header = {
            let room = VolatileSlice::from(self.buffer.as_mut_slice());
            self.mux.next(&room)
        }?;
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST));
        let len = usize::try_from(header.len).unwrap();
        Some((header, self.buffer[..len].to_vec()))
    }

    fn expect(&mut self, op: Op) -> Header {
        let (header, _) = self.recv().expect("a packet");
        assert_eq!(Op::of(header.op), Some(op), "{header:?}");
        header
    }

    fn silent(&mut self) {
        let packet = self.recv();
        assert!(packet.is_none(), "{packet:?}");
    }

    /// A connection of the guest's `port` to [`DIALLED`], and the host's end of it.
    fn open(&mut self, port: u32) -> UnixStream {
        self.send(guest(port, Op::Request), b"");
        let response = self.expect(Op::Response);
        assert_eq!((response.src_port, response.dst_port), (DIALLED, port));
        let host = self.dialled.try_recv().unwrap();
        host.set_nonblocking(true).unwrap();
        host
    }
}

/// A packet of the guest's `port` to [`DIALLED`], with room for 64 KiB of data.
fn guest(port: u32, op: Op) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST_CID,
        src_port: port,
        dst_port: DIALLED,
        kind: TYPE_STREAM,
        op: op as u16,
        buf_alloc: MAX_DATA_BYTES,
        ..Header::default()
    }
}

fn data(port: u32, bytes: &[u8]) -> Header {
    Header {
        len: u32::try_from(bytes.len()).unwrap(),
        ..guest(port, Op::Data)
    }
}

fn shutdown(port: u32, flags: u32) -> Header {
    Header {
        flags,
        ..guest(port, Op::Shutdown)
    }
}
