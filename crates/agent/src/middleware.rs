//! The reqwest layer: a `reqwest-middleware` that pays for whatever goes through the client.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use crate::budget::Standing;
use crate::client::Payer;
use crate::clock::Clock;
use crate::policy::Policy;
use crate::transport::Chained;
use crate::wallet::Wallet;

/// Pays within its policy. Each answer that was paid for has a [`crate::Payment`] among its
/// extensions; failures are [`crate::PayError`]s inside [`Error::Middleware`].
///
/// Build the client underneath with `redirect(Policy::none())`: a client that follows redirects is
/// noticed and not paid through. A retrying middleware belongs *below* this one or nowhere: above
/// it, each of its retries may sign anew (the budget holds all the same).
#[derive(Clone)]
pub struct PayingMiddleware(Payer);

impl PayingMiddleware {
    /// A layer with a budget of its own; clones share it.
    pub fn new(wallet: Wallet, policy: Policy) -> Self {
        Self(Payer::new(wallet, policy))
    }

    /// With another clock than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self(self.0.with_clock(clock))
    }

    /// How the budget stands.
    pub fn standing(&self) -> Standing {
        self.0.standing()
    }
}

impl fmt::Debug for PayingMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayingMiddleware({:?})", self.0.standing())
    }
}

#[async_trait]
impl Middleware for PayingMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let mut transport = Chained { next, extensions };
        let paid = self.0.run(&mut transport, request).await.map_err(Error::middleware)?;
        Ok(paid.response)
    }
}
