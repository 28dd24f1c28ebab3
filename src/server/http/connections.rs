//! The connections that are open, and how many there may be.
//!
//! When one too many comes, another is closed: the one that has been idle for longest, or the one that has been answered
//! for longest, whichever there are more of. So neither those who say nothing nor those who never read to the end can keep
//! a health check out: it is closed only once half of all places have changed hands since it came.

use super::stall::StallTimeout;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most connections at once, over all addresses.
const MOST: usize = 256;

/// The least that are served, however few files may be open: some health checks, a scrape and somebody who looks.
const LEAST: usize = 8;

/// How many connections there may be at once, over all addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionLimit(usize);

impl Default for ConnectionLimit {
    fn default() -> Self {
        Self(MOST)
    }
}

impl ConnectionLimit {
    /// As many as ever, or as this number of open files allows.
    pub fn within(files: usize) -> Self {
        Self(files.clamp(LEAST, MOST))
    }
}

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
    slots: Arc<Mutex<ConnectionTable>>,
    tasks: TaskTracker,
    abort: CancellationToken,
    most: ConnectionLimit,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    next: u64,
    open: BTreeMap<u64, ConnectionSlot>,
}

#[derive(Debug)]
struct ConnectionSlot {
    doing: ConnectionActivity,
    /// Since when it does so.
    since: Instant,
    close: CancellationToken,
}

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnectionActivity {
    /// Nothing is asked on it, or not to the end.
    Idle,
    /// A request is answered.
    Answering,
}

impl Connections {
    /// None yet, and never more than this.
    pub(super) fn up_to(most: ConnectionLimit) -> Self {
        Self { most, ..Self::default() }
    }

    /// Serves a connection until it ends, `stop` comes, or its place is needed. Returns once the one that had to make room
    /// had its turn to close: many that come in one instant would otherwise be open all at once.
    pub(super) async fn admit(&self, stream: TcpStream, router: Router, stop: &CancellationToken) {
        let (place, close, room) = self.take_place();
        let (stop, abort) = (stop.clone(), self.abort.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = serve(stream, router, &place, stop) => {}
                () = close.cancelled() => {}
                () = abort.cancelled() => {}
            }
        });
        if room == Admission::Made {
            tokio::task::yield_now().await;
        }
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

    fn take_place(&self) -> (Arc<ConnectionGuard>, CancellationToken, Admission) {
        let mut slots = lock(&self.slots);
        let mut room = Admission::Left;
        if slots.open.len() >= self.most.0 {
            let idle = slots.open.values().filter(|slot| slot.doing == ConnectionActivity::Idle).count();
            let yielding =
                if idle * 2 >= slots.open.len() { ConnectionActivity::Idle } else { ConnectionActivity::Answering };
            let longest = slots.open.iter().filter(|(_, slot)| slot.doing == yielding);
            let longest = longest.min_by_key(|(id, slot)| (slot.since, **id)).map(|(id, _)| *id);
            if let Some(slot) = longest.and_then(|id| slots.open.remove(&id)) {
                slot.close.cancel();
                room = Admission::Made;
            }
        }
        let id = slots.next;
        slots.next += 1;
        let close = CancellationToken::new();
        slots.open.insert(
            id,
            ConnectionSlot { doing: ConnectionActivity::Idle, since: Instant::now(), close: close.clone() },
        );
        (Arc::new(ConnectionGuard { id, slots: Arc::clone(&self.slots) }), close, room)
    }
}

/// Whether there was room for one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Admission {
    Left,
    /// Another connection was told to close.
    Made,
}

/// Serves one connection that has a place of its own.
pub(super) async fn serve_alone(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let (place, _, _) = Connections::default().take_place();
    serve(stream, router, &place, CancellationToken::new()).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    place: &Arc<ConnectionGuard>,
    stop: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request: axum::http::Request<Incoming>| {
        let asking = AnswerInProgress::on(place);
        let response = router.call(request);
        async move {
            let response = response.await?;
            Ok::<_, Infallible>(response.map(|body| TrackedAnswer { body, _asking: asking }))
        }
    });
    let io = TokioIo::new(StallTimeout::new(stream, STALL_LIMIT));
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
struct ConnectionGuard {
    id: u64,
    slots: Arc<Mutex<ConnectionTable>>,
}

impl ConnectionGuard {
    fn set(&self, doing: ConnectionActivity) {
        if let Some(slot) = lock(&self.slots).open.get_mut(&self.id) {
            (slot.doing, slot.since) = (doing, Instant::now());
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        lock(&self.slots).open.remove(&self.id);
    }
}

/// Holds while a request is answered, to the last byte of its answer.
struct AnswerInProgress(Arc<ConnectionGuard>);

impl AnswerInProgress {
    fn on(place: &Arc<ConnectionGuard>) -> Self {
        place.set(ConnectionActivity::Answering);
        Self(Arc::clone(place))
    }
}

impl Drop for AnswerInProgress {
    fn drop(&mut self) {
        self.0.set(ConnectionActivity::Idle);
    }
}

/// An answer whose connection is not idle until it is written.
struct TrackedAnswer {
    body: Body,
    _asking: AnswerInProgress,
}

impl hyper::body::Body for TrackedAnswer {
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

fn lock(slots: &Mutex<ConnectionTable>) -> MutexGuard<'_, ConnectionTable> {
    // Nobody panics while holding it; if it were so, what it holds would still be whole.
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Taken = (Arc<ConnectionGuard>, CancellationToken, Admission);

    /// As many as there may be, a millisecond apart.
    async fn all_taken(connections: &Connections) -> Vec<Taken> {
        let mut open = Vec::new();
        for _ in 0..MOST {
            open.push(connections.take_place());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        open
    }

    fn closed(open: &[Taken]) -> Vec<usize> {
        open.iter().enumerate().filter(|(_, (_, close, _))| close.is_cancelled()).map(|(at, _)| at).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn when_one_too_many_comes_the_longest_idle_goes() {
        let connections = Connections::default();
        let open = all_taken(&connections).await;
        let _asked = AnswerInProgress::on(&open[0].0);
        assert!(open.iter().all(|(_, _, room)| *room == Admission::Left));
        let (_place, _, room) = connections.take_place();
        assert_eq!(room, Admission::Made);
        assert_eq!(closed(&open), [1], "what is being answered stays");
        assert_eq!(lock(&connections.slots).open.len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn where_most_are_being_answered_the_one_that_takes_longest_goes_and_not_who_has_just_come() {
        let connections = Connections::default();
        let open = all_taken(&connections).await;
        let mut asked = Vec::new();
        // In the other order than they came.
        for (place, _, _) in open.iter().rev().take(MOST - 1) {
            asked.push(AnswerInProgress::on(place));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let newcomers: Vec<Taken> = (0..MOST / 2 - 1).map(|_| connections.take_place()).collect();
        assert_eq!(closed(&newcomers), Vec::<usize>::new(), "each has its time to ask");
        assert_eq!(closed(&open), (MOST / 2 + 1..MOST).collect::<Vec<_>>());
        let _last = [connections.take_place(), connections.take_place()];
        assert_eq!(closed(&open).first(), Some(&0), "then it is the turn of those who never asked");
        assert_eq!(lock(&connections.slots).open.len(), MOST);
    }

    #[test]
    fn few_files_are_few_connections_and_some_are_always_served() {
        let within = |files| ConnectionLimit::within(files).0;
        assert_eq!((within(0), within(144), within(65_000)), (LEAST, 144, MOST));
        let few = Connections::up_to(ConnectionLimit::within(20));
        let open: Vec<Taken> = (0..30).map(|_| few.take_place()).collect();
        assert_eq!((lock(&few.slots).open.len(), closed(&open).len()), (20, 10));
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
