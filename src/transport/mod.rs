//! HTTP of a client: one HTTP/1.1 connection over any stream, that an endless row of interim answers cannot hold; and, in
//! its modules, one exchange over a connection of its own, with or without TLS.
//!
//! A server may send any number of `1xx` answers before the final one (RFC 9110, 15.2), and the HTTP library reads on
//! through all of them without giving way to anything else on the thread. Here the connection ends after
//! [`MOST_INTERIM`], and a head that is longer than [`MOST_HEAD`] is refused. A connection knows no addresses, no limits of
//! time and no bodies. It is not reqwest, which neither bounds interim answers nor says whether a request went out.

pub(crate) mod certificates;
pub(crate) mod exchange;
mod keys;

pub(crate) use keys::{KeyError, address, is_loopback, told};

use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// The most interim answers to one request. Servers send one or two: `100 Continue`, `103 Early Hints`.
pub(crate) const MOST_INTERIM: u32 = 8;

/// The most bytes of one head, and so of what is read ahead.
const MOST_HEAD: usize = 64 * 1024;

/// A connection. It ends when it is dropped, whatever is under way.
#[derive(Debug)]
pub(crate) struct HttpConnection {
    sender: SendRequest<String>,
    interim: Arc<AtomicU32>,
    _carrier: AbortOnDropHandle<hyper::Result<()>>,
}

/// Why there is no final answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseError {
    /// Too many interim answers came and no final one.
    #[error("more than {MOST_INTERIM} interim answers (status 1xx) came and no final one")]
    Endless,
    /// Any other reason.
    #[error(transparent)]
    Http(hyper::Error),
}

impl HttpConnection {
    /// Speaks HTTP over this stream; nothing is sent yet.
    pub(crate) async fn over<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let interim = Arc::new(AtomicU32::new(0));
        let stream = Bounded { stream: TokioIo::new(stream), interim: Arc::clone(&interim) };
        let (sender, carrier) = Builder::new().max_buf_size(MOST_HEAD).handshake(stream).await?;
        Ok(Self { sender, interim, _carrier: AbortOnDropHandle::new(tokio::spawn(carrier)) })
    }

    /// Whether another request can be sent: waits until the answer before has been taken in. `false` where the other
    /// side has closed.
    pub(crate) async fn is_usable(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request, and waits for the head of its final answer.
    pub(crate) async fn send(&mut self, mut request: Request<String>) -> Result<Response<Incoming>, ResponseError> {
        self.interim.store(0, Ordering::Relaxed);
        let interim = Arc::clone(&self.interim);
        hyper::ext::on_informational(&mut request, move |_| {
            interim.fetch_add(1, Ordering::Relaxed);
        });
        self.sender.send_request(request).await.map_err(|error| {
            if self.interim.load(Ordering::Relaxed) > MOST_INTERIM {
                ResponseError::Endless
            } else {
                ResponseError::Http(error)
            }
        })
    }
}

/// A stream that reads no further once too many interim answers came. They are counted as they are parsed, and between
/// two reads no more are parsed than fit into one buffer.
struct Bounded<S> {
    stream: TokioIo<S>,
    interim: Arc<AtomicU32>,
}

impl<S: AsyncRead + Unpin> Read for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.interim.load(Ordering::Relaxed) > MOST_INTERIM {
            return Poll::Ready(Err(io::Error::other("too many interim answers")));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> Write for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// What comes of a request that is answered with these bytes, over and over where `endless`.
    async fn answered(bytes: Vec<u8>, endless: bool) -> Result<u16, ResponseError> {
        let (ours, mut theirs) = duplex(64 * 1024);
        tokio::spawn(async move {
            let mut request = [0; 1024];
            assert_ne!(theirs.read(&mut request).await.unwrap(), 0);
            loop {
                if theirs.write_all(&bytes).await.is_err() || !endless {
                    // It stays open: silence, and no end.
                    return std::future::pending::<()>().await;
                }
            }
        });
        let mut connection = HttpConnection::over(ours).await.unwrap();
        assert!(connection.is_usable().await);
        connection.send(Request::new(String::new())).await.map(|answer| answer.status().as_u16())
    }

    #[tokio::test]
    async fn a_few_interim_answers_are_passed_over() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(4);
        let answer = format!("{interim}HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answered(answer.into_bytes(), false).await.unwrap(), 404);
    }

    #[tokio::test]
    async fn an_endless_row_of_interim_answers_ends_the_connection() {
        for interim in
            ["HTTP/1.1 100 Continue\r\n\r\n".to_owned(), format!("HTTP/1.1 103 X\r\na: {}\r\n\r\n", "x".repeat(9_000))]
        {
            let answer = answered(interim.into_bytes(), true).await;
            assert!(matches!(answer, Err(ResponseError::Endless)), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_refused() {
        let head = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(2 * MOST_HEAD));
        let answer = answered(head.into_bytes(), false).await;
        assert!(matches!(&answer, Err(ResponseError::Http(error)) if error.is_parse_too_large()), "{answer:?}");
    }
}
