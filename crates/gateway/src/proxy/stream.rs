//! Answers that leave as they come: every frame passes the meter on its way to the client.
//!
//! What is owed for the first byte is durable before it leaves. From then on the stream is captured
//! whatever way it ends; unless it was paid for before, it is read to its end whether or not the
//! client still listens.

mod checkpoints;
mod client;
mod flow;

use std::sync::Arc;

use farebox_billing::{Ended, Payment, Release, Usage};
use farebox_protocol::PaymentId;
use farebox_store::AnswerMark;

use self::checkpoints::Checkpoints;
use self::client::Client;
use self::flow::{Flow, Interrupted, Next};
use super::Asked;
use super::charge::{Paid, keep_private, name_receipt};
use super::hold::{Bill, Held};
use super::reply::Reply;
use super::work::Flowing;
use crate::app::App;
use crate::probe::Step;
use crate::problem::Problem;

/// How a stream ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// As the upstream ended it.
    No,
    /// The upstream broke off, fell silent or took too long.
    Yes,
}

/// What depends on a stream whose client is gone.
#[derive(Debug)]
enum Rest<'a> {
    /// The meter reads on.
    Metered(Checkpoints<'a>),
    /// Nothing.
    Unneeded,
}

/// Serves a stream that is captured when it ends.
pub(crate) async fn metered(
    app: &Arc<App>,
    asked: &Asked,
    held: Held,
    flowing: Flowing,
    reply: &mut Reply,
) -> Result<(), Problem> {
    let bill = Arc::clone(held.bill());
    let (mut head, mut flow) = Flow::new(app, asked, flowing, bill.serve_by);
    let first = match flow.first().await {
        Ok(first) => first,
        Err(problem) => {
            held.release(Release::UpstreamFailed).await;
            return Err(problem);
        }
    };
    app.reached(Step::UpstreamAnswered, bill.id);
    // Nothing leaves before it is durable that something is owed for it.
    let due = bill.owed(&flow.so_far());
    let held = held.meter(due).await?;
    keep_private(&mut head.headers);
    let recording = app.kept.record(asked.keep(), &head);
    name_receipt(app, bill.id, &mut head.headers);
    let mut client = Client::answer(head, asked.route.config.upstream.idle_timeout, reply);
    client.record(recording);
    let rest = Rest::Metered(Checkpoints::after(due, &held));
    let cut = forward(app, &bill, &mut flow, (first, rest), &mut client).await;
    let ended = flow.end();
    let usage = ended.metered().usage;
    let charge = bill.owed(ended.metered()); // 12
    match held.capture_sent(charge).await {
        Ok(charged) => {
            let receipt = receipt_line(app, &bill, &charged.state(), usage);
            // First, for a client may take its time.
            charged.settle_later();
            finish(app, &mut client, bill.id, (ended, receipt, cut)).await;
            app.reached(Step::Answered, bill.id);
        }
        Err(held) => {
            // Without a capture, no receipt.
            finish(app, &mut client, bill.id, (ended, None, cut)).await;
            drop(client);
            held.capture_at_last(charge).await?.settle_later();
        }
    }
    Ok(())
}

/// Serves a stream that is paid for.
pub(crate) async fn prepaid(
    app: &Arc<App>,
    asked: &Asked,
    paid: Paid,
    flowing: Flowing,
    reply: &mut Reply,
) -> Result<(), Problem> {
    let bill = Arc::clone(paid.bill());
    let (mut head, mut flow) = Flow::new(app, asked, flowing, bill.serve_by);
    let first = match flow.first().await {
        Ok(first) => first,
        Err(problem) => {
            tracing::warn!(payment.id = %bill.id, ?problem, "upstream failed after payment");
            return Err(paid.owe_back("upstream_failed").await);
        }
    };
    app.reached(Step::UpstreamAnswered, bill.id);
    paid.mark(AnswerMark::Leaving).await;
    keep_private(&mut head.headers);
    let recording = app.kept.record(asked.keep(), &head);
    paid.tell(&mut head.headers)?;
    let mut client = Client::answer(head, asked.route.config.upstream.idle_timeout, reply);
    client.record(recording);
    let cut = forward(app, &bill, &mut flow, (first, Rest::Unneeded), &mut client).await;
    let ended = flow.end();
    let usage = ended.metered().usage;
    let receipt = receipt_line(app, &bill, &paid.state(), usage);
    finish(app, &mut client, bill.id, (ended, receipt, cut)).await;
    app.reached(Step::Answered, bill.id);
    paid.mark(AnswerMark::Sent).await;
    paid.log();
    Ok(())
}

/// Forwards everything up to the end marker, until there is just time to settle. A client that is
/// gone is not waited for.
async fn forward(
    app: &App,
    bill: &Bill,
    flow: &mut Flow,
    (first, mut rest): (Next, Rest<'_>),
    client: &mut Client,
) -> Cut {
    let mut next = first;
    let mut begun = false;
    loop {
        let interrupted = match next {
            Next::Pieces(pieces) => tokio::select! {
                biased;
                () = client.send_all(pieces) => None,
                why = flow.deadline() => {
                    // In the middle of a piece: nothing may follow it.
                    client.cut();
                    Some(why)
                }
            },
            Next::End => return Cut::No,
            Next::Broken(error) => Some(error),
        };
        if let Some(error) = interrupted {
            tracing::warn!(payment.id = %bill.id, %error, "stream cut");
            return Cut::Yes;
        }
        if !begun {
            begun = true;
            app.reached(Step::FirstByte, bill.id);
        }
        if client.is_gone() && app.limits.withheld_bytes_max < flow.bytes() {
            return Cut::Yes;
        }
        next = match &mut rest {
            Rest::Metered(checkpoints) => {
                checkpoints.follow(bill.owed(&flow.so_far())).await;
                flow.next().await
            }
            Rest::Unneeded => tokio::select! {
                biased;
                // What is kept is wanted by whoever asks again.
                () = client.gone(), if !client.is_recorded() => {
                    Next::Broken(Interrupted::Unwanted)
                }
                next = flow.next() => next,
            },
        };
    }
}

/// The receipt for the client's eyes, before the end marker.
fn receipt_line(app: &App, bill: &Bill, state: &Payment, usage: Option<Usage>) -> Option<String> {
    bill.receipt(state, usage, app.clock.now()).comment().ok()
}

/// The end of an answer; one that came to it is kept, where answers are.
async fn finish(
    app: &App,
    client: &mut Client,
    id: PaymentId,
    (ended, receipt, cut): (Ended, Option<String>, Cut),
) {
    client.send_all(ended.finish(receipt.as_deref())).await;
    match cut {
        Cut::No => {
            if let Some(recording) = client.recorded() {
                recording.keep(id, app.clock.now());
            }
            client.end().await;
        }
        Cut::Yes => client.cut(),
    }
}
