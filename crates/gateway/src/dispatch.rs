//! Every request: bounds, one normal form of its URL, then whoever answers for it.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use farebox_protocol::{Digest, header};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, Request, Response, Uri, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::app::{App, Mount};
use crate::body::{Bodies, declared_length};
use crate::problem::{Kind, Problem};
use crate::proxy::{Asked, free, pay};
use crate::routes::{Found, LiveRoute};
use crate::target::Target;
use crate::{cors, intake, own};

/// Headers of one request.
const HEADERS_MAX: usize = 100;
/// Their names and values together.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// Answers one request. Never fails: whatever goes wrong is an answer too.
pub(crate) async fn dispatch(app: Arc<App>, request: Request<Incoming>) -> Response<Body> {
    let mut response = match answer(&app, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    cors::open_up(response.headers_mut());
    response
}

async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    check_headers(&parts.headers)?;
    let target = read_target(&parts)?;
    let path = target.path();
    if cors::is_preflight(&parts.method, &parts.headers) && is_known(app, path) {
        return Ok(cors::preflight());
    }
    // What is rare is boxed: the future of every request has room for the others.
    if own::has_path(path) {
        return Box::pin(own::answer(app, &parts.method, path)).await;
    }
    if let Some(mount) = mount_of(app, path) {
        return Box::pin(beside(app, mount, parts, &target, body)).await;
    }
    let route = match app.routes.find(&parts.method, path) {
        Found::Route(route) => Arc::clone(route),
        Found::OtherMethods(methods) => {
            let detail = format!("This path has {methods} only.");
            return Err(Problem::new(Kind::MethodNotAllowed, detail).allow(&methods));
        }
        Found::Nothing => {
            return Err(Problem::new(Kind::NoSuchRoute, "There is nothing at this path."));
        }
    };
    if route.is_free() {
        return free::pass(app, &route, parts, target, body).await;
    }
    let format = route.config.format;
    let answer = priced(app, route, parts, target, body).await;
    answer.map_err(|problem| problem.told_to_clients_of(format))
}

async fn priced(
    app: &Arc<App>,
    route: Arc<LiveRoute>,
    parts: request::Parts,
    target: Target,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    intake::check(&*app.ledger)?;
    let body = if body.is_end_stream() {
        Bytes::new()
    } else {
        Box::pin(app.bodies.read(&app.limits, &parts.headers, body)).await?
    };
    let bytes = body.len();
    let read = move || {
        let digest = Digest::of(&body);
        Asked::read(route, parts.method, target, parts.headers, (body, digest)).map(Arc::new)
    };
    let asked = if Bodies::is_small(bytes) {
        read()?
    } else {
        Box::pin(app.bodies.work(bytes, read)).await??
    };
    pay::pay(app, &asked).await
}

/// Our own bounds, below those of the HTTP parser, so that the answer is ours.
fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()))
        .fold(0_usize, usize::saturating_add);
    if HEADERS_MAX < headers.len() || HEADER_BYTES_MAX < bytes {
        return Err(Problem::new(
            Kind::HeadersTooLarge,
            "A request may have 100 headers of together 32 KiB.",
        ));
    }
    let may_pay = [header::PAYMENT_SIGNATURE, header::X_PAYMENT, AUTHORIZATION.as_str()];
    let mut long = headers.iter().filter(|(_, value)| header::HEADER_BYTES_MAX < value.len());
    if long.any(|(name, _)| may_pay.contains(&name.as_str())) {
        return Err(Problem::new(
            Kind::HeadersTooLarge,
            "A payment header may have 8 KiB before its base64.",
        ));
    }
    Ok(())
}

/// The normal form of the target; the host is compared only where the target names one as well.
fn read_target(parts: &request::Parts) -> Result<Target, Problem> {
    let malformed = |detail| Err(Problem::new(Kind::MalformedRequest, detail));
    if parts.method == Method::CONNECT {
        return malformed("This is not a forward proxy: CONNECT is not served.");
    }
    if 1 < parts.headers.get_all(HOST).iter().count() {
        return malformed("More than one Host header.");
    }
    if parts.version < Version::HTTP_2 && names_another_host(&parts.uri, &parts.headers) {
        return malformed("The request target names another host than the Host header.");
    }
    let raw = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    Target::parse(raw).map_err(|error| {
        Problem::new(Kind::MalformedRequest, format!("Expected a plain URL: {error}."))
    })
}

fn names_another_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let host = headers.get(HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    !authority.as_str().eq_ignore_ascii_case(host)
}

fn is_known(app: &App, path: &str) -> bool {
    app.routes.has_path(path) || own::has_path(path) || mount_of(app, path).is_some()
}

fn mount_of<'a>(app: &'a App, path: &str) -> Option<&'a Mount> {
    app.mounts.iter().find(|mount| mount.paths.iter().any(|it| it.matches(path)))
}

/// Hands a request to a service beside the proxy, within the same bounds.
async fn beside(
    app: &App,
    mount: &Mount,
    mut parts: request::Parts,
    target: &Target,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    // It sees the spelling that was matched.
    if let Some(normal) = target.behind("/") {
        parts.uri = normal.into();
    }
    let body = app.bodies.read(&app.limits, &parts.headers, body).await?;
    let request = Request::from_parts(parts, Body::from(body));
    match mount.router.clone().oneshot(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// Whether a request says that it has more body than it may.
pub(crate) fn check_declared_length(max: usize, headers: &HeaderMap) -> Result<(), Problem> {
    match declared_length(headers) {
        Some(length) if max < length => Err(too_large(max)),
        Some(_) | None => Ok(()),
    }
}

/// A body over the limit.
pub(crate) fn too_large(max: usize) -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("A request body may have {max} bytes here."))
}
