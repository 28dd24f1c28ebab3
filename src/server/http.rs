//! The HTTP endpoint: read-only, and local unless told otherwise. What it answers comes from the [`StatusPublisher`] alone, so
//! nothing that is asked here reaches the loop.
//!
//! Everything is bounded: connections, headers, waits, and how long a reader may stall. There is no body to read, no
//! cross-origin access, and a Host that is neither a literal address nor known is turned away, so that no web page can
//! read it by pointing a name of its own at this machine.

mod connections;
mod gate;
mod routes;
mod stall;

use super::StatusPublisher;
pub use crate::config::Expose;
pub use connections::ConnectionLimit;
use connections::Connections;
use gate::Gate;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long until an address that could not be listened on is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How long until trouble with accepting is said again.
const QUIET: Duration = Duration::from_secs(60);

/// Connections that the kernel keeps for us to accept. Whoever finds no room tries again a second later, which is a long
/// time for a health check while others storm in.
const BACKLOG: u32 = 4096;

/// What the kernel keeps of an answer that is not read, in bytes; it doubles this.
const SEND_BUFFER: u32 = 64 * 1024;

/// How long answers may still be read when we end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where and to whom it is served.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Serving {
    /// The addresses to listen on; none serves nothing.
    pub listen: Vec<SocketAddr>,
    /// What is served on addresses that are not loopback.
    pub expose: Expose,
    /// Names that a request may use for this machine, beside literal addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// How many connections there may be.
    pub most_connections: ConnectionLimit,
}

/// The HTTP endpoint.
#[derive(Debug)]
pub struct HttpServer {
    serving: Serving,
    publisher: StatusPublisher,
    bound: watch::Sender<Vec<Option<SocketAddr>>>,
}

impl HttpServer {
    /// An endpoint that serves this publisher; it listens once [`HttpServer::serve`] runs.
    pub fn new(serving: Serving, publisher: StatusPublisher) -> Self {
        let (bound, _) = watch::channel(vec![None; serving.listen.len()]);
        Self { serving, publisher, bound }
    }

    /// The addresses that are listened on, in the order of [`Serving::listen`]: with the real port where 0 was asked
    /// for, nothing where it could not be had.
    pub fn bound(&self) -> watch::Receiver<Vec<Option<SocketAddr>>> {
        self.bound.subscribe()
    }

    /// Serves one connection to its end, as one to this address is served, wherever it comes from: a fuzzer has no sockets
    /// to spare.
    pub async fn attend(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, address: SocketAddr) {
        let gate = Arc::new(Gate::new(&self.serving, address));
        connections::serve_alone(stream, routes::router(self.publisher.clone(), gate)).await;
    }

    /// Serves until `stop`, and half a second more for answers that are being read. An address that cannot be listened
    /// on is said and tried again every 10 s; it stops neither the others nor anything else.
    pub async fn serve(self, stop: CancellationToken) {
        let connections = Connections::up_to(self.serving.most_connections);
        let bound = Arc::new(self.bound);
        let mut listeners = JoinSet::new();
        for (at, address) in self.serving.listen.iter().copied().enumerate() {
            let listening = Listening {
                at,
                address,
                gate: Gate::new(&self.serving, address),
                publisher: self.publisher.clone(),
                connections: connections.clone(),
                bound: Arc::clone(&bound),
            };
            listeners.spawn(listening.run(stop.clone()));
        }
        stop.cancelled().await;
        listeners.shutdown().await;
        drop(tokio::time::timeout(LAST_WORDS, connections.finish()).await);
        connections.abort();
    }
}

/// One address that is listened on.
struct Listening {
    at: usize,
    address: SocketAddr,
    gate: Gate,
    publisher: StatusPublisher,
    connections: Connections,
    bound: Arc<watch::Sender<Vec<Option<SocketAddr>>>>,
}

impl Listening {
    async fn run(self, stop: CancellationToken) {
        let listener = self.listen().await;
        let address = listener.local_addr().unwrap_or(self.address);
        self.bound.send_modify(|bound| {
            if let Some(slot) = bound.get_mut(self.at) {
                *slot = Some(address);
            }
        });
        let router = routes::router(self.publisher, Arc::new(self.gate));
        let mut quiet_until = Instant::now();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.connections.admit(stream, router.clone(), &stop).await,
                Err(error) => {
                    // Out of file descriptors, most likely: accepting at once again would only spin.
                    if Instant::now() >= quiet_until {
                        tracing::warn!("a connection to http://{address} could not be accepted: {error}");
                        quiet_until = Instant::now() + QUIET;
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        }
    }

    /// The listener, once it can be had.
    async fn listen(&self) -> TcpListener {
        let mut said = None;
        loop {
            match bind(self.address) {
                Ok(listener) => {
                    if said.is_some() {
                        tracing::info!("http://{} can be listened on now; the status is served there", self.address);
                    }
                    return listener;
                }
                Err(error) => {
                    if said != Some(error.kind()) {
                        tracing::warn!("{}", trouble(self.address, &error));
                        said = Some(error.kind());
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it, so that an answer that is not read costs little.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of io errors are not ours, and more are to come")]
fn trouble(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; give another address with `listen`, or `off`",
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address; give another one with `listen`",
        io::ErrorKind::PermissionDenied => "ports below 1024 need rights; give a higher one with `listen`",
        _ => "give another address with `listen`, or `off`",
    };
    format!(
        "the status cannot be served on http://{address}: {error}: {advice}; the watch goes on, and it is tried again every {} s",
        RETRY.as_secs()
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use crate::server::publisher::tests::calm_publisher;

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_taken_is_tried_again_until_it_is_free() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let serving = Serving { listen: vec![address, "127.0.0.1:0".parse().unwrap()], ..Serving::default() };
        let server = HttpServer::new(serving, calm_publisher());
        let mut bound = server.bound();
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));

        tokio::time::sleep(RETRY * 3 + Duration::from_secs(5)).await;
        assert_eq!(bound.borrow_and_update()[0], None);
        assert!(bound.borrow()[1].is_some(), "the other address is served meanwhile");

        drop(other);
        let freed = tokio::time::Instant::now();
        bound.wait_for(|bound| bound[0] == Some(address)).await.unwrap();
        assert!(freed.elapsed() <= RETRY);
        stop.cancel();
        served.await.unwrap();
        assert!(std::net::TcpStream::connect(address).is_err(), "nothing listens after the end");
    }

    #[tokio::test(start_paused = true)]
    async fn off_serves_nothing_and_ends_when_told() {
        let stop = CancellationToken::new();
        let served = tokio::spawn(HttpServer::new(Serving::default(), calm_publisher()).serve(stop.clone()));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!served.is_finished());
        stop.cancel();
        served.await.unwrap();
    }

    #[test]
    fn trouble_with_an_address_is_told_with_what_to_do() {
        let sentence = trouble("127.0.0.1:9189".parse().unwrap(), &io::Error::from(io::ErrorKind::AddrInUse));
        assert!(sentence.contains("another program listens there") && sentence.contains("tried again every 10 s"));
    }
}
