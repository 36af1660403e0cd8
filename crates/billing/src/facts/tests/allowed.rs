//! Which fields a request may have besides those that decide its price.

use super::*;

/// Formats, each with a body that lacks nothing but a last member.
const BODIES: [(Format, &str); 5] = [
    (CHAT, r#"{"messages":[],"max_tokens":16"#),
    (Format::OpenAiCompletions, r#"{"prompt":"","max_tokens":16"#),
    (Format::OpenAiEmbeddings, r#"{"input":"""#),
    (Format::OpenAiResponses, r#"{"input":"","max_output_tokens":16"#),
    (Format::AnthropicMessages, r#"{"messages":[],"max_tokens":16"#),
];

/// A member of every format's body → where it is refused, if it is.
#[track_caller]
fn check_all(pass: &[&str], member: &str, refused_at: Option<&str>) {
    let pass_fields = pass.iter().map(|it| (*it).to_owned()).collect();
    let ceiling = Ceiling { pass_fields, ..Ceiling::default() };
    for (format, body) in BODIES {
        let body = format!("{body},{member}}}");
        let refused = RequestFacts::read(format, body.as_bytes(), &ceiling).err();
        assert_eq!(refused.as_ref().map(BadBody::pointer), refused_at, "{format}: {body}");
        if let Some(error) = refused {
            assert!(matches!(error, BadBody::Unpriced { .. }), "{format}: {body}: {error}");
        }
    }
}

/// `LiteLLM` lays `extra_body` over what it sends, limits and all.
#[test]
fn a_second_body_within_the_body_is_refused() {
    let extra = r#""extra_body":{"max_tokens":100000,"n":8}"#;
    check_all(&[], extra, Some("/extra_body"));
    check_all(&[], r#""Extra_Body":{"n":8}"#, Some("/Extra_Body"));
    check_all(&[], r#""extra_headers":{"x":"y"}"#, Some("/extra_headers"));
    check_all(&[], r#""extra_query":{"x":"y"}"#, Some("/extra_query"));
    check_all(&[], r#""extra_body":null"#, None);
    let named = Ceiling { pass_fields: vec!["extra_body".to_owned()], ..Ceiling::default() };
    for (format, body) in BODIES.into_iter().take(3) {
        let body = format!("{body},{extra}}}");
        let error = RequestFacts::read(format, body.as_bytes(), &named).unwrap_err();
        assert_eq!(error.pointer(), "/extra_body", "no route undoes its own limits");
    }
}

#[test]
fn a_field_that_nobody_knows_is_refused_until_the_route_passes_it() {
    let unknown = r#""vendor_magic":{"max_tokens":100000}"#;
    check_all(&[], unknown, Some("/vendor_magic"));
    check_all(&["vendor_magic"], unknown, None);
    check_all(&["Vendor_Magic", "vendor"], unknown, Some("/vendor_magic"));
    let error = read(&with(unknown)).unwrap_err().to_string();
    assert!(error.contains("/vendor_magic") && error.contains("`pass_fields`"), "{error}");
}

#[test]
fn to_pass_a_field_frees_no_limit() {
    let pass_fields = ["max_tokens", "Max_Tokens", "n", "n_predict"].map(str::to_owned).to_vec();
    let ceiling = Ceiling { pass_fields, ..Ceiling::default() };
    let read = |member: &str| RequestFacts::read(CHAT, with(member).as_bytes(), &ceiling);
    assert!(matches!(read(r#""Max_Tokens":9"#), Err(BadBody::Ambiguous { .. })));
    assert!(matches!(read(r#""n_predict":9"#), Err(BadBody::Unpriced { .. })));
    assert!(read(r#""n":9"#).is_err());
    assert_eq!(read(r#""max_tokens":9999"#).unwrap().bounds.unwrap().output_tokens, 4096);
}

#[test]
fn what_clients_usually_send_is_let_through() {
    let sampling = r#""temperature":0.5,"top_p":1,"top_k":40,"min_p":0.1,"repetition_penalty":1.1,
        "frequency_penalty":0,"presence_penalty":0,"seed":1,"stop":["x"],"logit_bias":{"1":2},
        "response_format":{"type":"json_object"},"user":"u","metadata":{"a":"b"},
        "safety_identifier":"s","prompt_cache_key":"k","stop_token_ids":[1],"ignore_eos":true"#;
    let chat = r#""tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto",
        "parallel_tool_calls":true,"logprobs":true,"top_logprobs":2,"reasoning_effort":"low",
        "verbosity":"low","store":true,"modalities":["text"],
        "chat_template_kwargs":{"enable_thinking":true,"reasoning_effort":"high"}"#;
    let embeddings =
        r#""input":"a","model":"m","dimensions":256,"encoding_format":"base64","user":"u""#;
    for (format, body) in [
        (CHAT, format!(r#"{{"messages":[],{sampling},{chat}}}"#)),
        (
            Format::OpenAiCompletions,
            format!(r#"{{"prompt":"",{sampling},"logprobs":2,"suffix":"a","best_of":2}}"#),
        ),
        (Format::OpenAiEmbeddings, format!("{{{embeddings}}}")),
    ] {
        RequestFacts::read(format, body.as_bytes(), &Ceiling::default()).unwrap();
    }
}

#[test]
fn no_template_hides_among_its_arguments() {
    let template =
        r#""chat_template_kwargs":{"chat_template":"{% for i in range(99999) %}x{% endfor %}"}"#;
    check_unpriced(CHAT, &with(template), "/chat_template_kwargs/chat_template");
    let documents = r#""chat_template_kwargs":{"documents":[{}]}"#;
    check_unpriced(CHAT, &with(documents), "/chat_template_kwargs/documents");
    assert!(read(&with(r#""chat_template_kwargs":"x""#)).is_err());
}
