//! Step 11: asks the upstream, and tells what kind of answer came.

use std::future::pending;

use axum::body::Body;
use bytes::Bytes;
use farebox_billing::Format;
use farebox_protocol::Timestamp;
use farebox_store::SettleMode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::LengthLimitError;

use super::Asked;
use super::hold::Bill;
use crate::app::App;
use crate::body::declared_length;
use crate::clock::Clock;
use crate::dispatch::too_large;
use crate::probe::Step;
use crate::problem::{Kind, Problem};
use crate::upstream::{Answer, Ask, UpstreamError};

/// An upstream's answer, by what is done with it.
#[derive(Debug)]
pub(crate) enum Work {
    /// Not what was asked for: passed on without a charge.
    NotServed(Response<Body>),
    /// Read to its end before anything leaves, unless it is too long for that.
    Whole(Answer),
    /// Forwarded as it comes.
    Flowing(Flowing),
}

/// An answer that is forwarded as it comes, by how it is metered.
#[derive(Debug)]
pub(crate) enum Flowing {
    /// Server-sent events: through the meter of the route's format.
    Events(Answer),
    /// An answer in one piece that is too long to be withheld, and what was read of it: through the
    /// meter as well.
    Long(Answer, Bytes),
    /// Anything else: nothing is read.
    Bytes(Answer),
}

/// Asks the upstream for the work, at the latest until there is just time to settle.
pub(crate) async fn ask(
    app: &App,
    asked: &Asked,
    body: Bytes,
    bill: &Bill,
) -> Result<Work, Problem> {
    let ask = Ask {
        method: asked.method.clone(),
        target: asked.target.clone(),
        headers: asked.headers.clone(),
        body: Body::from(body),
    };
    app.reached(Step::Serving, bill.id);
    let answer = tokio::select! {
        biased;
        answer = app.upstream.ask(&asked.route, ask) => answer,
        () = over(&*app.clock, bill.serve_by) => Err(UpstreamError::Timeout),
    };
    let answer = answer.map_err(|error| upstream_problem(error, app.limits.request_bytes_max))?;
    sort(app, asked, answer)
}

/// Returns when the time for the work is over, if it ever is.
pub(crate) async fn over(clock: &dyn Clock, serve_by: Option<Timestamp>) {
    match serve_by {
        Some(at) => clock.sleep_until(at).await,
        None => pending().await,
    }
}

fn sort(app: &App, asked: &Asked, answer: Answer) -> Result<Work, Problem> {
    let status = answer.status();
    refuse_upgrade(status)?;
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        // A client would follow it with its payment in hand.
        return Err(Problem::new(Kind::UpstreamFailed, "The upstream answered with a redirect."));
    }
    if !status.is_success() {
        return Ok(Work::NotServed(answer.map(Body::new)));
    }
    if asked.route.config.format != Format::Opaque && is_encoded(answer.headers()) {
        // We asked for `identity`. What cannot be read cannot be metered.
        return Err(Problem::new(Kind::UpstreamFailed, "The upstream's answer is compressed."));
    }
    if is_event_stream(answer.headers()) {
        return Ok(Work::Flowing(Flowing::Events(answer)));
    }
    let length = declared_length(answer.headers());
    let fits = length.map(|it| it <= app.limits.withheld_bytes_max);
    let is_metered = asked.route.config.price.needs_meter();
    let is_read = match asked.route.config.settle {
        SettleMode::After => true,
        SettleMode::Background => fits == Some(true) || is_metered,
        SettleMode::Before => false,
    };
    Ok(match (is_read, fits) {
        (false, _) => Work::Flowing(Flowing::Bytes(answer)),
        (true, Some(false)) => Work::Flowing(Flowing::Long(answer, Bytes::new())),
        (true, Some(true) | None) => Work::Whole(answer),
    })
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/event-stream")
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A 101 would turn the connection into something that no meter reads.
pub(crate) fn refuse_upgrade(status: StatusCode) -> Result<(), Problem> {
    if status.is_informational() {
        return Err(Problem::new(Kind::UpstreamFailed, "The upstream changed the protocol."));
    }
    Ok(())
}

/// The body's length is what its reader finds: events are left out or added.
pub(crate) fn forget_length(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
}

/// What the client is told of an upstream that gave no answer.
pub(crate) fn upstream_problem(error: UpstreamError, body_bytes_max: usize) -> Problem {
    let problem = match &error {
        UpstreamError::Timeout => {
            Problem::new(Kind::UpstreamTimeout, "The upstream did not answer in time.")
        }
        UpstreamError::Failed(_) if is_over_limit(&error) => too_large(body_bytes_max),
        UpstreamError::Failed(_) => {
            Problem::new(Kind::UpstreamFailed, "The upstream could not be asked.")
        }
        UpstreamError::Address(_) => {
            Problem::new(Kind::Internal, "The upstream has no such address.")
        }
    };
    problem.caused_by(error)
}

fn is_over_limit(error: &UpstreamError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
