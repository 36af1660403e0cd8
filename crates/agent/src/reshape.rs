//! An answer taken apart and put together again with another body.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::response::Parts;
use http_body_util::BodyExt as _;
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

/// Reads a body of at most `bytes_max` to its end. The answer comes back as it was, for its reader to
/// read again; a body that is longer or breaks off does so for its reader too.
pub(crate) async fn read_ahead(response: Response, bytes_max: usize) -> (Response, Option<Bytes>) {
    let (url, parts, body) = apart(response);
    let mut rest = body.into_data_stream();
    let mut read = BytesMut::new();
    let last = loop {
        match rest.next().await {
            Some(Ok(data)) => read.extend_from_slice(&data),
            Some(Err(error)) => break Some(Err(error)),
            None => {
                let whole = read.freeze();
                return (together(url, parts, Body::from(whole.clone())), Some(whole));
            }
        }
        if bytes_max < read.len() {
            break None;
        }
    };
    let read = stream::iter([Ok(read.freeze())].into_iter().chain(last));
    (together(url, parts, Body::wrap_stream(read.chain(rest))), None)
}
