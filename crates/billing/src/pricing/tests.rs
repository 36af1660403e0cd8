//! The promises of prices, against exact arithmetic written another way.

use proptest::prelude::*;

use super::*;
use crate::facts::UsageBounds;

fn usd(text: &str) -> UsdPrice {
    text.parse().unwrap()
}

fn tokens(input: &str, output: &str) -> Price {
    Price::Tokens { input_per_1m: usd(input), output_per_1m: usd(output) }
}

fn facts(input_tokens: u64, output_tokens: u64) -> RequestFacts {
    let output_tokens_per_choice = output_tokens;
    let bounds = UsageBounds { input_tokens, output_tokens, output_tokens_per_choice };
    RequestFacts { bounds: Some(bounds), ..RequestFacts::default() }
}

#[track_caller]
fn check(price: &Price, (input, output): (u64, u64), decimals: u8, expected: u128) {
    let charged = charge(price, &Usage::reported(input, output), decimals);
    assert_eq!(charged.units(), expected, "{price}, {input} in, {output} out");
}

#[test]
fn charges() {
    let gpt = tokens("0.15", "0.60");
    check(&gpt, (0, 0), 6, 0);
    check(&gpt, (1, 0), 6, 1);
    check(&gpt, (1_000_000, 1_000_000), 6, 750_000);
    // 0.15 × 3 + 0.60 × 1 = 1.05 units: rounded once, to 2, not to 1 + 1 per kind of 0.45 and 0.60.
    check(&gpt, (3, 1), 6, 2);
    // 0.2 + 0.2 units round to 1 together; each by itself would make 2.
    check(&tokens("0.2", "0.2"), (1, 1), 6, 1);
    check(&gpt, (3, 1), 18, 1_050_000_000_000);
    check(&gpt, (3, 1), 0, 1);
    check(&Price::PerRequest(usd("0.01")), (9, 9), 6, 10_000);
    check(&Price::PerRequest(usd("0.0000001")), (0, 0), 6, 1);
    check(&Price::Free, (9, 9), 6, 0);
}

#[test]
fn what_cannot_be_written_is_refused_before_it_is_charged() {
    let dear = tokens("999999999999", "0");
    assert_eq!(quote(&dear, &facts(u64::MAX, 0), 18), Err(NoPrice::OutOfRange));
    check(&dear, (u64::MAX, 0), 18, u128::MAX);
    assert_eq!(dear.check(18), Ok(()));
    assert_eq!(dear.check(40), Err(BadPrice::OutOfRange));
    assert_eq!(Price::PerRequest(usd("1")).check(39), Err(BadPrice::OutOfRange));
}

#[test]
fn nothing_is_free_by_accident() {
    for zero in [tokens("0", "0.000"), Price::PerRequest(UsdPrice::ZERO)] {
        assert_eq!(zero.check(6), Err(BadPrice::Zero));
        assert_eq!(quote(&zero, &facts(1, 1), 6), Err(NoPrice::Zero));
    }
    assert_eq!(tokens("0", "1").check(6), Ok(()));
    assert_eq!(quote(&tokens("0", "1"), &facts(5, 0), 6), Ok(Amount::from_units(1)));
    let unmetered = RequestFacts::default();
    assert_eq!(quote(&tokens("1", "1"), &unmetered, 6), Err(NoPrice::Unmetered));
    assert_eq!(quote(&Price::Free, &unmetered, 6), Ok(Amount::ZERO));
    assert_eq!(Price::Free.check(6), Ok(()));
    assert!(tokens("0", "1").needs_meter() && !Price::Free.needs_meter());
}

/// Schoolbook arithmetic on decimal digits, least first: it shares nothing with the code above.
#[expect(clippy::arithmetic_side_effects, reason = "digits and their carry fit in a byte")]
mod digits {
    pub(super) fn of(text: &str) -> Vec<u8> {
        text.bytes().rev().map(|it| it - b'0').collect()
    }

    pub(super) fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut sum = Vec::new();
        let mut carry = 0;
        for place in 0..=a.len().max(b.len()) {
            let digit = |it: &[u8]| it.get(place).copied().unwrap_or(0);
            let all = digit(a) + digit(b) + carry;
            sum.push(all % 10);
            carry = all / 10;
        }
        sum
    }

    pub(super) fn multiply(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut sum = Vec::new();
        for (place, digit) in b.iter().enumerate() {
            let mut shifted = vec![0; place];
            shifted.extend_from_slice(a);
            for _ in 0..*digit {
                sum = add(&sum, &shifted);
            }
        }
        sum
    }

    pub(super) fn up_from(number: &[u8], places: usize) -> String {
        let split = places.min(number.len());
        let (dropped, kept) = number.split_at(split);
        let up = u8::from(dropped.iter().any(|it| *it != 0));
        let sum = add(kept, &[up]);
        let text: String = sum.iter().rev().map(|it| char::from(b'0' + it)).collect();
        let text = text.trim_start_matches('0');
        if text.is_empty() { "0".to_owned() } else { text.to_owned() }
    }
}

/// A price text with its digits scaled to 18 places after the point.
fn price() -> impl Strategy<Value = (String, Vec<u8>)> {
    (0_u32..100_000, 0_usize..=18, any::<u64>()).prop_map(|(whole, places, fraction)| {
        let fraction: String = format!("{fraction:020}").chars().rev().take(places).collect();
        let text = if places == 0 { whole.to_string() } else { format!("{whole}.{fraction}") };
        (text, digits::of(&format!("{whole}{fraction:0<18}")))
    })
}

proptest! {
    #[test]
    fn per_1m_is_exact(
        (input, input_digits) in price(),
        (output, output_digits) in price(),
        input_tokens in 0_u64..100_000_000,
        output_tokens in 0_u64..100_000_000,
        decimals in 0_u8..=18,
    ) {
        let part = |price: &[u8], count: u64| digits::multiply(price, &digits::of(&count.to_string()));
        let sum = digits::add(&part(&input_digits, input_tokens), &part(&output_digits, output_tokens));
        // The sum has 18 + 6 places below one dollar; `decimals` of them are units.
        let expected = digits::up_from(&sum, 24_usize.saturating_sub(decimals.into()));
        let charged = charge(&tokens(&input, &output), &Usage::reported(input_tokens, output_tokens), decimals);
        prop_assert_eq!(charged.to_string(), expected);
    }

    #[test]
    fn a_charge_is_within_its_quote_and_grows_with_usage(
        (input, _) in price(),
        (output, _) in price(),
        most in (0_u64..10_000_000, 0_u64..10_000_000),
        used in (0_u64..10_000_000, 0_u64..10_000_000),
        decimals in 0_u8..=18,
    ) {
        let price = tokens(&input, &output);
        prop_assume!(price.check(decimals).is_ok());
        let quoted = quote(&price, &facts(most.0, most.1), decimals).unwrap();
        prop_assert!(!quoted.is_zero());
        let within = Usage::reported(used.0.min(most.0), used.1.min(most.1));
        prop_assert!(charge(&price, &within, decimals) <= quoted);
        let more = Usage::reported(used.0.saturating_add(most.0), used.1.saturating_add(most.1));
        prop_assert!(charge(&price, &Usage::reported(used.0, used.1), decimals) <= charge(&price, &more, decimals));
    }

    #[test]
    fn a_flat_charge_is_its_quote((text, digits) in price(), decimals in 0_u8..=18) {
        let price = Price::PerRequest(usd(&text));
        prop_assume!(price.check(decimals).is_ok());
        let charged = charge(&price, &Usage::default(), decimals);
        prop_assert_eq!(Ok(charged), quote(&price, &RequestFacts::default(), decimals));
        prop_assert_eq!(charged.to_string(), digits::up_from(&digits, 18_usize.saturating_sub(decimals.into())));
    }

    #[test]
    fn a_price_reads_back_from_its_own_text((text, _) in price()) {
        let price = usd(&text);
        prop_assert_eq!(usd(&price.to_string()), price);
    }

    #[test]
    fn any_text_is_a_price_or_an_error(text in ".{0,40}") {
        if let Ok(price) = text.parse::<UsdPrice>() {
            prop_assert_eq!(price.to_string().parse(), Ok(price));
        }
    }
}
