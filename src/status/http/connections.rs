//! The connections that are open, and how many there may be.
//!
//! When one too many comes, the one that has been idle for longest is closed, or the oldest where all are being
//! answered: a health check always gets through, whoever holds the others.

use super::stall::Stalling;
use axum::Router;
use axum::body::Body;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most connections at once, over all addresses.
pub(super) const MOST: usize = 256;

/// How long the header of a request may take, and how long a connection may stay without one.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// The most headers of a request.
const HEADERS: usize = 64;

/// The most bytes of a request's header, and of an answer before it is written.
const BUFFER: usize = 16 * 1024;

/// How long a reader may stall.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The connections that are open; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    slots: Arc<Mutex<Slots>>,
    tasks: TaskTracker,
    abort: CancellationToken,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    open: BTreeMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    /// Since when nothing is asked on it; nothing while a request is answered.
    idle_since: Option<Instant>,
    close: CancellationToken,
}

impl Connections {
    /// Serves a connection until it ends, `stop` comes, or its place is needed.
    pub(super) fn admit(&self, stream: TcpStream, router: Router, stop: &CancellationToken) {
        let (place, close) = self.take_place();
        let (stop, abort) = (stop.clone(), self.abort.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = serve(stream, router, &place, stop) => {}
                () = close.cancelled() => {}
                () = abort.cancelled() => {}
            }
        });
    }

    /// Waits until every connection has ended.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends all that are still there.
    pub(super) fn abort(&self) {
        self.abort.cancel();
    }

    fn take_place(&self) -> (Arc<Place>, CancellationToken) {
        let mut slots = lock(&self.slots);
        if slots.open.len() >= MOST {
            // What is idle goes before what is not, and what has been so for longer goes first.
            let first = slots.open.iter().min_by_key(|(id, slot)| (slot.idle_since.is_none(), slot.idle_since, **id));
            let first = first.map(|(id, _)| *id);
            if let Some(slot) = first.and_then(|id| slots.open.remove(&id)) {
                slot.close.cancel();
            }
        }
        let id = slots.next;
        slots.next += 1;
        let close = CancellationToken::new();
        slots.open.insert(id, Slot { idle_since: Some(Instant::now()), close: close.clone() });
        (Arc::new(Place { id, slots: Arc::clone(&self.slots) }), close)
    }
}

async fn serve(stream: TcpStream, router: Router, place: &Arc<Place>, stop: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request: axum::http::Request<Incoming>| {
        let asking = Asking::on(place);
        let response = router.call(request);
        async move {
            let response = response.await?;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _asking: asking }))
        }
    });
    let io = TokioIo::new(Stalling::new(stream, STALL_LIMIT));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(io, answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!("a connection ended early: {error}");
    }
}

/// A connection's place among the open ones.
#[derive(Debug)]
struct Place {
    id: u64,
    slots: Arc<Mutex<Slots>>,
}

impl Place {
    fn set_idle_since(&self, since: Option<Instant>) {
        if let Some(slot) = lock(&self.slots).open.get_mut(&self.id) {
            slot.idle_since = since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.slots).open.remove(&self.id);
    }
}

/// Holds while a request is answered, to the last byte of its answer.
struct Asking(Arc<Place>);

impl Asking {
    fn on(place: &Arc<Place>) -> Self {
        place.set_idle_since(None);
        Self(Arc::clone(place))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.set_idle_since(Some(Instant::now()));
    }
}

/// An answer whose connection is not idle until it is written.
struct Answer {
    body: Body,
    _asking: Asking,
}

impl hyper::body::Body for Answer {
    type Data = hyper::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    // Nobody panics while holding it; if it were so, what it holds would still be whole.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn when_one_too_many_comes_the_longest_idle_goes_and_then_the_oldest() {
        let connections = Connections::default();
        let mut open = Vec::new();
        for _ in 0..MOST {
            open.push(connections.take_place());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let first = Asking::on(&open[0].0);
        let second = connections.take_place();
        assert!(!open[0].1.is_cancelled(), "what is being answered stays");
        assert!(open[1].1.is_cancelled(), "what was idle for longest goes");

        let _asked: Vec<Asking> =
            open.iter().map(|(place, _)| Asking::on(place)).chain([Asking::on(&second.0)]).collect();
        let _third = connections.take_place();
        assert!(open[0].1.is_cancelled(), "all are being answered, so the oldest goes");
        assert_eq!(lock(&connections.slots).open.len(), MOST);
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_given_back() {
        let connections = Connections::default();
        let taken = connections.take_place();
        assert_eq!(lock(&connections.slots).open.len(), 1);
        drop(taken);
        assert_eq!(lock(&connections.slots).open.len(), 0);
    }
}
