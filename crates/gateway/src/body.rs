//! Reading bodies within bounds of size and patience.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::config::Limits;
use crate::dispatch::{check_declared_length, too_large};
use crate::problem::{Kind, Problem};

/// Why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum Unread<E> {
    /// More bytes than allowed.
    TooLarge,
    /// No frame for too long.
    Silent,
    /// It broke.
    Broken(E),
}

/// Reads a client's body.
pub(crate) async fn read_body(
    limits: &Limits,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Bytes, Problem> {
    let max = limits.request_bytes_max;
    check_declared_length(max, headers)?;
    collect(body, max, limits.header_timeout).await.map_err(|unread| match unread {
        Unread::TooLarge => too_large(max),
        Unread::Silent => Problem::new(Kind::RequestTimeout, "The request body did not arrive."),
        Unread::Broken(error) => {
            Problem::new(Kind::MalformedRequest, "The request body broke off.").caused_by(error)
        }
    })
}

/// Reads a body of at most `max` bytes with silences of at most `patience`. A body of one frame is
/// not copied; trailers are dropped.
pub(crate) async fn collect<B>(
    mut body: B,
    max: usize,
    patience: Duration,
) -> Result<Bytes, Unread<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let next = tokio::time::timeout(patience, body.frame()).await;
        let Some(frame) = next.map_err(|_| Unread::Silent)? else { break };
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        let length = first.len().saturating_add(all.len()).saturating_add(data.len());
        if max < length {
            return Err(Unread::TooLarge);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// What `Content-Length` says, where it says something.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
