//! Routes that settle first: step 10, then the work. What fails after it is owed back.

use std::sync::Arc;

use bytes::Bytes;

use super::hold::Held;
use super::reply::Reply;
use super::work::Work;
use super::{Asked, stream, work};
use crate::app::App;
use crate::problem::Problem;

/// Charges the whole, waits for it, and only then asks the upstream.
pub(crate) async fn fulfil(
    app: &Arc<App>,
    asked: &Asked,
    held: Held,
    body: Bytes,
    reply: &mut Reply,
) -> Result<(), Problem> {
    let whole = held.limit();
    let paid = held.capture_withheld(whole).await?.settle().await?;
    match work::ask(app, asked, body, paid.bill()).await {
        Ok(Work::Flowing(flow)) => stream::prepaid(app, asked, paid, flow, reply).await,
        Ok(Work::Whole(_) | Work::NotServed(_)) => Err(paid.owe_back("upstream_refused").await),
        Err(problem) => {
            tracing::warn!(payment.id = %paid.bill().id, ?problem, "upstream failed after payment");
            Err(paid.owe_back("upstream_failed").await)
        }
    }
}
