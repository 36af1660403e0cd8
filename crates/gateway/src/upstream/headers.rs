//! Which headers cross the gateway, in both directions.
//!
//! Towards the upstream: nothing that speaks for the client's connection, credentials, payment or
//! origin (attack A18: an upstream that trusts `x-payment-verified` or `x-forwarded-for` must not
//! hear it from a client). Towards the client: nothing that speaks for the upstream's connection,
//! and no payment headers that are not ours.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
};

/// RFC 9110 §7.6.1 and what older proxies add to it.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a client says that is meant for us or would speak for somebody else at the upstream.
const FROM_CLIENT: [&str; 25] = [
    "accept-encoding",
    "access-control-expose-headers",
    "access-control-request-headers",
    "access-control-request-method",
    "anthropic-user-profile-id",
    "anthropic-workspace-id",
    "api-key",
    "authorization",
    "client-ip",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "idempotency-key",
    "openai-organization",
    "openai-project",
    "origin",
    "referer",
    "true-client-ip",
    "via",
    "x-api-key",
    "x-client-ip",
    "x-real-ip",
];

/// Families of the same, by how they begin.
const FROM_CLIENT_FAMILIES: [&str; 11] = [
    "cf-",
    "farebox-",
    "payment-",
    "sec-fetch-",
    "x-amz-",
    "x-envoy-",
    "x-farebox",
    "x-forwarded",
    "x-original-",
    "x-payment",
    "x402",
];

/// What an upstream says that is ours to say, or nobody's.
const FROM_UPSTREAM_FAMILIES: [&str; 7] = [
    "access-control-",
    "alt-svc",
    "farebox-",
    "idempotent-replayed",
    "payment-",
    "set-cookie",
    "x-payment",
];

/// Leaves in a client's headers what the upstream may read, and asks for a body as it is.
pub(crate) fn towards_upstream(headers: &mut HeaderMap) {
    remove(headers, |name| {
        FROM_CLIENT.binary_search(&name).is_ok()
            || FROM_CLIENT_FAMILIES.iter().any(|family| name.starts_with(family))
    });
    debug_assert!(!headers.contains_key(HOST) && !headers.contains_key(EXPECT));
    debug_assert!(!headers.contains_key(CONTENT_LENGTH));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Leaves in an upstream's headers what the client may read.
pub(crate) fn towards_client(headers: &mut HeaderMap) {
    remove(headers, |name| FROM_UPSTREAM_FAMILIES.iter().any(|family| name.starts_with(family)));
}

/// Removes what speaks for one connection, and what `goes` besides: in one pass, for most messages
/// have few headers and lose fewer.
fn remove(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let going: Vec<HeaderName> = headers
        .keys()
        .filter(|name| HOP_BY_HOP.binary_search(&name.as_str()).is_ok() || goes(name.as_str()))
        .cloned()
        .collect();
    for name in named.iter().chain(&going) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_tables_can_be_searched() {
        assert!(FROM_CLIENT.is_sorted() && HOP_BY_HOP.is_sorted());
    }

    #[test]
    fn a18_claims_and_credentials_stop_here() {
        let mut headers = map(&[
            ("accept", "*/*"),
            ("content-type", "application/json"),
            ("x-stainless-lang", "js"),
            ("authorization", "Bearer client"),
            ("cookie", "a=b"),
            ("x-api-key", "k"),
            ("anthropic-workspace-id", "w"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "interleaved-thinking-2025-05-14"),
            ("x-payment", "p"),
            ("x-payment-verified", "true"),
            ("payment-signature", "p"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "h"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x-farebox-charged", "0"),
            ("x402-verified", "1"),
            ("accept-encoding", "gzip"),
            ("origin", "https://a"),
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("host", "h"),
        ]);
        towards_upstream(&mut headers);
        assert_eq!(
            names(&headers),
            [
                "accept",
                "accept-encoding",
                "anthropic-beta",
                "anthropic-version",
                "content-type",
                "x-stainless-lang"
            ]
        );
        assert_eq!(headers["accept-encoding"], "identity");
    }

    #[test]
    fn an_upstream_cannot_speak_for_the_gateway() {
        let mut headers = map(&[
            ("content-type", "text/event-stream"),
            ("openai-processing-ms", "3"),
            ("payment-response", "x"),
            ("x-payment-response", "x"),
            ("farebox-receipt", "x"),
            ("idempotent-replayed", "true"),
            ("access-control-allow-origin", "https://a"),
            ("set-cookie", "a=b"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
        ]);
        towards_client(&mut headers);
        assert_eq!(names(&headers), ["content-type", "openai-processing-ms"]);
    }
}
