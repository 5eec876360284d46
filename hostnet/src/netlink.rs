//! Runs requests to the kernel's route netlink on a runtime of their own.

use std::future::Future;
use std::io;

use rtnetlink::Handle;

/// Runs `work` with a netlink connection, to the end. The runtime lives on the calling thread, so
/// that the requests go to the network namespace of that thread.
///
/// # Errors
/// When there is no connection to be had.
pub(crate) fn block_on<F, W>(work: W) -> io::Result<F::Output>
where
    W: FnOnce(Handle) -> F,
    F: Future,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let output = work(handle).await;
        connection.abort();
        Ok(output)
    })
}

/// What the kernel said, as an I/O error where it is one.
pub(crate) fn io_error(error: rtnetlink::Error) -> io::Error {
    match &error {
        rtnetlink::Error::NetlinkError(message) => match message.code {
            Some(code) => io::Error::from_raw_os_error(code.get().saturating_neg()),
            None => io::Error::other(error),
        },
        _ => io::Error::other(error),
    }
}
