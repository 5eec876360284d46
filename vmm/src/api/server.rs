//! The thread that answers the control socket. tokio lives and ends in here.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::connections::{Asked, Connections};
use super::{ErrorBody, Reply, Request, RequestError, Verb};
use crate::events::{Event, EventSender};

/// How long a connection may go without asking for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait when the host has no descriptor to spare for a connection.
const BREATHER: Duration = Duration::from_millis(100);

/// The running server. Its thread ends with the process.
#[derive(Debug)]
pub struct ApiServer;

type Answer = Response<Full<Bytes>>;

/// Starts a thread that serves `listener` and sends what it is asked to `events`.
///
/// # Errors
/// When the host refuses the thread or an event loop.
pub fn serve(listener: UnixListener, events: EventSender) -> io::Result<ApiServer> {
    listener.set_nonblocking(true)?;
    thread::Builder::new()
        .name("api".to_owned())
        .spawn(move || {
            let served = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
                .and_then(|runtime| runtime.block_on(accept(listener, events)));
            if let Err(error) = served {
                tracing::error!(%error, "control socket failed; the machine runs on without it");
            }
        })?;
    Ok(ApiServer)
}

async fn accept(listener: UnixListener, events: EventSender) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut connections = Connections::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket could not take a connection");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let events = events.clone();
        connections
            .add(|asked| serve_connection(stream, events, asked))
            .await;
    }
}

async fn serve_connection(stream: UnixStream, events: EventSender, asked: Asked) {
    let service = service_fn(move |request| {
        asked.set();
        answer(request, events.clone())
    });
    let served = hyper::server::conn::http1::Builder::new()
        // A client may say that it has asked for all it wants, and still wait for the answer.
        .half_close(true)
        // A client that asks for nothing must not keep its place.
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "control connection ended");
    }
}

async fn answer(request: HttpRequest<Incoming>, events: EventSender) -> Result<Answer, Infallible> {
    let (verb, method) = match request.uri().path() {
        "/v1/vm" => (Verb::Info, Method::GET),
        "/v1/vm/pause" => (Verb::Pause, Method::PUT),
        "/v1/vm/resume" => (Verb::Resume, Method::PUT),
        "/v1/vm/power-button" => (Verb::PowerButton, Method::PUT),
        "/v1/vm/reset" => (Verb::Reset, Method::PUT),
        "/v1/vm/shutdown" => (Verb::Shutdown, Method::PUT),
        path => {
            return Ok(error(
                StatusCode::NOT_FOUND,
                format!("There is nothing at {path}"),
            ));
        }
    };
    if request.method() != method {
        let mut answer = error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} takes {method} only", request.uri().path()),
        );
        if let Ok(allowed) = method.as_str().parse() {
            answer.headers_mut().insert(ALLOW, allowed);
        }
        return Ok(answer);
    }
    Ok(match ask(verb, &events).await {
        Some(Ok(Reply::Info(info))) => json(StatusCode::OK, &info),
        Some(Ok(Reply::Done)) => empty(StatusCode::NO_CONTENT),
        Some(Err(refused @ (RequestError::State(_) | RequestError::NoPowerButton))) => {
            error(StatusCode::CONFLICT, refused.to_string())
        }
        Some(Err(failed)) => error(StatusCode::INTERNAL_SERVER_ERROR, failed.to_string()),
        None => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "The machine has ended".to_owned(),
        ),
    })
}

/// Asks the control thread; nothing when it has ended.
async fn ask(verb: Verb, events: &EventSender) -> Option<Result<Reply, RequestError>> {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Request(Request { verb, reply }));
    answer.await.ok()
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    answer
}

fn error(status: StatusCode, error: String) -> Answer {
    json(status, &ErrorBody { error })
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
