//! Where the receipt of a payment is: at the address that the seller names, if that is its own, else
//! where a Farebox gateway that is not mounted under a path has it.
//!
//! An address at any other origin is not asked for anything and not shown (attack A24).

use http::header::CONTENT_TYPE;
use reqwest::Response;
use serde::Deserialize;
use url::Url;

use crate::payment::Signed;
use crate::reshape::read_ahead;

/// The header in which a Farebox gateway says where the receipt is.
const FAREBOX_RECEIPT: &str = "farebox-receipt";
/// The longest problem that is read for its receipt.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// The member of a problem (RFC 9457) in which it says the same.
#[derive(Deserialize)]
struct Problem {
    receipt: String,
}

/// What the answer says, else [`derived`]. A problem is read to its end for that and comes back as
/// it was.
pub(super) async fn of_answer(
    asked: &Url,
    response: Response,
    signed: &Signed,
) -> (Response, Option<Url>) {
    let header = response.headers().get(FAREBOX_RECEIPT).and_then(|it| it.to_str().ok());
    if let Some(named) = header.and_then(|it| own(asked, it)) {
        return (response, Some(named));
    }
    let (response, member) = of_problem(response).await;
    let named = member.and_then(|it| own(asked, &it));
    (response, named.or_else(|| derived(asked, signed)))
}

/// Where a Farebox gateway shows the receipt.
pub(super) fn derived(asked: &Url, signed: &Signed) -> Option<Url> {
    let path = format!("/v1/receipts/{}", signed.terms.id);
    if signed.quoted { asked.join(&path).ok() } else { None }
}

/// An address at the origin that was asked.
fn own(asked: &Url, named: &str) -> Option<Url> {
    let named = asked.join(named).ok()?;
    let anonymous = named.username().is_empty() && named.password().is_none();
    (anonymous && named.origin() == asked.origin()).then_some(named)
}

async fn of_problem(response: Response) -> (Response, Option<String>) {
    let media = response.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media = media.and_then(|it| it.split(';').next()).unwrap_or("").trim();
    if response.status().is_success() || !media.eq_ignore_ascii_case("application/problem+json") {
        return (response, None);
    }
    let (response, body) = read_ahead(response, PROBLEM_BYTES_MAX).await;
    let problem = body.and_then(|it| serde_json::from_slice::<Problem>(&it).ok());
    (response, problem.map(|it| it.receipt))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};
    use reqwest::Body;

    use super::*;

    #[tokio::test]
    async fn a_problem_that_breaks_off_is_broken_for_its_reader_too() {
        let cut = std::io::Error::other("cut off");
        let body = Empty::<Bytes>::new().map_err(|never| match never {});
        let body = Body::wrap(body.with_trailers(std::future::ready(Some(Err(cut)))));
        let response = http::Response::builder().status(409);
        let response = response.header(CONTENT_TYPE, "application/problem+json").body(body);
        let (response, receipt) = of_problem(Response::from(response.unwrap())).await;
        assert_eq!((response.status().as_u16(), receipt), (409, None));
        assert!(format!("{:?}", response.text().await.unwrap_err()).contains("cut off"));
    }

    #[test]
    fn a24_only_the_sellers_own_addresses_are_taken() {
        let asked: Url = "https://seller.example/mount/v1/chat?x=1".parse().unwrap();
        let check = |named: &str, expected: Option<&str>| {
            assert_eq!(own(&asked, named).as_ref().map(Url::as_str), expected, "{named}");
        };
        let here = "https://seller.example/mount/v1/receipts/r";
        check(here, Some(here));
        check("https://SELLER.example:443/mount/v1/receipts/r", Some(here));
        check("/mount/v1/receipts/r", Some(here));
        check("receipts/r", Some(here));
        for elsewhere in [
            "https://other.example/v1/receipts/r",
            "//other.example/v1/receipts/r",
            "\\\\other.example/r",
            "http://seller.example/v1/receipts/r",
            "https://seller.example:8443/v1/receipts/r",
            "https://user:word@seller.example/v1/receipts/r",
            "https://seller.example@169.254.169.254/latest",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://",
        ] {
            check(elsewhere, None);
        }
    }
}
