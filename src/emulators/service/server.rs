//! The emulated service's connections: accepted, answered, and ended as badly as the play wants. What is answered is
//! decided by [`Emulator`]; this only carries it out.

use super::emulator::{EmulatedAnswer, moment};
use super::script::PortState;
use super::{Behaviour, ConnectionReuse, DateSaid, Emulator, Reply, ServiceRow};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER};
use axum::http::{HeaderName, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use rustix::net::sockopt;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The most connections at once; the next one waits.
const MOST: usize = 256;

/// How long the header of a request may take, and its body, and how long a connection may stay without one.
const HEADER_LIMIT: Duration = Duration::from_secs(60);

/// The longest body of a request, in bytes.
const LONGEST_BODY: usize = 64 * 1024;

/// How long it rests where no connection can be accepted, as when no file may be opened any more.
const REST: Duration = Duration::from_millis(100);

/// How long the first part of a body has to leave before the rest is cut off.
const HEAD_START: Duration = Duration::from_millis(20);

/// How many hops packets go that are not meant to be dropped.
const USUAL_HOPS: u8 = 64;

/// What is sent instead of HTTP.
const GIBBERISH: &[u8] = b"\x16\x03\x01\x00\x05hello\r\nSSH-2.0-OpenSSH_9.2\r\n\r\n";

/// Serves the emulator on a listener until the future is dropped. Where its play refuses connections the listener is
/// closed, and bound again to the same address afterwards.
///
/// # Errors
/// Where the address cannot be learned, or not be bound again.
pub async fn serve(listener: TcpListener, emulator: Emulator) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        match emulator.port() {
            (PortState::Closed(_), change) => {
                listener = None;
                connections.shutdown().await;
                moment(change).await;
            }
            (PortState::Listening(_), change) => {
                let listening = match listener.take() {
                    Some(listening) => listening,
                    None => bind(address).await?,
                };
                tokio::select! {
                    accepted = listening.accept(), if connections.len() < MOST => match accepted {
                        Ok((stream, _)) => {
                            emulator.begin();
                            connections.spawn(attend(stream, emulator.clone()));
                        }
                        Err(error) => {
                            tracing::debug!("no connection could be accepted: {error}");
                            sleep(REST).await;
                        }
                    },
                    Some(_) = connections.join_next() => {}
                    () = moment(change) => {}
                }
                listener = Some(listening);
            }
        }
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address} could not be bound again: {error}")))
}

/// Answers on one connection until it ends.
async fn attend(stream: TcpStream, emulator: Emulator) {
    // The connection's other handle: hyper keeps the first for itself.
    let socket = stream.as_fd().try_clone_to_owned().ok().map(Arc::new);
    let answer = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (emulator, socket) = (emulator.clone(), socket.clone());
        async move {
            let (head, body) = request.into_parts();
            let read = timeout(HEADER_LIMIT, to_bytes(Body::new(body), LONGEST_BODY)).await;
            let Ok(Ok(body)) = read else { return Err(BrokenAnswer::Closed) };
            let decision = emulator.decide(&Request::from_parts(head, body)).await;
            if let Some(socket) = &socket {
                limit_hops(socket, decision.trouble.as_ref());
            }
            answer(emulator.service(), decision).await
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        // The play says whether a Date is sent, so hyper must not add one.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), answer);
    let Err(error) = (&mut connection).await else { return };
    let mut stream = connection.into_parts().io.into_inner();
    match cut(&error) {
        Some(BrokenAnswer::Reset) => {
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!("a connection could not be reset: {error}");
            }
        }
        Some(BrokenAnswer::NotHttp) => {
            // Who does not read it within a second has gone.
            let _ = timeout(Duration::from_secs(1), stream.write_all(GIBBERISH)).await;
        }
        Some(BrokenAnswer::Closed) | None => {}
    }
}

/// Says how far the packets of an answer go. On a machine without a router in between, each arrives.
fn limit_hops(socket: &OwnedFd, trouble: Option<&Behaviour>) {
    let hops = if let Some(Behaviour::HopLimit(hops)) = trouble { *hops } else { USUAL_HOPS };
    // A socket knows one of the two families, or both.
    let limited = sockopt::set_ip_ttl(socket, hops.into());
    let limited = sockopt::set_ipv6_unicast_hops(socket, Some(hops)).or(limited);
    if let Err(error) = limited {
        tracing::debug!("packets cannot be limited to {hops} hops: {error}");
    }
}

/// How the play wanted a connection to end, from the error that it ended with.
fn cut(error: &(dyn Error + 'static)) -> Option<BrokenAnswer> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(cut) = error.downcast_ref() {
            return Some(*cut);
        }
        cause = error.source();
    }
    None
}

/// How a connection ends in the middle of things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BrokenAnswer {
    Closed,
    Reset,
    NotHttp,
}

impl fmt::Display for BrokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the play ends this connection")
    }
}

impl Error for BrokenAnswer {}

async fn answer(service: &ServiceRow, decision: EmulatedAnswer) -> Result<Response, BrokenAnswer> {
    let EmulatedAnswer { reply, delay, trouble, connections, now } = decision;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    let mut said = DateSaid::Ahead(SignedDuration::ZERO);
    let mut response = match trouble {
        None => plainly(reply),
        Some(Behaviour::Date(lie)) => {
            said = lie;
            plainly(reply)
        }
        Some(behaviour) => misbehave(service, behaviour, reply).await?,
    };
    let headers = response.headers_mut();
    if !service.server.is_empty() {
        headers.insert(SERVER, HeaderValue::from_static(service.server));
    }
    if let Some(date) = date_header(said, now) {
        headers.insert(DATE, date);
    }
    if connections == ConnectionReuse::ClosedEachTime {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn date_header(said: DateSaid, now: Timestamp) -> Option<HeaderValue> {
    let text = match said {
        DateSaid::Text(text) if text.is_empty() => return None,
        DateSaid::Text(text) => text,
        DateSaid::Ahead(ahead) => {
            let now = now.saturating_add(ahead).unwrap_or(now);
            DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()?
        }
    };
    HeaderValue::from_str(&text).ok()
}

fn plainly(reply: Reply) -> Response {
    let (Reply { body, .. }, mut response) = head(reply);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}

/// Everything but the body and its length.
fn head(reply: Reply) -> (Reply, Response) {
    let mut response = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    for (name, value) in &reply.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    (reply, response)
}

/// Spoils a reply as the script wants it.
async fn misbehave(service: &ServiceRow, behaviour: Behaviour, reply: Reply) -> Result<Response, BrokenAnswer> {
    Ok(match behaviour {
        Behaviour::Status(status) => plainly((service.error)(status)),
        Behaviour::Body(body) => plainly(Reply { status: 200, body, ..reply }),
        Behaviour::Late(span) => {
            sleep(span).await;
            plainly(reply)
        }
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Endless => {
            let line = Bytes::from_static(&[b'x'; 4096]);
            Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(line.clone()))).into_response()
        }
        Behaviour::Redirect(to) => {
            let mut response = StatusCode::FOUND.into_response();
            if let Ok(to) = HeaderValue::from_str(&to) {
                response.headers_mut().insert(LOCATION, to);
            }
            response
        }
        Behaviour::WithoutHeaders => plainly(Reply { headers: Vec::new(), ..reply }),
        Behaviour::Drip(gap) => {
            let (Reply { body, .. }, mut response) = head(reply);
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            *response.body_mut() = Body::from_stream(drip(body, gap));
            response
        }
        Behaviour::Truncated(missing) => {
            let announced = reply.body.len().max(missing);
            shortened(reply, announced, announced - missing, BrokenAnswer::Closed)
        }
        Behaviour::ResetAfter(sent) => {
            // One byte more than there is, so that there is something left to be cut off.
            let announced = reply.body.len().max(sent.saturating_add(1));
            shortened(reply, announced, sent, BrokenAnswer::Reset)
        }
        Behaviour::Oversized(bytes) => plainly(Reply { status: 200, body: vec![b'x'; bytes], ..reply }),
        Behaviour::Reset => return Err(BrokenAnswer::Reset),
        Behaviour::Closed => return Err(BrokenAnswer::Closed),
        Behaviour::NotHttp => return Err(BrokenAnswer::NotHttp),
        Behaviour::ContentType(text) => {
            let mut response = plainly(reply);
            if let Ok(text) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(CONTENT_TYPE, text);
            }
            response
        }
        // Spoiled elsewhere: a header, the packets, or the service as a whole.
        Behaviour::Date(_)
        | Behaviour::HopLimit(_)
        | Behaviour::Garbage
        | Behaviour::Refused
        | Behaviour::TokenKill => plainly(reply),
    })
}

/// A body that comes byte by byte.
fn drip(body: Vec<u8>, gap: Duration) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(body.into_iter(), move |mut left| async move {
        let byte = left.next()?;
        sleep(gap).await;
        Some((Ok(Bytes::from(vec![byte])), left))
    })
}

/// An answer that announces so many bytes, sends the first of them, and is cut off.
fn shortened(reply: Reply, announced: usize, sent: usize, cut: BrokenAnswer) -> Response {
    let (Reply { mut body, .. }, mut response) = head(reply);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(announced));
    body.truncate(sent);
    *response.body_mut() = Body::from_stream(cut_off(body, cut));
    response
}

/// A body after which the connection ends, whatever length was announced.
fn cut_off(body: Vec<u8>, cut: BrokenAnswer) -> impl Stream<Item = Result<Bytes, BrokenAnswer>> {
    stream::unfold(Some(Some(body)), move |left| async move {
        match left? {
            Some(body) => Some((Ok(Bytes::from(body)), Some(None))),
            None => {
                sleep(HEAD_START).await;
                Some((Err(cut), None))
            }
        }
    })
}
