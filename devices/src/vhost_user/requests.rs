//! What a backend asks for, on a socket of its own: that files are mapped into the device's shared
//! memory, or removed from it.
//!
//! They have a thread: a backend asks in the middle of a driver's request, and while it is being
//! stopped waits for what is asked.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{
    Error, Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend,
    VhostUserFrontendReqHandler,
};

use super::connection::failed;
use super::{SharedRegion, VhostUserError, sys};
use crate::log_limit::LogLimit;

/// Serves the requests of one backend until it is dropped.
pub(super) struct Requests {
    socket: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Requests {
    /// Gives the backend behind `frontend` a socket, and serves what comes from there.
    pub(super) fn serve(
        frontend: &mut Frontend,
        region: Arc<dyn SharedRegion>,
    ) -> Result<Self, VhostUserError> {
        let refused = |source| VhostUserError::Request {
            action: "get a socket for requests of its own",
            source: vhost::Error::VhostUserProtocol(source),
        };
        let mut handler = FrontendReqHandler::new(Arc::new(Asked(region))).map_err(refused)?;
        handler.set_reply_ack_flag(true);
        let socket = sys::duplicate(&handler).map_err(VhostUserError::Connect)?;
        let theirs = handler.get_tx_raw_fd();
        frontend
            .set_backend_request_fd(&theirs)
            .map_err(failed("take a socket for its requests"))?;
        let thread = Builder::new()
            .name("window".to_owned())
            .spawn(move || run(handler))
            .map_err(VhostUserError::Connect)?;
        Ok(Self {
            socket: socket.into(),
            thread: Some(thread),
        })
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // The thread then finds the end of what it reads.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It said what went wrong when it panicked.
            let _ = thread.join();
        }
    }
}

fn run(mut handler: FrontendReqHandler<Asked>) {
    static REFUSED: LogLimit = LogLimit::new();
    loop {
        match handler.handle_request() {
            Ok(_) => {}
            // The backend has been told, and passes it on to the guest.
            Err(Error::ReqHandlerError(error)) => {
                if let Some(count) = REFUSED.next() {
                    tracing::warn!(%error, count, "a backend asked for a mapping that it does not get");
                }
            }
            // It is gone, or makes no sense: nothing more is mapped for it.
            Err(error) => {
                tracing::debug!(%error, "requests of a backend end");
                return;
            }
        }
    }
}

/// The requests as the crate hands them over.
struct Asked(Arc<dyn SharedRegion>);

impl Asked {
    fn check(&self, id: u8) -> io::Result<()> {
        if id == self.0.id() {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENXIO))
    }
}

impl VhostUserFrontendReqHandler for Asked {
    fn shmem_map(&self, asked: &VhostUserMMap, file: &dyn AsRawFd) -> HandlerResult<u64> {
        self.check(asked.shmid)?;
        if asked.flags & VhostUserMMapFlags::WRITABLE.bits() != 0 {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let file = File::from(sys::duplicate(file)?);
        let (place, from, len) = (asked.shm_offset, asked.fd_offset, asked.len);
        self.0.map(place, len, file, from)?;
        Ok(0)
    }

    fn shmem_unmap(&self, asked: &VhostUserMMap) -> HandlerResult<u64> {
        self.check(asked.shmid)?;
        self.0.unmap(asked.shm_offset, asked.len)?;
        Ok(0)
    }
}
