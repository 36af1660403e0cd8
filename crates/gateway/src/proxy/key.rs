//! What a client calls its request, so that asking again is not paying again.
//!
//! It may say so in two places, which are told apart: the header `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header) and the x402 extension `payment-identifier`. A name is
//! good within its payer alone, and only a digest of both is kept.

use farebox_protocol::wire::PaymentPayload;
use farebox_protocol::{Digest, DigestBuilder, Reason};
use farebox_store::RequestKey;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Asked;
use crate::problem::{Kind, Problem};

/// The header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest name in it.
const HEADER_CHARS_MAX: usize = 255;
/// The key of the extension.
pub(crate) const PAYMENT_IDENTIFIER: &str = "payment-identifier";
/// The lengths of a name in it (x402 extension `payment-identifier`, "`id` Format").
const ID_CHARS: std::ops::RangeInclusive<usize> = 16..=128;

/// Where a name stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Header,
    Extension,
}

impl Place {
    fn word(self) -> &'static str {
        match self {
            Self::Header => "Idempotency-Key",
            Self::Extension => PAYMENT_IDENTIFIER,
        }
    }
}

/// What a 402 says of it, as the official schema has it.
pub(crate) fn declared() -> Value {
    json!({
        "info": { "required": false },
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "required": { "type": "boolean" },
                "id": {
                    "type": "string",
                    "minLength": ID_CHARS.start(),
                    "maxLength": ID_CHARS.end(),
                    "pattern": "^[a-zA-Z0-9_-]+$",
                },
            },
            "required": ["required"],
        },
    })
}

/// The name in the header, if there is one.
pub(crate) fn in_headers(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad_header("one of it, not several"));
    }
    let name = unquoted(value).ok_or_else(|| bad_header("visible ASCII, or a quoted string"))?;
    if name.is_empty() || HEADER_CHARS_MAX < name.len() {
        return Err(bad_header("1 to 255 characters"));
    }
    Ok(Some(name))
}

/// The draft has a string of structured fields (RFC 8941 §3.3.3), in quotes; what is in use has none.
/// Both are the same name.
fn unquoted(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let Some(quoted) = text.strip_prefix('"') else {
        return text.bytes().all(|it| it.is_ascii_graphic()).then(|| text.to_owned());
    };
    let mut name = String::new();
    let mut rest = quoted.strip_suffix('"')?.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => name.push(rest.next().filter(|it| matches!(it, '"' | '\\'))?),
            '"' => return None,
            ' '..='~' => name.push(next),
            _ => return None,
        }
    }
    Some(name)
}

/// The name in the extension, if there is one: clients that know nothing of it echo what is declared.
fn in_payload(payload: &PaymentPayload) -> Result<Option<&str>, Problem> {
    let extension = payload.extensions.as_ref().and_then(|it| it.get(PAYMENT_IDENTIFIER));
    let Some(extension) = extension else { return Ok(None) };
    let info = extension.get("info").and_then(Value::as_object);
    let info = info.ok_or_else(|| bad_extension("an object `info`"))?;
    let Some(id) = info.get("id") else { return Ok(None) };
    let is_good = |it: &&str| {
        let known = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
        ID_CHARS.contains(&it.len()) && it.bytes().all(known)
    };
    let expected = "`info.id` of 16 to 128 letters, digits, hyphens and underscores";
    id.as_str().filter(is_good).map(Some).ok_or_else(|| bad_extension(expected))
}

/// What a request that is paid for is called.
pub(crate) fn request_keys(
    asked: &Asked,
    payload: &PaymentPayload,
    payer: &str,
) -> Result<Vec<RequestKey>, Problem> {
    let in_header = asked.key.as_deref().map(|it| (Place::Header, it));
    let in_payload = in_payload(payload)?.map(|it| (Place::Extension, it));
    let names: Vec<_> = in_header.into_iter().chain(in_payload).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let request = DigestBuilder::new("farebox request v1")
        .field(asked.method.as_str().as_bytes())
        .field(asked.target.as_str().as_bytes())
        .field(asked.digest.as_bytes())
        .finish();
    let key = |(place, name)| RequestKey { name: of_payer(place, payer, name), request };
    Ok(names.into_iter().map(key).collect())
}

fn of_payer(place: Place, payer: &str, name: &str) -> Digest {
    DigestBuilder::new("farebox request key v1")
        .field(place.word().as_bytes())
        .field(payer.as_bytes())
        .field(name.as_bytes())
        .finish()
}

fn bad_header(expected: &str) -> Problem {
    Problem::new(Kind::MalformedRequest, format!("Idempotency-Key: expected {expected}."))
}

fn bad_extension(expected: &str) -> Problem {
    let detail =
        format!("At `extensions.{PAYMENT_IDENTIFIER}` of the payment: expected {expected}.");
    Problem::new(Kind::MalformedPayment, detail).with_reason(Reason::InvalidPayload.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match (in_headers(&headers), expected) {
            (Ok(found), expected) => assert_eq!(found.as_deref(), expected, "{values:?}"),
            (Err(problem), None) => assert_eq!(problem.kind(), Kind::MalformedRequest),
            (Err(problem), Some(_)) => panic!("{values:?}: {problem:?}"),
        }
    }

    #[test]
    fn a_key_is_short_ascii_with_or_without_quotes() {
        check(&[], None);
        for (value, name) in [
            ("k", "k"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            ("\"two words\"", "two words"),
            ("\"a \\\"b\\\" \\\\\"", "a \"b\" \\"),
            ("~", "~"),
        ] {
            check(&[value], Some(name));
        }
        check(&[&"x".repeat(255)], Some(&"x".repeat(255)));
        for bad in ["", "two words", "\"", "\"\"", "\"a", "\"a\"b\"", "\"a\\b\"", "ключ", "\"é\""]
        {
            let mut headers = HeaderMap::new();
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert!(in_headers(&headers).is_err(), "{bad:?}");
        }
        assert!(
            in_headers(&HeaderMap::from_iter([(
                IDEMPOTENCY_KEY,
                HeaderValue::from_str(&"x".repeat(256)).unwrap()
            )]))
            .is_err()
        );
        let mut two = HeaderMap::new();
        two.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        two.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(in_headers(&two).is_err());
    }

    #[test]
    fn a_name_belongs_to_its_payer_and_its_place() {
        let one = of_payer(Place::Header, "0xA", "k");
        assert_eq!(one, of_payer(Place::Header, "0xA", "k"));
        for other in [
            of_payer(Place::Header, "0xB", "k"),
            of_payer(Place::Extension, "0xA", "k"),
            of_payer(Place::Header, "0xA", "l"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[track_caller]
    fn check_extension(extension: Value, expected: Result<Option<&str>, ()>) {
        let text = json!({
            "x402Version": 2,
            "payload": {},
            "accepted": {
                "scheme": "exact", "network": "eip155:1", "amount": "1", "asset": "a",
                "payTo": "b", "maxTimeoutSeconds": 60, "extra": {},
            },
            "extensions": { "payment-identifier": extension },
        });
        let payload: PaymentPayload = serde_json::from_value(text).unwrap();
        assert_eq!(in_payload(&payload).map_err(drop), expected, "{extension}");
    }

    #[test]
    fn an_identifier_is_of_the_specified_form() {
        check_extension(declared(), Ok(None));
        let info = |id: Value| json!({ "info": { "required": false, "id": id } });
        let longest = "a".repeat(128);
        for good in ["pay_7d5d747be160e280", "0123456789-_ABCDEF", &longest] {
            check_extension(info(good.into()), Ok(Some(good)));
        }
        for bad in ["short", "pay_7d5d747be160e28 ", "pay_7d5d747be160e280!", &"a".repeat(129)] {
            check_extension(info(bad.into()), Err(()));
        }
        for bad in [json!(7), json!(null), json!(["pay_7d5d747be160e280"])] {
            check_extension(info(bad), Err(()));
        }
        for bad in [json!(null), json!("pay_7d5d747be160e280"), json!({ "info": 1 })] {
            check_extension(bad, Err(()));
        }
    }
}
