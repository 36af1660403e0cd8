//! Routes that cost nothing: bodies pass both ways as they come.

use axum::body::Body;
use http::{Response, request};
use http_body::Body as _;
use http_body_util::Limited;
use hyper::body::Incoming;

use super::work::{refuse_upgrade, upstream_problem};
use crate::app::App;
use crate::dispatch::check_declared_length;
use crate::problem::Problem;
use crate::routes::LiveRoute;
use crate::target::Target;
use crate::upstream::Ask;

/// Passes a request on, and its answer back.
pub(crate) async fn pass(
    app: &App,
    route: &LiveRoute,
    parts: request::Parts,
    target: Target,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    let max = app.limits.request_bytes_max;
    check_declared_length(max, &parts.headers)?;
    let body =
        if body.is_end_stream() { Body::empty() } else { Body::new(Limited::new(body, max)) };
    let ask = Ask { method: parts.method, target, headers: parts.headers, body };
    let answer = app.upstream.ask(route, ask).await;
    let answer = answer.map_err(|error| upstream_problem(error, max))?;
    refuse_upgrade(answer.status())?;
    Ok(answer.map(Body::new))
}
