//! The thread that answers the control socket. tokio lives and ends in here.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::carrier::{Carrier, Luggage};
use super::connections::{Asked, Connections};
use super::{ErrorBody, Reply, Request, RequestError, SnapshotRequest, Verb};
use crate::events::{Event, EventSender};
use crate::snapshot::{SnapshotOrder, SnapshotRefusal};

/// How long a connection may go without asking for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of a request's body.
const MAX_BODY: usize = 4 << 10;

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

pub(super) async fn serve_connection(stream: UnixStream, events: EventSender, asked: Asked) {
    let luggage = Luggage::default();
    let carrier = Carrier::new(stream, luggage.clone());
    let service = service_fn(move |request| {
        asked.set();
        answer(request, events.clone(), luggage.clone())
    });
    let served = hyper::server::conn::http1::Builder::new()
        // A client may say that it has asked for all it wants, and still wait for the answer.
        .half_close(true)
        // A client that asks for nothing must not keep its place.
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(carrier), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "control connection ended");
    }
}

async fn answer(
    request: HttpRequest<Incoming>,
    events: EventSender,
    luggage: Luggage,
) -> Result<Answer, Infallible> {
    if request.uri().path() == "/v1/vm/snapshot" {
        return Ok(match *request.method() {
            Method::PUT => snapshot(request, &events, &luggage).await,
            Method::GET => to_progress(ask(Verb::Info, &events).await),
            _ => not_allowed(&request, "GET, PUT"),
        });
    }
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
        return Ok(not_allowed(&request, method.as_str()));
    }
    Ok(to_answer(ask(verb, &events).await))
}

/// Begins a snapshot; how it goes is told on the socket that came with the request.
async fn snapshot(
    request: HttpRequest<Incoming>,
    events: &EventSender,
    luggage: &Luggage,
) -> Answer {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let spec = match body.map(|body| serde_json::from_slice(&body.to_bytes())) {
        Ok(Ok(spec)) => spec,
        Ok(Err(wrong)) => return error(StatusCode::BAD_REQUEST, wrong.to_string()),
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong.to_string()),
    };
    let Ok([target, reports]) = <[OwnedFd; 2]>::try_from(luggage.take()) else {
        let expected = "Expected two descriptors: the file to be filled and a socket for reports";
        return error(StatusCode::BAD_REQUEST, expected.to_owned());
    };
    let (reply, answer) = oneshot::channel();
    let order = SnapshotOrder {
        spec,
        target: target.into(),
        reports,
    };
    events.send(Event::Snapshot(Box::new(SnapshotRequest { order, reply })));
    match answer.await.ok() {
        Some(Ok(_)) => empty(StatusCode::ACCEPTED),
        other => to_answer(other),
    }
}

fn not_allowed(request: &HttpRequest<Incoming>, allowed: &str) -> Answer {
    let mut answer = error(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} takes {allowed} only", request.uri().path()),
    );
    if let Ok(allowed) = allowed.parse() {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

/// Of what a machine says of itself, the snapshot.
fn to_progress(answer: Option<Result<Reply, RequestError>>) -> Answer {
    match answer {
        Some(Ok(Reply::Info(info))) => json(StatusCode::OK, &info.snapshot),
        other => to_answer(other),
    }
}

fn to_answer(answer: Option<Result<Reply, RequestError>>) -> Answer {
    match answer {
        Some(Ok(Reply::Info(info))) => json(StatusCode::OK, &info),
        Some(Ok(Reply::Done)) => empty(StatusCode::NO_CONTENT),
        Some(Err(
            refused @ (RequestError::State(_)
            | RequestError::Ending
            | RequestError::NoPowerButton
            | RequestError::Snapshot(
                SnapshotRefusal::Busy | SnapshotRefusal::OtherFile { .. },
            )),
        )) => error(StatusCode::CONFLICT, refused.to_string()),
        Some(Err(
            wrong @ RequestError::Snapshot(
                SnapshotRefusal::NoDisk { .. } | SnapshotRefusal::Target { .. },
            ),
        )) => error(StatusCode::BAD_REQUEST, wrong.to_string()),
        Some(Err(failed)) => error(StatusCode::INTERNAL_SERVER_ERROR, failed.to_string()),
        None => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "The machine has ended".to_owned(),
        ),
    }
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
