//! An answer taken apart and put together again with another body.

use http::response::Parts;
use reqwest::{Body, Response, ResponseBuilderExt as _};
use url::Url;

/// Where the answer is from, its head and its body.
pub(crate) fn apart(response: Response) -> (Url, Parts, Body) {
    let url = response.url().clone();
    let (parts, body) = http::Response::<Body>::from(response).into_parts();
    (url, parts, body)
}

/// The reverse of [`apart`].
pub(crate) fn together(url: Url, parts: Parts, body: Body) -> Response {
    // Builds from good parts only, so it cannot fail; the parts then replace what it made.
    let built = http::Response::builder().url(url).body(body);
    let Ok(mut built) = built else { return Response::from(http::Response::new(Body::default())) };
    *built.status_mut() = parts.status;
    *built.version_mut() = parts.version;
    *built.headers_mut() = parts.headers;
    built.extensions_mut().extend(parts.extensions);
    Response::from(built)
}
