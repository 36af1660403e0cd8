//! `price = …`: nothing on purpose, so much a request, or so much a token.

use std::ops::Range;

use farebox_billing::{BadPrice, Format, Price, UsdPrice};
use farebox_gateway::OfferTemplate;

use super::super::problem::{Problem, Problems};
use super::super::section::Value;
use super::super::values;

const EXPECTED: &str = "`\"free\"`, `{ per_request = \"0.01\" }` or \
                        `{ input_per_1m = \"0.15\", output_per_1m = \"0.60\" }`";

/// Reads it.
pub(super) fn read(value: &Value<'_>, problems: &mut Problems) -> Option<Price> {
    if let Some(word) = value.as_text() {
        if word == "free" {
            return Some(Price::Free);
        }
        problems.push(value.wrong(EXPECTED));
        return None;
    }
    let mut section = problems.keep(value.section("`price`", EXPECTED))?;
    let per_request = section.get("per_request");
    let input = section.get("input_per_1m");
    let output = section.get("output_per_1m");
    section.close(problems);
    // Each is read, whatever is wrong with the others.
    let mut usd = |it: &Option<Value<'_>>| -> Option<UsdPrice> {
        it.as_ref().and_then(|it| problems.keep(values::usd(it)))
    };
    let (flat, of_input, of_output) = (usd(&per_request), usd(&input), usd(&output));
    match (&per_request, &input, &output) {
        (Some(_), None, None) => Some(Price::PerRequest(flat?)),
        (None, Some(_), Some(_)) => {
            Some(Price::Tokens { input_per_1m: of_input?, output_per_1m: of_output? })
        }
        (None, Some(_), None) => {
            problems.push(one_sided(value, "output_per_1m"));
            None
        }
        (None, None, Some(_)) => {
            problems.push(one_sided(value, "input_per_1m"));
            None
        }
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            problems.push(value.wrong(format!("one kind of price: {EXPECTED}")));
            None
        }
        (None, None, None) => {
            problems.push(value.wrong(EXPECTED));
            None
        }
    }
}

fn one_sided(value: &Value<'_>, missing: &str) -> Problem {
    Problem::error(value.span(), format!("`{missing}` is missing in `price`"))
        .label("expected both prices")
        .help(format!("if these tokens shall cost nothing, write `{missing} = \"0\"`"))
}

/// A price by tokens needs somebody who can count them; `fitting` is who could on this route.
pub(super) fn check(
    value: &Value<'_>,
    price: Price,
    (format, format_span): (Format, Option<Range<usize>>),
    fitting: Format,
) -> Option<Problem> {
    if format.is_metered() || !price.needs_meter() {
        return None;
    }
    let problem = Problem::error(value.span(), "a price by tokens needs a format that counts them")
        .label("nothing meters this route")
        .help(format!("add `format = \"{fitting}\"`, or charge `{{ per_request = \"…\" }}`"));
    Some(match format_span {
        Some(span) => problem.related(span, "this format has no tokens"),
        None => problem,
    })
}

/// A flat price above what one payer may have open could never be paid.
pub(super) fn check_exposure(
    value: &Value<'_>,
    price: Price,
    offers: &[OfferTemplate],
) -> Option<Problem> {
    let Price::PerRequest(usd) = price else { return None };
    let too_small = |offer: &&OfferTemplate| {
        let units = usd.rate(offer.token.decimals, 0).ok().map(|it| it.units().div_ceil(it.per()));
        offer.exposure_limit.zip(units).is_some_and(|(limit, units)| limit.units() < units)
    };
    let offer = offers.iter().find(too_small)?;
    Some(
        Problem::error(value.span(), "nobody may ever owe this much")
            .label(format!("above `exposure_limit` of {}", offer.network))
            .help("raise the limit, or lower the price"),
    )
}

/// The price must be writable in the token of every offer, and above zero.
pub(super) fn check_in_tokens(
    value: &Value<'_>,
    price: Price,
    offers: &[OfferTemplate],
) -> Option<Problem> {
    // Without an offer the zero price is still to be told, whatever the token.
    let decimals = offers.iter().map(|it| it.token.decimals).chain(std::iter::once(6));
    let error = decimals.map(|it| price.check(it)).find_map(Result::err)?;
    Some(match error {
        BadPrice::Zero => Problem::error(value.span(), "this price is zero")
            .label("expected a price above zero")
            .help("if the route shall cost nothing, write `price = \"free\"`"),
        BadPrice::OutOfRange => value.wrong("a price that the token can express"),
    })
}
