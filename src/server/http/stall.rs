//! A connection whose reader may not stall: a write that makes no progress for too long fails.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection that fails with [`io::ErrorKind::TimedOut`] when its reader stalls.
pub(super) struct StallTimeout<T> {
    io: T,
    limit: Duration,
    /// Runs out where a write waits; made with the first wait.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl<T> StallTimeout<T> {
    /// This connection, whose reader may stall for so long.
    pub(super) const fn new(io: T, limit: Duration) -> Self {
        Self { io, limit, timer: None, is_waiting: false }
    }

    /// Passes on what a write came to, unless it has waited for too long.
    fn watch<V>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<V>>) -> Poll<io::Result<V>> {
        if wrote.is_ready() {
            self.is_waiting = false;
            return wrote;
        }
        let until = Instant::now() + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.is_waiting {
            timer.as_mut().reset(until);
            self.is_waiting = true;
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader stalled")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for StallTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for StallTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.watch(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, shut)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_is_given_up_and_one_that_is_only_slow_is_not() {
        let limit = Duration::from_secs(30);
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut stalling = StallTimeout::new(ours, limit);
        let slow = tokio::spawn(async move {
            let mut all = [0; 64];
            for part in all.chunks_mut(16) {
                tokio::time::sleep(Duration::from_secs(20)).await;
                theirs.read_exact(part).await.unwrap();
            }
            theirs
        });
        stalling.write_all(&[7; 64]).await.unwrap();
        let _theirs = slow.await.unwrap();
        let began = Instant::now();
        let error = stalling.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), limit.as_secs());
    }
}
