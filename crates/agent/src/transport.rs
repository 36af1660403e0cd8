//! How requests get out: through a client of our own, or through the rest of a middleware chain.

use std::error::Error;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::Next;

/// Sends one request, without following redirects with it.
#[async_trait]
pub(crate) trait Transport: Send {
    /// The head of the answer.
    async fn send(&mut self, request: Request) -> Result<Response, SendError>;
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("the request failed")]
pub(crate) struct SendError {
    /// Whether it may have arrived all the same.
    pub(crate) arrived: Arrived,
    /// Why; without the URL, which may hold secrets.
    #[source]
    pub(crate) source: Box<dyn Error + Send + Sync>,
}

/// Whether a request without an answer may have been acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// No connection was made.
    No,
    /// It may have been.
    Perhaps,
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let never = error.is_connect() || error.is_builder();
        let arrived = if never { Arrived::No } else { Arrived::Perhaps };
        Self { arrived, source: error.without_url().into() }
    }
}

impl From<reqwest_middleware::Error> for SendError {
    fn from(error: reqwest_middleware::Error) -> Self {
        match error {
            reqwest_middleware::Error::Reqwest(error) => error.into(),
            reqwest_middleware::Error::Middleware(error) => {
                Self { arrived: Arrived::Perhaps, source: error.into() }
            }
        }
    }
}

/// Straight through a client.
#[derive(Debug)]
pub(crate) struct Direct<'a>(pub(crate) &'a reqwest::Client);

#[async_trait]
impl Transport for Direct<'_> {
    async fn send(&mut self, request: Request) -> Result<Response, SendError> {
        Ok(self.0.execute(request).await?)
    }
}

/// Through the rest of a `reqwest-middleware` chain.
pub(crate) struct Chained<'a> {
    pub(crate) next: Next<'a>,
    pub(crate) extensions: &'a mut Extensions,
}

#[async_trait]
impl Transport for Chained<'_> {
    async fn send(&mut self, request: Request) -> Result<Response, SendError> {
        Ok(self.next.clone().run(request, self.extensions).await?)
    }
}
