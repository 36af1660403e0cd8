//! The bytes of a connection: bounds of time that hyper does not have, and its refusals in our words.
//!
//! hyper answers a head that it cannot parse by itself, with a status and nothing else. No request was
//! begun then, so whoever answers requests never hears of it; what leaves is replaced here by a problem
//! of the same status.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::listening::Bounds;
use super::pulse::Pulse;
use crate::cors;
use crate::problem::{Kind, Problem};

/// No refusal by hyper is as long.
const BARE_BYTES_MAX: usize = 256;
/// How long a client that was refused may go on sending, so that it gets to read why.
const LINGER: Duration = Duration::from_secs(1);
/// And how much.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Pieces of an answer that are together no longer are copied into one, for the kernel takes one in
/// less time than several: its head and body, where the body is short.
const JOINED_BYTES_MAX: usize = 4 * 1024;

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    bounds: Bounds,
    /// The request that is coming in, by its number, and when its head began.
    head: Option<(u64, Instant)>,
    head_timer: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing.
    write_timer: Option<Pin<Box<Sleep>>>,
    joined: Vec<u8>,
    refusal: Refusal,
}

/// A refusal in place of hyper's.
#[derive(Debug, Default)]
struct Refusal {
    bytes: Vec<u8>,
    sent: usize,
    /// After it, what still comes is read and thrown away: a close with unread bytes would take the
    /// refusal from the client again.
    linger: Option<Pin<Box<Sleep>>>,
    thrown_away: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>, bounds: Bounds) -> Self {
        Self {
            stream,
            pulse,
            bounds,
            head: None,
            head_timer: None,
            write_timer: None,
            joined: Vec::new(),
            refusal: Refusal::default(),
        }
    }

    fn write_slices(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, joined, .. } = self;
        let bytes = slices.iter().map(|it| it.len()).fold(0, usize::saturating_add);
        if JOINED_BYTES_MAX < bytes {
            return Pin::new(stream).poll_write_vectored(context, slices);
        }
        // What is not written now comes again.
        joined.clear();
        for slice in slices {
            joined.extend_from_slice(slice);
        }
        Pin::new(stream).poll_write(context, joined)
    }

    /// Notes what came; fails when a head takes too long.
    fn watch_head(&mut self, context: &mut Context<'_>, came: bool) -> Poll<io::Error> {
        if !self.pulse.is_quiet() {
            return Poll::Pending;
        }
        let number = self.pulse.begun();
        if self.head.is_some_and(|it| it.0 != number) {
            (self.head, self.head_timer) = (None, None);
        }
        if came {
            self.head.get_or_insert_with(|| (number, Instant::now()));
            return Poll::Pending;
        }
        let Some((_, began)) = self.head else { return Poll::Pending };
        let rest = self.bounds.header_timeout.saturating_sub(began.elapsed());
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(sleep(rest)));
        timer.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// What was written, or an error when the client has taken nothing for too long.
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let span = self.bounds.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(span)));
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Puts a problem in the place of a refusal by hyper; whether this is one.
    fn replace(&mut self, bytes: &[u8]) -> bool {
        if !self.pulse.is_quiet() || BARE_BYTES_MAX < bytes.len() {
            return false;
        }
        let Some(told) = in_our_words(bytes) else { return false };
        self.refusal.bytes = told;
        true
    }

    fn send_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.refusal.bytes.get(self.refusal.sent..)
            && !rest.is_empty()
        {
            let written = Pin::new(&mut self.stream).poll_write(context, rest);
            let written = ready!(self.watch_write(context, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.sent = self.refusal.sent.saturating_add(written);
        }
        Poll::Ready(Ok(()))
    }

    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.refusal.thrown_away < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let more = buffer.filled().len();
                    self.refusal.thrown_away = self.refusal.thrown_away.saturating_add(more);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let timer = self.refusal.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                    return timer.as_mut().poll(context);
                }
            }
        }
        Poll::Ready(())
    }
}

/// The problem for a bare refusal: a status line, an empty body and none of the headers that all of
/// our own answers have.
fn in_our_words(bare: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bare).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let (kind, detail) = match lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()? {
        "400" => (Kind::MalformedRequest, "This is no request that an HTTP parser takes."),
        "431" | "414" => (Kind::HeadersTooLarge, "The head of the request is too large."),
        _ => return None,
    };
    let mut date = "";
    for line in lines {
        let (name, value) = line.split_once(':')?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("connection", _) | ("content-length", "0") => {}
            ("date", _) => date = line,
            _ => return None,
        }
    }
    let mut problem = Problem::new(kind, detail).prepare();
    cors::open_up(problem.headers_mut());
    Some(problem.into_last_http1(date))
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() != before;
        if (came || polled.is_pending())
            && let Poll::Ready(late) = self.watch_head(context, came)
        {
            return Poll::Ready(Err(late));
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_refusal(context))?;
        if self.replace(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_refusal(context))?;
        if let [only] = slices
            && self.replace(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        let written = self.write_slices(context, slices);
        self.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_refusal(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_refusal(context))?;
        if self.refusal.bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_shutdown(context);
        }
        if self.refusal.linger.is_none() && self.refusal.thrown_away == 0 {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        self.linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_replaced() {
        let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
                    date: Sat, 21 Nov 2026 06:00:00 GMT\r\n\r\n";
        let told = String::from_utf8(in_our_words(bare.as_bytes()).unwrap()).unwrap();
        assert!(told.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{told}");
        assert!(told.contains("date: Sat, 21 Nov 2026 06:00:00 GMT\r\n"), "{told}");
        for other in [
            bare.replace("content-length: 0", "content-length: 2"),
            bare.replace("connection: close", "access-control-allow-origin: *"),
            bare.replace("400 Bad Request", "200 OK"),
            format!("{bare}more"),
            "HTTP/1.1 400".to_owned(),
        ] {
            assert!(in_our_words(other.as_bytes()).is_none(), "{other}");
        }
    }
}
