//! The payment headers: base64 of JSON, read within limits.
//!
//! Source: x402 v2 HTTP transport. The alphabet is the standard one; official clients refuse the
//! url-safe one, and so do we.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::Raw;

/// v2: the 402 answer's offers.
pub const PAYMENT_REQUIRED: &str = "payment-required";
/// v2: the client's signed payment.
pub const PAYMENT_SIGNATURE: &str = "payment-signature";
/// v2: what became of it.
pub const PAYMENT_RESPONSE: &str = "payment-response";
/// v1: the client's signed payment.
pub const X_PAYMENT: &str = "x-payment";
/// v1: what became of it.
pub const X_PAYMENT_RESPONSE: &str = "x-payment-response";

/// The longest payment header that is read, in encoded bytes (8 KiB decoded).
pub const HEADER_BYTES_MAX: usize = 8 * 1024 / 3 * 4 + 4;
/// How deep its JSON may nest.
pub const JSON_DEPTH_MAX: usize = 16;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a header's content was not understood.
#[derive(Debug, thiserror::Error)]
pub enum BadHeader {
    /// More than [`HEADER_BYTES_MAX`].
    #[error("the payment header is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Not standard base64.
    #[error("expected standard base64")]
    Base64(#[source] base64::DecodeError),
    /// Nested deeper than [`JSON_DEPTH_MAX`].
    #[error("the JSON nests deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// Not the JSON that the specification describes.
    #[error("not the JSON that x402 describes: {0}")]
    Json(#[source] serde_json::Error),
}

/// Reads a header value. Nothing is allocated for input over the limit.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<Raw<T>, BadHeader> {
    if HEADER_BYTES_MAX < value.len() {
        return Err(BadHeader::TooLong);
    }
    let json = BASE64.decode(value).map_err(BadHeader::Base64)?;
    if JSON_DEPTH_MAX < json_depth(&json) {
        return Err(BadHeader::TooDeep);
    }
    serde_json::from_slice(&json).map_err(BadHeader::Json)
}

/// Writes a header value: standard base64 with padding.
pub fn encode<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(encode_text(&serde_json::to_string(value)?))
}

/// Writes a header value of JSON that is already written.
pub fn encode_text(json: &str) -> String {
    BASE64.encode(json)
}

/// The deepest nesting of objects and arrays, brackets inside strings not counted.
fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        let outcome = match decode::<Value>(value.as_bytes()) {
            Ok(it) => it.text().to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(outcome.starts_with(expected), "{outcome}");
    }

    #[test]
    fn a16_headers_within_limits() {
        check("e30=", "{}");
        check("e30", "{}");
        check("eyI-PyI6MX0", "expected standard base64");
        check("e30=\0", "expected standard base64");
        check("", "not the JSON");
        check(&"A".repeat(HEADER_BYTES_MAX + 1), "the payment header is longer");
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(&BASE64.encode(nested(16)), "[[[[");
        check(&BASE64.encode(nested(17)), "the JSON nests deeper");
        check(&BASE64.encode(br#"{"a":"[[[[[[[[[[[[[[[[[[[[\"[["}"#), "{\"a\"");
    }
}
