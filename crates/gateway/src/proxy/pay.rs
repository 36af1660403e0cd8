//! The way of one paid request, top to bottom. The numbers are those of ARCHITECTURE.md.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use farebox_billing::Release;
use farebox_store::SettleMode;
use http::Response;

use super::accept::{self, Presented, Verified};
use super::hold::Holding;
use super::reply::Reply;
use super::work::Work;
use super::{Asked, answer, charge, hold, prepaid, quote, repeat, stream, v1, work};
use crate::app::App;
use crate::probe::Step;
use crate::problem::Problem;

/// Answers a priced request: with offers, with what was paid for, or with why not.
pub(crate) async fn pay(app: &Arc<App>, asked: &Arc<Asked>) -> Result<Response<Body>, Problem> {
    let answer = take(app, asked).await;
    answer.map_err(|problem| quote::offer_again(app, asked, problem))
}

async fn take(app: &Arc<App>, asked: &Arc<Asked>) -> Result<Response<Body>, Problem> {
    let versions = asked.route.config.versions;
    let Some(presented) = accept::payment_header(&asked.headers, versions)? else {
        return quote::unpaid(app, asked); // 3, 4
    };
    // Boxed, for most requests pay nothing and should not carry the room for it.
    let answer = Box::pin(redeem(app, asked, presented)).await;
    match presented {
        Presented::Two(_) => answer,
        Presented::One(_) => v1::tell(answer),
    }
}

async fn redeem(
    app: &Arc<App>,
    asked: &Arc<Asked>,
    presented: Presented<'_>,
) -> Result<Response<Body>, Problem> {
    let accepted = accept::accept(app, asked, presented)?; // 5
    app.reached(Step::Decoded, accepted.id());
    if let Some(answer) = repeat::of_payment(app, &accepted).await? {
        return Ok(answer); // 6
    }
    let body = asked.enforced_body(app).await?;
    let verified = accept::verify(app, accepted).await?; // 7
    app.reached(Step::Verified, verified.id());
    let (reply, answer) = Reply::channel();
    app.payments.spawn(detached(Arc::clone(app), Arc::clone(asked), verified, body, reply));
    answer.wait().await
}

/// 9: a task of its own owns the payment; a client that hangs up changes nothing from here on.
async fn detached(
    app: Arc<App>,
    asked: Arc<Asked>,
    verified: Verified,
    body: Bytes,
    mut reply: Reply,
) {
    if let Err(problem) = fulfil(&app, &asked, verified, body, &mut reply).await {
        reply.refuse(problem);
    }
}

async fn fulfil(
    app: &Arc<App>,
    asked: &Asked,
    verified: Verified,
    body: Bytes,
    reply: &mut Reply,
) -> Result<(), Problem> {
    // 8
    let held = match hold::hold(app, asked, verified).await? {
        Holding::New(held) => held,
        Holding::Answered(again) => {
            reply.send(again); // 6: by its name, the request was paid for before
            return Ok(());
        }
    };
    if asked.route.config.settle == SettleMode::Before {
        return prepaid::fulfil(app, asked, held, body, reply).await; // 10
    }
    let held = held.begin_serve().await?;
    match work::ask(app, asked, body, held.bill()).await {
        // 11; 12 to 15 are where the answer is
        Ok(Work::Whole(answer)) => answer::whole(app, asked, held, answer, reply).await,
        Ok(Work::Flowing(flow)) => stream::metered(app, asked, held, flow, reply).await,
        Ok(Work::NotServed(mut response)) => {
            held.release(Release::UpstreamFailed).await;
            charge::say_uncharged(response.headers_mut());
            reply.send(response);
            Ok(())
        }
        Err(problem) => {
            held.release(Release::UpstreamFailed).await;
            Err(problem)
        }
    }
}
