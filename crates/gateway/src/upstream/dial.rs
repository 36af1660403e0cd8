//! Connections to upstreams without a network, for gateways that are simulated.

use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tower::Service;

/// Opens connections to upstreams.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Our end of a connection to the host of `url`; an upstream that cannot be reached is an error.
    fn dial(&self, url: &Uri) -> io::Result<DuplexStream>;
}

/// Dials for the client.
#[derive(Clone, Debug)]
pub(super) struct Dialler(pub(super) Arc<dyn Dial>);

/// Our end of a connection.
#[derive(Debug)]
pub(super) struct Dialled(TokioIo<DuplexStream>);

impl Service<Uri> for Dialler {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Ready<io::Result<Dialled>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        ready(self.0.dial(&url).map(|stream| Dialled(TokioIo::new(stream))))
    }
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
