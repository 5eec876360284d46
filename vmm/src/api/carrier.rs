//! A connection that descriptors can come along with.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Most descriptors of one connection: what a request takes. Others are closed at once, so that
/// nobody fills our table of descriptors.
const MAX_DESCRIPTORS: usize = 2;

/// The descriptors that came with a connection and were not taken yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Luggage(Arc<Mutex<Vec<OwnedFd>>>);

impl Luggage {
    /// Takes all of them, in the order in which they were sent.
    pub(super) fn take(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, descriptor: OwnedFd) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_DESCRIPTORS {
            all.push(descriptor);
        }
    }
}

/// A stream that keeps the descriptors it receives (`SCM_RIGHTS`, unix(7)).
#[derive(Debug)]
pub(super) struct Carrier {
    stream: UnixStream,
    luggage: Luggage,
}

impl Carrier {
    pub(super) fn new(stream: UnixStream, luggage: Luggage) -> Self {
        Self { stream, luggage }
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        // What does not fit is closed by the kernel.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.stream, &mut into, &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptors.for_each(|descriptor| self.luggage.put(descriptor));
            }
        }
        Ok(received.bytes)
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let bytes = buffer.initialize_unfilled();
            let received = self
                .stream
                .try_io(Interest::READABLE, || self.receive(bytes));
            match received {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
