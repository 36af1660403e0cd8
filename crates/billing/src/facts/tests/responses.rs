//! `openai-responses`.

use super::*;

const FORMAT: Format = Format::OpenAiResponses;

fn read(body: &str) -> Result<RequestFacts, BadBody> {
    RequestFacts::read(FORMAT, body.as_bytes(), &Ceiling::default())
}

fn with(member: &str) -> String {
    format!(r#"{{"input":"hi",{member}}}"#)
}

fn with_item(item: &str) -> String {
    format!(r#"{{"input":[{item}]}}"#)
}

#[test]
fn the_limit_is_read_and_capped() {
    for (member, limit) in [
        (r#""model":"m""#, 4096),
        (r#""max_output_tokens":null"#, 4096),
        (r#""max_output_tokens":10"#, 10),
        (r#""max_output_tokens":5000"#, 4096),
    ] {
        let bounds = read(&with(member)).unwrap().bounds.unwrap();
        assert_eq!((bounds.output_tokens, bounds.output_tokens_per_choice), (limit, limit));
    }
    let facts = read(&with(r#""stream":true,"model":"m""#)).unwrap();
    assert_eq!((facts.answer, facts.usage_event), (AnswerKind::Stream, UsageEvent::Shown));
    assert_eq!((facts.model.as_deref(), facts.choices), (Some("m"), 1));
}

#[test]
fn every_byte_that_becomes_prompt_counts() {
    for (body, bytes) in [
        (with(r#""metadata":{"a":"b"},"user":"someone","include":["x"]"#), 2),
        (with(r#""instructions":"be brief""#), 2 + 10),
        (with_item(r#"{"role":"user","content":"abcd"}"#), 8),
        (with_item(r#"{"type":"message","role":"user","content":"abcd"}"#), 15),
        (with_item(r#"{"role":"user","content":[{"type":"input_text","text":"abcd"}]}"#), 18),
        (with_item(r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#), 17),
        (with_item(r#"{"type":"function_call_output","call_id":"c","output":"12345"}"#), 26),
        (
            with_item(r#"{"type":"reasoning","id":"r","summary":[],"encrypted_content":"abcdef"}"#),
            16,
        ),
    ] {
        assert_eq!(read(&body).unwrap().prompt_bytes, bytes, "{body}");
    }
    let tools = r#"[{"type":"function","name":"f","parameters":{"type":"object"}}]"#;
    let facts = read(&with(&format!(r#""tools":{tools}"#))).unwrap();
    assert_eq!(facts.prompt_bytes, 2 + u64::try_from(tools.len()).unwrap());
    assert!(512 < facts.bounds.unwrap().input_tokens);
}

#[test]
fn what_nobody_here_has_seen_is_refused() {
    for (body, pointer) in [
        (with(r#""background":true"#), "/background"),
        (with(r#""previous_response_id":"resp_1""#), "/previous_response_id"),
        (with(r#""conversation":"conv_1""#), "/conversation"),
        (with(r#""conversation":{"id":"conv_1"}"#), "/conversation"),
        (with(r#""prompt":{"id":"pmpt_1"}"#), "/prompt"),
        (with(r#""store":true"#), "/store"),
        (with(r#""context_management":[]"#), "/context_management"),
        (with(r#""max_tokens":9"#), "/max_tokens"),
        (with(r#""brand_new":{}"#), "/brand_new"),
        (with(r#""service_tier":"priority""#), "/service_tier"),
        (with(r#""reasoning":{"mode":"pro"}"#), "/reasoning/mode"),
        (with(r#""tools":[{"type":"web_search"}]"#), "/tools/0/type"),
        (with(r#""tools":[{"type":"file_search","vector_store_ids":[]}]"#), "/tools/0/type"),
        (with(r#""tools":[{"type":"mcp","server_url":"https://x"}]"#), "/tools/0/type"),
        (with(r#""tools":[{"name":"f"}]"#), "/tools/0/type"),
        (with_item(r#"{"type":"item_reference","id":"msg_1"}"#), "/input/0/type"),
        (with_item(r#"{"id":"msg_1"}"#), "/input/0/role"),
        (with_item(r#"{"type":null,"id":"msg_1"}"#), "/input/0/role"),
        (with_item(r#"{"type":"message","id":"m","role":"user"}"#), "/input/0/content"),
        (with_item(r#"{"type":"function_call_output","call_id":"c"}"#), "/input/0/output"),
        (
            with_item(r#"{"type":"reasoning","id":"rs_1","summary":[]}"#),
            "/input/0/encrypted_content",
        ),
        (
            with_item(r#"{"type":"reasoning","id":"rs_1","summary":[],"content":[ ]}"#),
            "/input/0/encrypted_content",
        ),
        (
            with_item(r#"{"type":"reasoning","id":"rs_1","encrypted_content":""}"#),
            "/input/0/encrypted_content",
        ),
        (with_item(r#"{"type":"image_generation_call","id":"ig_1"}"#), "/input/0/type"),
        (
            with_item(r#"{"role":"user","content":[{"type":"input_image","file_id":"f"}]}"#),
            "/input/0/content/0/type",
        ),
        (
            with_item(
                r#"{"role":"user","content":[{"type":"input_text","text":"","file_id":"f"}]}"#,
            ),
            "/input/0/content/0/file_id",
        ),
        (
            with_item(
                r#"{"type":"function_call_output","output":[{"type":"input_file","file_id":"f"}]}"#,
            ),
            "/input/0/output/0/type",
        ),
    ] {
        check_unpriced(FORMAT, &body, pointer);
    }
    for fine in [
        r#""background":false"#,
        r#""previous_response_id":null"#,
        r#""conversation":null"#,
        r#""store":false"#,
        r#""reasoning":{"effort":"high","summary":"auto","mode":"standard"}"#,
        r#""reasoning":null"#,
        r#""tool_choice":{"type":"function","name":"f"}"#,
        r#""stream_options":{"include_obfuscation":false}"#,
        r#""service_tier":"flex""#,
        r#""brand_new":null"#,
    ] {
        assert!(read(&with(fine)).is_ok(), "{fine}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let input = "a string or an array of items";
    let count = "a whole number of at least 1";
    for (body, pointer, told) in [
        ("{}", "/input", (input, "nothing")),
        (r#"{"input":{}}"#, "/input", (input, "an object")),
        (r#"{"input":["a"]}"#, "/input/0", ("an item object", "a string")),
        (
            r#"{"input":[{"role":"user","content":7}]}"#,
            "/input/0/content",
            ("a string or an array of parts", "a number"),
        ),
        (&with(r#""max_output_tokens":0"#), "/max_output_tokens", (count, "0")),
        (&with(r#""stream":1"#), "/stream", ("true or false", "a number")),
        (&with(r#""reasoning":"high""#), "/reasoning", ("an object", "a string")),
    ] {
        check_wrong(FORMAT, body, pointer, told);
    }
    let many = vec![r#"{"role":"user","content":""}"#; 10_001].join(",");
    check_wrong(FORMAT, &with_item(&many), "/input", ("at most 10000 items", "more"));
    for body in [
        with(r#""Max_Output_Tokens":9"#),
        with(r#""Store":true"#),
        with(r#""tools":[{"Type":"web_search","type":"function"}]"#),
        with_item(r#"{"role":"user","content":"a","Content":[]}"#),
        with(r#""reasoning":{"Mode":"pro"}"#),
    ] {
        let error = read(&body).unwrap_err();
        assert!(matches!(error, BadBody::Ambiguous { .. }), "{body}: {error}");
    }
}

#[test]
fn the_upstream_gets_the_priced_limits_and_keeps_nothing() {
    let unchanged = r#" { "input" : "a", "max_output_tokens" : 7, "store" : false } "#;
    check_forwarded(FORMAT, unchanged, unchanged);
    check_forwarded(
        FORMAT,
        r#"{"input":"a","stream":true}"#,
        r#"{"input":"a","stream":true,"max_output_tokens":100,"store":false}"#,
    );
    check_forwarded(
        FORMAT,
        r#"{"max_output_tokens":900,"store":null,"input": [ ],"service_tier":"auto"}"#,
        r#"{"max_output_tokens":100,"store":false,"input":[ ]}"#,
    );
}
