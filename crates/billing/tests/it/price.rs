//! From a request to its charge, with nothing in between but this crate.

use bytes::Bytes;
use farebox_billing::{Ceiling, Format, Price, RequestFacts, charge, meter_answer, quote};
use farebox_protocol::Amount;
use proptest::prelude::*;
use serde_json::json;

const USDC_DECIMALS: u8 = 6;

fn price() -> Price {
    Price::Tokens { input_per_1m: "0.15".parse().unwrap(), output_per_1m: "0.60".parse().unwrap() }
}

#[test]
fn a_request_is_quoted_enforced_and_charged() {
    let format = Format::OpenAiChat;
    let ceiling = Ceiling { max_output_tokens: 1_000, ..Ceiling::default() };
    let body = Bytes::from_static(br#"{"messages":[{"role":"user","content":"0123456789"}]}"#);
    let facts = RequestFacts::read(format, &body, &ceiling).unwrap();
    // 10 + 4 bytes and 128 + 16 tokens of template in; 1000 out: 0.15 × 158 + 0.6 × 1000 = 623.7
    assert_eq!(quote(&price(), &facts, USDC_DECIMALS), Ok(Amount::from_units(624)));
    let forwarded = facts.enforce(format, &body, &ceiling).unwrap();
    assert!(forwarded.ends_with(br#","max_tokens":1000}"#));
    let answer = br#"{"choices":[{"message":{"content":"x"}}],
                      "usage":{"prompt_tokens":11,"completion_tokens":400}}"#;
    let metered = meter_answer(format, &facts, answer);
    // 0.15 × 11 + 0.6 × 400 = 241.65
    let charged = charge(&price(), &metered.usage.unwrap(), USDC_DECIMALS);
    assert_eq!(charged, Amount::from_units(242));
}

proptest! {
    /// An upstream that tells no usage, or keeps to its limits, is never charged above the quote.
    #[test]
    fn a_charge_stays_within_the_quote(
        prompt in ".{0,200}",
        answer in ".{0,2000}",
        max_tokens in 1_u64..500,
        told in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let format = Format::OpenAiChat;
        let body = json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens});
        let facts =
            RequestFacts::read(format, body.to_string().as_bytes(), &Ceiling::default()).unwrap();
        let quoted = quote(&price(), &facts, USDC_DECIMALS).unwrap();
        let bytes = prompt.len().saturating_add(1);
        let limit = usize::try_from(max_tokens).unwrap().saturating_add(1);
        let usage = told.map(|(input, output)| {
            json!({"prompt_tokens": input.index(bytes), "completion_tokens": output.index(limit)})
        });
        let answer = json!({"choices": [{"message": {"content": answer}}], "usage": usage});
        let metered = meter_answer(format, &facts, answer.to_string().as_bytes());
        prop_assert!(charge(&price(), &metered.usage.unwrap(), USDC_DECIMALS) <= quoted);
    }
}
