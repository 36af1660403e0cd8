//! Answers in one piece: priced before a byte leaves, and withheld until the settlement where the
//! route says so. One that is too long for that leaves like a stream: the work is done by then.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use farebox_billing::{Release, meter_answer};
use farebox_protocol::PaymentId;
use farebox_store::{AnswerMark, SettleMode};
use http::response::Parts;
use http::{Method, Response};

use super::charge::{is_owed, keep_private, name_receipt, say_uncharged};
use super::hold::Held;
use super::reply::Reply;
use super::work::{Flowing, forget_length, over};
use super::{Asked, stream};
use crate::app::App;
use crate::body::{Collected, Unread, collect};
use crate::kept::Recording;
use crate::probe::Step;
use crate::problem::{Kind, Problem};
use crate::upstream::{Answer, Broken};

/// Finishes a payment whose answer comes in one piece.
pub(crate) async fn whole(
    app: &Arc<App>,
    asked: &Asked,
    held: Held,
    answer: Answer,
    reply: &mut Reply,
) -> Result<(), Problem> {
    let id = held.bill().id;
    let (mut parts, mut rest) = answer.into_parts();
    let body = match read(app, asked, &held, &mut rest).await {
        Ok(Collected::Whole(body)) => body,
        Ok(Collected::Begun(begun)) => {
            let long = Flowing::Long(Response::from_parts(parts, rest), begun);
            return stream::metered(app, asked, held, long, reply).await;
        }
        Err(problem) => {
            held.release(Release::UpstreamFailed).await;
            return Err(problem);
        }
    };
    app.reached(Step::UpstreamAnswered, id);
    if asked.method != Method::HEAD {
        forget_length(&mut parts.headers);
    }
    let metered = meter_answer(asked.route.config.format, &asked.facts, &body);
    if !is_owed(&metered) {
        held.release(Release::NothingOwed).await;
        say_uncharged(&mut parts.headers);
        reply.send(Response::from_parts(parts, Body::from(body)));
        return Ok(());
    }
    keep_private(&mut parts.headers);
    let recording = record(app, asked, &parts, &body);
    let charge = held.bill().owed(&metered); // 12
    if asked.route.config.settle == SettleMode::Background {
        let charged = held.capture_leaving(charge).await?;
        name_receipt(app, id, &mut parts.headers);
        keep(app, id, recording);
        reply.send(Response::from_parts(parts, Body::from(body)));
        app.reached(Step::Answered, id);
        charged.settle_later();
        return Ok(());
    }
    let paid = held.capture_withheld(charge).await?.settle().await?;
    paid.tell(&mut parts.headers)?;
    keep(app, id, recording);
    reply.send(Response::from_parts(parts, Body::from(body)));
    app.reached(Step::Answered, id);
    paid.mark(AnswerMark::Sent).await;
    paid.log();
    Ok(())
}

/// The answer to be kept, if the route keeps what is as large.
fn record(app: &App, asked: &Asked, head: &Parts, body: &[u8]) -> Option<Recording> {
    let recording = app.kept.record(asked.keep(), head)?;
    recording.with(body)
}

fn keep(app: &App, id: PaymentId, recording: Option<Recording>) {
    if let Some(recording) = recording {
        recording.keep(id, app.clock.now());
    }
}

async fn read(
    app: &App,
    asked: &Asked,
    held: &Held,
    body: &mut (impl http_body::Body<Data = Bytes, Error = Broken> + Unpin),
) -> Result<Collected, Problem> {
    let max = app.limits.withheld_bytes_max;
    // Silence is already watched by the body itself; its limit here is the same.
    let patience = asked.route.config.upstream.idle_timeout;
    let body = tokio::select! {
        biased;
        body = collect(body, max, patience) => body,
        () = over(&*app.clock, held.bill().serve_by) => Err(Unread::Silent),
    };
    body.map_err(|unread| match unread {
        Unread::Silent | Unread::NoRoom | Unread::TooLarge => {
            Problem::new(Kind::UpstreamTimeout, "The upstream fell silent.")
        }
        Unread::Broken(error) => {
            Problem::new(Kind::UpstreamFailed, "The upstream's answer broke off.").caused_by(error)
        }
    })
}
