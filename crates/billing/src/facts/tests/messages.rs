//! `anthropic-messages`.

use super::*;

const FORMAT: Format = Format::AnthropicMessages;

fn read(body: &str) -> Result<RequestFacts, BadBody> {
    RequestFacts::read(FORMAT, body.as_bytes(), &Ceiling::default())
}

fn with(member: &str) -> String {
    format!(r#"{{"max_tokens":2000,"messages":[],{member}}}"#)
}

fn with_block(block: &str) -> String {
    format!(r#"{{"max_tokens":9,"messages":[{{"role":"user","content":[{block}]}}]}}"#)
}

#[test]
fn the_limit_is_read_and_capped() {
    for (asked, limit) in [(1, 1), (4096, 4096), (64_000, 4096)] {
        let facts = read(&format!(r#"{{"max_tokens":{asked},"messages":[]}}"#)).unwrap();
        let bounds = facts.bounds.unwrap();
        assert_eq!((bounds.output_tokens, bounds.output_tokens_per_choice), (limit, limit));
    }
    let facts = read(&with(r#""stream":true,"model":"m""#)).unwrap();
    assert_eq!((facts.answer, facts.usage_event), (AnswerKind::Stream, UsageEvent::Shown));
    assert_eq!((facts.model.as_deref(), facts.choices), (Some("m"), 1));
}

#[test]
fn every_byte_that_becomes_prompt_counts() {
    for (body, bytes) in [
        (with(r#""metadata":{"user_id":"someone"},"stop_sequences":["x"]"#), 0),
        (with(r#""system":"be brief""#), 8),
        (with(r#""system":[{"type":"text","text":"be brief"}]"#), 12),
        (r#"{"max_tokens":9,"messages":[{"role":"user","content":"abcd"}]}"#.to_owned(), 8),
        (with_block(r#"{"type":"text","text":"\u00e9"}"#), 4 + 4 + 2),
        (
            with_block(r#"{"type":"tool_use","id":"t","name":"f","input":{"a":1}}"#),
            4 + 8 + 1 + 1 + 7,
        ),
        (with_block(r#"{"type":"tool_result","tool_use_id":"t","content":"12345"}"#), 21),
        (
            with_block(
                r#"{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"5"}]}"#,
            ),
            4 + 11 + 1 + 5,
        ),
        (with_block(r#"{"type":"thinking","thinking":"abc","signature":"defg"}"#), 4 + 8 + 7),
        (with_block(r#"{"type":"redacted_thinking","data":"defg"}"#), 4 + 17 + 4),
    ] {
        assert_eq!(read(&body).unwrap().prompt_bytes, bytes, "{body}");
    }
    let tools = r#"[{"name":"f","input_schema":{"type":"object"}}]"#;
    let facts = read(&with(&format!(r#""tools":{tools}"#))).unwrap();
    assert_eq!(facts.prompt_bytes, u64::try_from(tools.len()).unwrap());
    assert!(512 < facts.bounds.unwrap().input_tokens);
}

#[test]
fn what_nobody_here_has_seen_is_refused() {
    for (body, pointer) in [
        (with(r#""mcp_servers":[]"#), "/mcp_servers"),
        (with(r#""container":"c""#), "/container"),
        (with(r#""context_management":{}"#), "/context_management"),
        (with(r#""speed":"fast""#), "/speed"),
        (with(r#""inference_geo":"us""#), "/inference_geo"),
        (with(r#""service_tier":"priority""#), "/service_tier"),
        (with(r#""brand_new":{}"#), "/brand_new"),
        (with(r#""cache_control":{"type":"ephemeral","ttl":"1h"}"#), "/cache_control/ttl"),
        (with(r#""tools":[{"type":"web_search_20250305","name":"w"}]"#), "/tools/0/type"),
        (with(r#""tools":[{"type":"bash_20250124","name":"bash"}]"#), "/tools/0/type"),
        (with(r#""tools":["f"]"#), "/tools/0/type"),
        (
            with(r#""tools":[{"name":"f","cache_control":{"type":"ephemeral","ttl":"1h"}}]"#),
            "/tools/0/cache_control/ttl",
        ),
        (with(r#""system":[{"type":"image"}]"#), "/system/0/type"),
        (
            with_block(r#"{"type":"image","source":{"type":"url","url":"x"}}"#),
            "/messages/0/content/0/type",
        ),
        (with_block(r#"{"type":"document","source":{}}"#), "/messages/0/content/0/type"),
        (with_block(r#"{"text":"a"}"#), "/messages/0/content/0/type"),
        (with_block(r#"{"type":"text","text":"","source":{}}"#), "/messages/0/content/0/source"),
        (
            with_block(
                r#"{"type":"text","text":"","cache_control":{"type":"ephemeral","ttl":"1h"}}"#,
            ),
            "/messages/0/content/0/cache_control/ttl",
        ),
        (
            with_block(r#"{"type":"tool_result","tool_use_id":"t","content":[{"type":"image"}]}"#),
            "/messages/0/content/0/content/0/type",
        ),
        (
            r#"{"max_tokens":9,"messages":[{"role":"user","content":"","images":[]}]}"#.to_owned(),
            "/messages/0/images",
        ),
    ] {
        check_unpriced(FORMAT, &body, pointer);
    }
    for fine in [
        r#""cache_control":{"type":"ephemeral"}"#,
        r#""cache_control":{"type":"ephemeral","ttl":"5m"}"#,
        r#""cache_control":null"#,
        r#""tools":[{"type":"custom","name":"f","cache_control":{"type":"ephemeral"}}]"#,
        r#""tools":[{"type":null,"name":"f","cache_control":null}]"#,
        r#""tools":null"#,
        r#""service_tier":"auto""#,
        r#""service_tier":"standard_only""#,
        r#""thinking":{"type":"enabled","budget_tokens":1999}"#,
        r#""thinking":{"type":"adaptive"}"#,
        r#""thinking":{"type":"disabled"}"#,
        r#""mcp_servers":null"#,
    ] {
        assert!(read(&with(fine)).is_ok(), "{fine}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let count = "a whole number of at least 1";
    let content = "a string or an array of content blocks";
    for (body, pointer, told) in [
        (r#"{"messages":[]}"#, "/max_tokens", (count, "nothing")),
        (r#"{"max_tokens":0,"messages":[]}"#, "/max_tokens", (count, "0")),
        (r#"{"max_tokens":1}"#, "/messages", ("an array of messages", "nothing")),
        (r#"{"max_tokens":1,"messages":["a"]}"#, "/messages/0", ("a message object", "a string")),
        (
            r#"{"max_tokens":1,"messages":[{"content":7}]}"#,
            "/messages/0/content",
            (content, "a number"),
        ),
        (&with(r#""system":7"#), "/system", (content, "a number")),
        (&with_block("7"), "/messages/0/content/0", ("a content block object", "a number")),
        (&with(r#""thinking":true"#), "/thinking", ("an object", "a boolean")),
        (
            &with(r#""thinking":{"type":"enabled","budget_tokens":2000}"#),
            "/thinking/budget_tokens",
            ("less than the limit of 2000 tokens", "2000"),
        ),
        (
            r#"{"max_tokens":64000,"messages":[],"thinking":{"budget_tokens":10000}}"#,
            "/thinking/budget_tokens",
            ("less than the limit of 4096 tokens", "10000"),
        ),
        (&with(r#""cache_control":"5m""#), "/cache_control", ("an object", "a string")),
    ] {
        check_wrong(FORMAT, body, pointer, told);
    }
    let many = vec![r#"{"role":"user","content":""}"#; 10_001].join(",");
    let body = format!(r#"{{"max_tokens":1,"messages":[{many}]}}"#);
    check_wrong(FORMAT, &body, "/messages", ("at most 10000 messages", "more"));
    for body in [
        with(r#""Thinking":{}"#),
        r#"{"max_tokens":1,"messages":[{"role":"user","Content":[]}]}"#.to_owned(),
        with(r#""tools":[{"Type":"web_search_20250305"}]"#),
    ] {
        let error = read(&body).unwrap_err();
        assert!(matches!(error, BadBody::Ambiguous { .. }), "{body}: {error}");
    }
}

#[test]
fn the_upstream_gets_the_priced_limit() {
    let unchanged = r#" { "messages" : [ ] , "max_tokens" : 100, "stream" : true } "#;
    check_forwarded(FORMAT, unchanged, unchanged);
    check_forwarded(
        FORMAT,
        r#"{ "max_tokens": 900, "messages": [ ], "temperature": 1.0 }"#,
        r#"{"max_tokens":100,"messages":[ ],"temperature":1.0}"#,
    );
}
