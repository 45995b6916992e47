//! HTTP/1.1, one request for each connection: probes and scrapers come seldom, and nobody can keep a place.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::metrics::Detail;
use super::{Source, State, health, metrics};
use crate::metrics::status::ShardStatus;

/// Connections at one time. One more, and the oldest is closed: idle ones can't keep a probe out.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head; a longer one is answered 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long a request's head may take to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
/// How long a connection may take in all.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// How long a shard may take to tell how it is; one that takes longer is left out of the answer.
const SHARD_ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// Answers with a line for each partition or topic that are made and sent at one time: each may be megabytes long.
const LONG_ANSWERS_MAX: usize = 2;
/// Pause after a failed accept, such as one without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopped` resolves; connections end with it.
pub async fn run(listener: StdListener, source: Arc<dyn Source>, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let accepting = tokio::spawn(accept(TcpListener::from_std(listener)?, source));
    // An error says that the broker is gone: stop as well.
    let _ = stopped.await;
    accepting.abort();
    Ok(())
}

async fn accept(listener: TcpListener, source: Arc<dyn Source>) {
    let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
    let places = LongAnswers::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the admin port could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        connections.push_back(tokio::spawn(serve(stream, Arc::clone(&source), places.clone())));
    }
}

/// Places for long answers.
#[derive(Clone, Default)]
struct LongAnswers(Arc<AtomicUsize>);

/// A place, given back by drop.
struct Place(LongAnswers);

impl LongAnswers {
    fn take(&self) -> Option<Place> {
        let one_more = |taken| (taken < LONG_ANSWERS_MAX).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let LongAnswers(taken) = &self.0;
        taken.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(stream: TcpStream, source: Arc<dyn Source>, places: LongAnswers) {
    // Held until the answer is sent: the connection has one request.
    let held = Mutex::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (source, places, held) = (&source, &places, &held);
        async move { Ok::<_, Infallible>(answer(&request, &**source, places, held).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIMIT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the admin port was closed"),
        Err(_) => tracing::debug!("a connection to the admin port took too long"),
    }
}

async fn answer<B>(
    request: &Request<B>,
    source: &dyn Source,
    places: &LongAnswers,
    held: &Mutex<Option<Place>>,
) -> Response<String> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => respond(StatusCode::OK, "application/json", health::text(source)),
        "/readyz" if source.state() == State::Serving => {
            respond(StatusCode::OK, "application/json", health::text(source))
        }
        "/readyz" => respond(StatusCode::SERVICE_UNAVAILABLE, "application/json", health::text(source)),
        "/metrics" => {
            let detail = match Detail::parse(request.uri().query().unwrap_or_default()) {
                Ok(detail) => detail,
                Err(error) => return respond(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
            };
            if detail.is_long() {
                let place = places.take();
                if place.is_none() {
                    let busy = format!("{LONG_ANSWERS_MAX} such answers are being sent: ask again\n");
                    return respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", busy);
                }
                *held.lock().unwrap_or_else(PoisonError::into_inner) = place;
            }
            let begun = Instant::now();
            let shards = ask(source, detail.is_long()).await;
            respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(source, &shards, detail, begun))
        }
        _ => {
            let there_is =
                "there are /healthz, /readyz and /metrics (with topics=true or partitions=true for their series)\n";
            respond(StatusCode::NOT_FOUND, "text/plain", there_is.to_owned())
        }
    }
}

/// What every shard says of itself; `None` for one that does not answer in time.
async fn ask(source: &dyn Source, with_partitions: bool) -> Vec<Option<ShardStatus>> {
    let deadline = tokio::time::Instant::now() + SHARD_ANSWER_LIMIT;
    let mut shards = Vec::new();
    for answer in source.ask(with_partitions) {
        shards.push(tokio::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok));
    }
    shards
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
