//! What a request is priced by, and that the upstream is held to it.

mod allowed;
mod completions;
mod embeddings;
mod logprobs;
mod messages;
mod responses;

use super::*;

const CHAT: Format = Format::OpenAiChat;

fn read(body: &str) -> Result<RequestFacts, BadBody> {
    RequestFacts::read(CHAT, body.as_bytes(), &Ceiling::default())
}

/// Body → the one field of the facts that the case is about.
#[track_caller]
fn check<T: PartialEq + std::fmt::Debug>(body: &str, fact: fn(&RequestFacts) -> T, expected: T) {
    assert_eq!(fact(&read(body).unwrap()), expected, "{body}");
}

fn with(member: &str) -> String {
    format!(r#"{{"messages":[],{member}}}"#)
}

#[test]
fn limits_are_read_and_capped() {
    let per_choice = |it: &RequestFacts| it.bounds.unwrap().output_tokens_per_choice;
    let all = |it: &RequestFacts| it.bounds.unwrap().output_tokens;
    check(&with(r#""seed":1"#), per_choice, 4096);
    check(&with(r#""max_tokens":null"#), per_choice, 4096);
    check(&with(r#""max_tokens":10"#), per_choice, 10);
    check(&with(r#""max_tokens":5000"#), per_choice, 4096);
    check(&with(r#""max_completion_tokens":10"#), per_choice, 10);
    check(&with(r#""max_tokens":10,"max_completion_tokens":9"#), per_choice, 9);
    check(&with(r#""max_tokens":10,"n":8"#), all, 80);
    check(&with(r#""n":null"#), all, 4096);
}

#[test]
fn model_and_stream_are_read() {
    check(&with(r#""model":"m""#), |it| it.model.clone(), Some("m".to_owned()));
    check(&with(r#""seed":1"#), |it| it.model.clone(), None);
    check(&with(r#""stream":true"#), |it| it.answer, AnswerKind::Stream);
    check(&with(r#""stream":false"#), |it| it.answer, AnswerKind::Whole);
    let event = |it: &RequestFacts| it.usage_event;
    check(&with(r#""stream":true"#), event, UsageEvent::Hidden);
    check(&with(r#""stream_options":{"include_usage":true}"#), event, UsageEvent::Shown);
    check(&with(r#""stream_options":{"include_usage":false}"#), event, UsageEvent::Hidden);
    check(&with(r#""stream_options":{}"#), event, UsageEvent::Hidden);
}

#[test]
fn every_byte_that_becomes_prompt_counts() {
    let bytes = |it: &RequestFacts| it.prompt_bytes;
    check(r#"{"messages":[]}"#, bytes, 0);
    check(r#"{"messages":[{"role":"user","content":"abcd"}]}"#, bytes, 8);
    check(r#"{"messages":[{"content":"\u00e9"}]}"#, bytes, 2);
    check(r#"{"messages":[{"content":null,"name":"bob"}]}"#, bytes, 3);
    let parts = r#"{"messages":[{"content":[{"type":"text","text":"abc"}]}]}"#;
    check(parts, bytes, 7);
    let tools = r#"[{"type":"function","function":{"name":"f"}}]"#;
    let length = u64::try_from(tools.len()).unwrap();
    let facts = read(&with(&format!(r#""tools":{tools}"#))).unwrap();
    assert_eq!(facts.prompt_bytes, length);
    assert!(length + 512 <= facts.bounds.unwrap().input_tokens);
    let calls = r#"{"messages":[{"tool_calls":[{"function":{"arguments":"{}"}}]}]}"#;
    check(calls, |it| 30 < it.prompt_bytes, true);
}

#[test]
fn wrong_types_are_told_with_their_place() {
    let cases = [
        ("[]", "", "an object", "another value"),
        ("{}", "/messages", "an array of messages", "nothing"),
        (r#"{"messages":{}}"#, "/messages", "an array of messages", "an object"),
        (r#"{"messages":[1]}"#, "/messages/0", "a message object", "a number"),
        (
            r#"{"messages":[{"content":7}]}"#,
            "/messages/0/content",
            "a string or an array of parts",
            "a number",
        ),
        (
            r#"{"messages":[{"content":["a"]}]}"#,
            "/messages/0/content/0",
            "a part object",
            "a string",
        ),
        (&with(r#""stream":"true""#), "/stream", "true or false", "a string"),
        (&with(r#""stream":1"#), "/stream", "true or false", "a number"),
        (&with(r#""stream_options":[]"#), "/stream_options", "an object", "an array"),
        (
            &with(r#""stream_options":{"include_usage":1}"#),
            "/stream_options/include_usage",
            "true or false",
            "a number",
        ),
        (&with(r#""model":7"#), "/model", "a string", "a number"),
        (&with(r#""n":9"#), "/n", "at most 8 choices", "9"),
        (&with(r#""tools":{}"#), "/tools", "an array of tools", "an object"),
        (&with(r#""min_tokens":4097"#), "/min_tokens", "at most 4096 tokens", "4097"),
        (&with(r#""min_tokens":11,"max_tokens":10"#), "/min_tokens", "at most 10 tokens", "11"),
        (&with(r#""min_tokens":"1""#), "/min_tokens", "a whole number of at least 0", "a string"),
    ];
    for (body, pointer, expected, found) in cases {
        let error = read(body).unwrap_err();
        assert_eq!((error.pointer(), error.expected(), error.found()), (pointer, expected, found));
    }
    for bad in ["0", "-1", "1.0", "1e3", "\"9\"", "true", "[1]", "18446744073709551616"] {
        for name in ["max_tokens", "max_completion_tokens", "n"] {
            let error = read(&with(&format!("\"{name}\":{bad}"))).unwrap_err();
            assert_eq!(error.pointer(), format!("/{name}"), "{bad}");
            assert_eq!(error.expected(), "a whole number of at least 1", "{bad}");
        }
    }
}

/// Each is far under the size that a gateway takes, and would be dear to keep in memory.
#[test]
fn a32_a_body_of_very_many_values_is_refused_by_their_number() {
    let million = |it: &str| vec![it; 1_000_000].join(",");
    let values = "at most 250000 values in all";
    let names = |count: usize| {
        let names: Vec<_> = (0..count).map(|it| format!("\"{it}\":1")).collect();
        format!(r#""metadata":{{{}}}"#, names.join(","))
    };
    let cases = [
        (format!(r#"{{"messages":[{}]}}"#, million("{}")), "/messages/249998", values),
        (with(&format!(r#""metadata":[{}]"#, million("0"))), "/metadata/249997", values),
        (with(&format!(r#""tools":[{}]"#, million("{}"))), "/tools/249997", values),
        (
            format!(r#"{{"messages":[{}]}}"#, vec!["{}"; 10_001].join(",")),
            "/messages",
            "at most 10000 messages",
        ),
        (with(&names(10_001)), "/metadata", "at most 10000 names in one object"),
        (
            with(&format!(r#""metadata":[{{}},{{{}}}]"#, names(10_001))),
            "/metadata/1/metadata",
            "at most 10000 names in one object",
        ),
    ];
    for (body, pointer, expected) in cases {
        let error = read(&body).unwrap_err();
        assert_eq!((error.pointer(), error.expected()), (pointer, expected));
        assert_eq!(error.found(), "more");
    }
    let most = format!(r#"{{"messages":[{}]}}"#, vec![r#"{"content":"a"}"#; 10_000].join(","));
    check(&most, |it| it.prompt_bytes, 10_000);
    assert!(read(&with(&names(10_000))).is_ok());
}

#[test]
fn a_number_counts_as_long_as_a_template_may_write_it() {
    let bytes = |it: &RequestFacts| it.prompt_bytes;
    check(r#"{"messages":[{"x":12}]}"#, bytes, 2);
    check(r#"{"messages":[{"x":1e15}]}"#, |it| 18 <= it.prompt_bytes, true);
    check(r#"{"messages":[{"x":[1E-5,2]}]}"#, |it| 18 <= it.prompt_bytes, true);
    check(&with(r#""metadata":[1e15]"#), |it| 18 <= it.prompt_bytes, true);
}

#[test]
fn what_is_not_json_is_refused() {
    let deep = format!(r#"{{"messages":[{{"content":{}1{}}}]}}"#, "[".repeat(200), "]".repeat(200));
    for bad in ["", "{", "{}{}", "{\"a\":NaN}", "{\"a\":1,}", "\u{feff}{}", "{'a':1}", &deep] {
        assert!(matches!(read(bad), Err(BadBody::NotJson(_))), "{bad:.40}");
    }
    assert!(RequestFacts::read(CHAT, b"{\"\xff\":1}", &Ceiling::default()).is_err());
}

#[test]
fn a_name_twice_is_refused_at_every_depth() {
    let cases = [
        (r#"{"messages":[],"max_tokens":1,"max_tokens":9}"#, "/max_tokens"),
        (r#"{"messages":[],"max_tokens":1,"max\u005ftokens":9}"#, "/max_tokens"),
        (r#"{"messages":[],"messages":[]}"#, "/messages"),
        (
            r#"{"messages":[{"content":[{"type":"text","type":"image_url"}]}]}"#,
            "/messages/0/content/0/type",
        ),
        (r#"{"messages":[],"x":{"a/b":{"c~":1,"c~":1}}}"#, "/x/a~1b/c~0"),
    ];
    for (body, pointer) in cases {
        let error = read(body).unwrap_err();
        assert!(matches!(error, BadBody::Ambiguous { .. }), "{error}");
        assert_eq!(error.pointer(), pointer);
    }
    let many: Vec<_> = (0..40).map(|it| format!("\"k{it}\":1")).collect();
    let allowed =
        Ceiling { pass_fields: (0..40).map(|it| format!("k{it}")).collect(), ..Ceiling::default() };
    let body = with(&many.join(","));
    assert!(RequestFacts::read(CHAT, body.as_bytes(), &allowed).is_ok());
    let doubled = format!("{},\"k39\":1", many.join(","));
    assert_eq!(read(&with(&doubled)).unwrap_err().pointer(), "/k39");
}

#[test]
fn a_name_that_another_reader_takes_for_ours_is_refused() {
    let kelvin = with("\"max_to\u{212a}ens\":9");
    let long_s = with("\"\u{17f}tream\":true");
    for body in [
        &with(r#""Max_Tokens":9"#),
        &with(r#""MAX_COMPLETION_TOKENS":9"#),
        &with(r#""N":9"#),
        &with(r#""stream_options":{"Include_Usage":false}"#),
        &with(r#""Service_Tier":"default""#),
        &with(r#""Min_Tokens":1"#),
        r#"{"messages":[{"Content":"x"}]}"#,
        &kelvin,
        &long_s,
    ] {
        let error = read(body).unwrap_err();
        assert!(matches!(error, BadBody::Ambiguous { .. }), "{body}: {error}");
    }
}

#[test]
fn what_no_limit_bounds_is_refused() {
    let part = |it: &str| format!(r#"{{"messages":[{{"role":"user","content":[{it}]}}]}}"#);
    let cases = [
        (
            part(r#"{"type":"image_url","image_url":{"url":"https://x"}}"#),
            "/messages/0/content/0/type",
        ),
        (part(r#"{"type":"input_audio","input_audio":{}}"#), "/messages/0/content/0/type"),
        (part(r#"{"image_url":"https://x"}"#), "/messages/0/content/0/type"),
        (part(r#"{"type":"text","text":"","image_url":"x"}"#), "/messages/0/content/0/image_url"),
        (part(r#"{"type":"text","Type":"image_url"}"#), "/messages/0/content/0/Type"),
        (r#"{"messages":[{"images":["x"]}]}"#.to_owned(), "/messages/0/images"),
        (with(r#""n_predict":100000"#), "/n_predict"),
        (with(r#""N_Predict":100000"#), "/N_Predict"),
        (with(r#""web_search_options":{}"#), "/web_search_options"),
        (with(r#""modalities":["text","audio"]"#), "/modalities"),
        (with(r#""tools":[{"type":"web_search"}]"#), "/tools/0/type"),
        (with(r#""tools":[{"google_search":{}}]"#), "/tools/0/type"),
        (with(r#""models":["expensive"]"#), "/models"),
        (with(r#""service_tier":"priority""#), "/service_tier"),
        (with(r#""service_tier":"scale""#), "/service_tier"),
        (with(r#""service_tier":7"#), "/service_tier"),
        (with(r#""provider":{"order":["dearest"]}"#), "/provider"),
        (with(r#""route":"fallback""#), "/route"),
        (with(r#""transforms":["middle-out"]"#), "/transforms"),
        (with(r#""plugins":[{"id":"web"}]"#), "/plugins"),
        (with(r#""fallbacks":["dearer"]"#), "/fallbacks"),
        (with(r#""enable_search":true"#), "/enable_search"),
        (with(r#""search_parameters":{"mode":"on"}"#), "/search_parameters"),
        (with(r#""api_base":"https://x""#), "/api_base"),
        (with(r#""min_new_tokens":100000"#), "/min_new_tokens"),
    ];
    for (body, pointer) in cases {
        let error = read(&body).unwrap_err();
        assert!(matches!(error, BadBody::Unpriced { .. }), "{body}: {error}");
        assert_eq!(error.pointer(), pointer);
    }
    for fine in [
        r#""modalities":["text"]"#,
        r#""audio":null"#,
        r#""use_beam_search":false"#,
        r#""service_tier":null"#,
        r#""service_tier":"default""#,
        r#""service_tier":"flex""#,
        r#""service_tier":"auto""#,
        r#""min_tokens":100,"max_tokens":100"#,
    ] {
        assert!(read(&with(fine)).is_ok(), "{fine}");
    }
}

#[test]
fn a30_no_text_of_the_request_is_in_an_error() {
    for body in [
        r#"{"messages":"canary"}"#,
        r#"{"messages":["canary"]}"#,
        r#"{"messages":[{"content":{"a":"canary"}}]}"#,
        r#"{"messages":[{"content":"canary]}"#,
        r#"{"messages":[],"model":["canary"],"n":"canary"}"#,
        r#"{"messages":[],"service_tier":"canary"}"#,
    ] {
        let error = read(body).unwrap_err();
        let all = format!("{error} {error:?} {} {}", error.found(), error.expected());
        assert!(!all.contains("canary"), "{all}");
    }
}

/// Body → where it is refused for having no price, in any of the formats.
#[track_caller]
fn check_unpriced(format: Format, body: &str, pointer: &str) {
    let error = RequestFacts::read(format, body.as_bytes(), &Ceiling::default()).unwrap_err();
    assert!(matches!(error, BadBody::Unpriced { .. }), "{body}: {error}");
    assert_eq!(error.pointer(), pointer, "{body}");
}

/// Body → where it is wrong, what should be there, what is.
#[track_caller]
fn check_wrong(format: Format, body: &str, pointer: &str, (expected, found): (&str, &str)) {
    let error = RequestFacts::read(format, body.as_bytes(), &Ceiling::default()).unwrap_err();
    let told = (error.pointer(), error.expected(), error.found());
    assert_eq!(told, (pointer, expected, found), "{body}");
}

/// Body → what the upstream gets, at most 100 tokens a choice. What needs no change is not copied.
#[track_caller]
fn check_forwarded(format: Format, body: &str, expected: &str) {
    let ceiling = Ceiling { max_output_tokens: 100, ..Ceiling::default() };
    let body = Bytes::from(body.to_owned());
    let facts = RequestFacts::read(format, &body, &ceiling).unwrap();
    let enforced = facts.enforce(format, &body, &ceiling).unwrap();
    assert_eq!(enforced, expected);
    if body == expected {
        assert_eq!(enforced.as_ptr(), body.as_ptr(), "forwarded, not copied");
    }
}

#[track_caller]
fn check_enforced(limit: OutputLimit, body: &str, expected: &str) {
    let ceiling = Ceiling {
        max_output_tokens: 100,
        max_choices: 2,
        output_limit: limit,
        ..Ceiling::default()
    };
    let body = Bytes::from(body.to_owned());
    let facts = RequestFacts::read(CHAT, &body, &ceiling).unwrap();
    let enforced = facts.enforce(CHAT, &body, &ceiling).unwrap();
    assert_eq!(enforced, expected);
    if body == expected {
        assert_eq!(enforced.as_ptr(), body.as_ptr(), "forwarded, not copied");
    }
}

#[test]
fn the_upstream_gets_the_priced_limits() {
    let old = OutputLimit::MaxTokens;
    for unchanged in [
        r#" { "messages" : [ ] , "max_tokens" : 100 } "#,
        r#"{"max_tokens":7,"messages":[],"max_completion_tokens":null}"#,
        r#"{"messages":[],"max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"messages":[],"max_tokens":1,"service_tier":"flex"}"#,
    ] {
        check_enforced(old, unchanged, unchanged);
    }
    check_enforced(old, r#"{"messages":[]}"#, r#"{"messages":[],"max_tokens":100}"#);
    check_enforced(
        old,
        r#"{ "max_tokens": 900, "stop": [ 1.50, 1e2 ], "messages": [] }"#,
        r#"{"max_tokens":100,"stop":[ 1.50, 1e2 ],"messages":[]}"#,
    );
    check_enforced(
        old,
        r#"{"max_completion_tokens":9,"messages":[]}"#,
        r#"{"messages":[],"max_tokens":9}"#,
    );
    check_enforced(
        OutputLimit::MaxCompletionTokens,
        r#"{"max_tokens":9,"messages":[],"max_completion_tokens":200}"#,
        r#"{"messages":[],"max_completion_tokens":9}"#,
    );
    check_enforced(
        old,
        r#"{"messages":[],"service_tier":"auto","max_tokens":5}"#,
        r#"{"messages":[],"max_tokens":5}"#,
    );
    check_enforced(
        old,
        r#"{"messages":[],"stream":true,"max_tokens":5}"#,
        r#"{"messages":[],"stream":true,"max_tokens":5,"stream_options":{"include_usage":true}}"#,
    );
    check_enforced(
        old,
        r#"{"stream_options":{"x": 1,"include_usage":false},"messages":[],"stream":true,"max_tokens":5}"#,
        r#"{"stream_options":{"x":1,"include_usage":true},"messages":[],"stream":true,"max_tokens":5}"#,
    );
}

#[test]
fn an_opaque_body_is_left_alone() {
    let body = Bytes::from_static(b"\xff not json");
    let facts = RequestFacts::read(Format::Opaque, &body, &Ceiling::default()).unwrap();
    assert_eq!(facts, RequestFacts::default());
    let enforced = facts.enforce(Format::Opaque, &body, &Ceiling::default()).unwrap();
    assert_eq!(enforced, body);
}

mod properties {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn member() -> impl Strategy<Value = (String, Value)> {
        prop_oneof![
            (1_u64..10_000).prop_map(|it| ("max_tokens".to_owned(), json!(it))),
            (1_u64..10_000).prop_map(|it| ("max_completion_tokens".to_owned(), json!(it))),
            (1_u64..8).prop_map(|it| ("n".to_owned(), json!(it))),
            any::<bool>().prop_map(|it| ("stream".to_owned(), json!(it))),
            any::<bool>()
                .prop_map(|it| ("stream_options".to_owned(), json!({"include_usage": it}))),
            (prop::sample::select(vec!["stop", "metadata", "é\n"]), ".*")
                .prop_map(|(name, text)| (name.to_owned(), json!([text, {"x": 1}]))),
        ]
    }

    /// JSON with the words that are looked for.
    fn value() -> impl Strategy<Value = Value> {
        let words = vec![
            "text",
            "type",
            "role",
            "content",
            "user",
            "tool_use",
            "tool_result",
            "input_text",
            "message",
            "reasoning",
            "function_call_output",
            "output",
            "item_reference",
            "enabled",
            "budget_tokens",
            "ephemeral",
            "ttl",
            "id",
            "function",
            "custom",
        ];
        let word = prop::sample::select(words).prop_map(str::to_owned);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0_u64..200).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..6)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        })
    }

    fn body() -> impl Strategy<Value = Value> {
        (proptest::collection::vec(member(), 0..8), ".*").prop_map(|(members, text)| {
            let mut body: Map<_, _> = members.into_iter().collect();
            body.insert("messages".to_owned(), json!([{"role": "user", "content": text}]));
            Value::Object(body)
        })
    }

    proptest! {
        /// What the upstream gets is priced as what the client sent, keeps to the ceiling, is left
        /// alone the second time, and differs in the governed fields only.
        #[test]
        fn enforcing_changes_no_price_and_nothing_else(body in body()) {
            let ceiling = Ceiling {
                max_output_tokens: 500,
                pass_fields: vec!["é\n".to_owned()],
                ..Ceiling::default()
            };
            let sent = Bytes::from(body.to_string());
            let facts = RequestFacts::read(CHAT, &sent, &ceiling).unwrap();
            let forwarded = facts.enforce(CHAT, &sent, &ceiling).unwrap();
            let again = RequestFacts::read(CHAT, &forwarded, &ceiling).unwrap();
            let output = |it: &RequestFacts| it.bounds.unwrap().output_tokens;
            prop_assert_eq!(output(&facts), output(&again));
            prop_assert_eq!(&again.enforce(CHAT, &forwarded, &ceiling).unwrap(), &forwarded);
            let mut left: Map<String, Value> = serde_json::from_slice(&forwarded).unwrap();
            prop_assert!(left["max_tokens"].as_u64().unwrap() <= 500);
            prop_assert!(!left.contains_key("max_completion_tokens"));
            if facts.answer == AnswerKind::Stream {
                prop_assert_eq!(&left["stream_options"]["include_usage"], &json!(true));
            }
            let mut sent: Map<String, Value> = serde_json::from_slice(&sent).unwrap();
            for governed in ["max_tokens", "max_completion_tokens", "stream_options"] {
                left.shift_remove(governed);
                sent.shift_remove(governed);
            }
            prop_assert_eq!(Value::Object(left).to_string(), Value::Object(sent).to_string());
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in Format::ALL {
                drop(RequestFacts::read(format, &body, &Ceiling::default()));
            }
        }

        #[test]
        fn arbitrary_json_never_panics(text in r#"[{}\[\]",:a-z0-9 \\]{0,80}"#) {
            for format in Format::ALL {
                drop(RequestFacts::read(format, text.as_bytes(), &Ceiling::default()));
            }
        }

        /// Any value in any of the fields that are read.
        #[test]
        fn odd_values_never_panic(
            name in prop::sample::select(vec![
                "messages", "input", "prompt", "system", "tools", "thinking", "reasoning", "text",
                "stream", "stream_options", "max_tokens", "max_output_tokens", "n", "best_of",
                "echo", "cache_control", "service_tier", "store", "model", "instructions",
            ]),
            value in value(),
        ) {
            for format in Format::ALL {
                let mut body = json!({"max_tokens": 5, "messages": [], "input": "x"});
                body[name] = value.clone();
                let body = Bytes::from(body.to_string());
                let ceiling = Ceiling::default();
                if let Ok(facts) = RequestFacts::read(format, &body, &ceiling) {
                    let forwarded = facts.enforce(format, &body, &ceiling).unwrap();
                    let again = RequestFacts::read(format, &forwarded, &ceiling).unwrap();
                    let output = |it: &RequestFacts| it.bounds.map(|it| it.output_tokens);
                    prop_assert_eq!(output(&facts), output(&again));
                }
            }
        }

        #[test]
        fn every_token_of_the_text_is_within_the_bound(text in ".*") {
            let message = json!([{"role": "user", "content": text}]);
            let blocks = json!([{"role": "user", "content": [{"type": "text", "text": text}]}]);
            let output = json!([{"type": "function_call_output", "call_id": "", "output": text}]);
            for (format, body) in [
                (CHAT, json!({"messages": message})),
                (CHAT, json!({"messages": blocks})),
                (Format::OpenAiCompletions, json!({"prompt": text})),
                (Format::OpenAiCompletions, json!({"prompt": [text]})),
                (Format::OpenAiEmbeddings, json!({"input": [text]})),
                (Format::OpenAiResponses, json!({"input": text})),
                (Format::OpenAiResponses, json!({"input": message})),
                (Format::OpenAiResponses, json!({"input": output})),
                (Format::OpenAiResponses, json!({"input": "", "instructions": text})),
                (Format::AnthropicMessages, json!({"max_tokens": 1, "messages": message})),
                (Format::AnthropicMessages, json!({"max_tokens": 1, "messages": blocks})),
                (Format::AnthropicMessages, json!({"max_tokens": 1, "messages": [], "system": text})),
            ] {
                let body = body.to_string();
                let facts =
                    RequestFacts::read(format, body.as_bytes(), &Ceiling::default()).unwrap();
                let bound = facts.bounds.unwrap().input_tokens;
                prop_assert!(u64::try_from(text.len()).unwrap() < bound);
            }
        }
    }
}
