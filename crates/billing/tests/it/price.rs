//! From a request to its charge, with nothing in between but this crate.

use bytes::Bytes;
use farebox_billing::{Ceiling, Format, Price, RequestFacts, charge, meter_answer, quote};
use farebox_protocol::Amount;
use proptest::prelude::*;
use serde_json::{Value, json};

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

/// The same purchase in each format: a prompt, a limit, what was answered and what was told.
fn purchase(
    format: Format,
    (prompt, answer): (&str, &str),
    limit: u64,
    told: Option<(u64, u64)>,
) -> (Value, Value) {
    let choice = json!([{"message": {"content": answer}, "text": answer}]);
    let message = json!([{"role": "user", "content": prompt}]);
    let usage =
        told.map(|(input, output)| json!({"prompt_tokens": input, "completion_tokens": output}));
    let names = told.map(|(input, output)| json!({"input_tokens": input, "output_tokens": output}));
    match format {
        Format::OpenAiChat => (
            json!({"messages": message, "max_tokens": limit}),
            json!({"choices": choice, "usage": usage}),
        ),
        Format::OpenAiCompletions => (
            json!({"prompt": prompt, "max_tokens": limit}),
            json!({"choices": choice, "usage": usage}),
        ),
        Format::OpenAiEmbeddings => {
            (json!({"input": prompt}), json!({"data": [answer], "usage": usage}))
        }
        Format::OpenAiResponses => (
            json!({"input": prompt, "max_output_tokens": limit}),
            json!({"output": [{"content": answer}], "usage": names}),
        ),
        Format::AnthropicMessages => (
            json!({"messages": message, "max_tokens": limit}),
            json!({"content": [{"type": "text", "text": answer}], "usage": names}),
        ),
        Format::Opaque => (json!({}), json!({})),
    }
}

proptest! {
    /// An upstream that tells no usage, or keeps to its limits, is never charged above the quote.
    #[test]
    fn a_charge_stays_within_the_quote(
        format in prop::sample::select(vec![
            Format::OpenAiChat,
            Format::OpenAiCompletions,
            Format::OpenAiEmbeddings,
            Format::OpenAiResponses,
            Format::AnthropicMessages,
        ]),
        prompt in ".{0,200}",
        answer in ".{0,2000}",
        limit in 1_u64..500,
        told in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let told = told.map(|(input, output)| {
            let bytes = prompt.len().saturating_add(1);
            let most = usize::try_from(limit).unwrap().saturating_add(1);
            let (input, output) = (input.index(bytes), output.index(most));
            (u64::try_from(input).unwrap(), u64::try_from(output).unwrap())
        });
        let (body, answer) = purchase(format, (&prompt, &answer), limit, told);
        let facts =
            RequestFacts::read(format, body.to_string().as_bytes(), &Ceiling::default()).unwrap();
        let quoted = quote(&price(), &facts, USDC_DECIMALS).unwrap();
        let metered = meter_answer(format, &facts, answer.to_string().as_bytes());
        let usage = metered.usage.unwrap();
        prop_assert!(charge(&price(), &usage, USDC_DECIMALS) <= quoted);
        if let Some((input, output)) = told {
            let output = if format == Format::OpenAiEmbeddings { 0 } else { output };
            prop_assert_eq!((usage.input_tokens, usage.output_tokens), (input, output));
        }
    }
}
