//! `openai-embeddings`.

use super::*;

const FORMAT: Format = Format::OpenAiEmbeddings;

#[track_caller]
fn check_input(body: &str, (inputs, bytes, tokens): (u64, u64, u64)) {
    let facts = RequestFacts::read(FORMAT, body.as_bytes(), &Ceiling::default()).unwrap();
    let bounds = facts.bounds.unwrap();
    assert_eq!((facts.choices, facts.prompt_bytes), (inputs, bytes), "{body}");
    assert_eq!((bounds.input_tokens, bounds.output_tokens), (tokens, 0), "{body}");
    assert_eq!(facts.answer, AnswerKind::Whole);
}

#[test]
fn the_input_is_all_that_costs() {
    check_input(r#"{"input":"12345"}"#, (1, 5, 5 + 144));
    check_input(r#"{"input":"\u00e9"}"#, (1, 2, 2 + 144));
    check_input(r#"{"input":["123","45"],"dimensions":256}"#, (2, 5, 5 + 128 + 32));
    check_input(r#"{"input":[1,2,3]}"#, (1, 12, 3 + 144));
    check_input(r#"{"input":[[1,2,3],[4]],"user":null}"#, (2, 16, 4 + 128 + 32));
    // A stream of embeddings does not exist.
    check_input(r#"{"input":"1","stream":true}"#, (1, 1, 1 + 144));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text = "a string, an array of strings, or arrays of tokens";
    check_wrong(FORMAT, "{}", "/input", (text, "nothing"));
    check_wrong(FORMAT, r#"{"input":null}"#, "/input", (text, "nothing"));
    check_wrong(FORMAT, r#"{"input":7}"#, "/input", (text, "a number"));
    let item = ("a string or tokens", "an object");
    check_wrong(FORMAT, r#"{"input":[{"text":"a"}]}"#, "/input/0", item);
    check_wrong(FORMAT, r#"{"input":"a","model":7}"#, "/model", ("a string", "a number"));
}

#[test]
fn what_is_no_text_is_refused() {
    for (member, pointer) in [
        (r#""messages":[]"#, "/messages"),
        (r#""images":["x"]"#, "/images"),
        (r#""inputs":[]"#, "/inputs"),
        (r#""service_tier":"priority""#, "/service_tier"),
    ] {
        check_unpriced(FORMAT, &format!(r#"{{"input":"a",{member}}}"#), pointer);
    }
}

#[test]
fn a32_token_arrays_are_bounded_by_the_number_of_values() {
    let body = format!(r#"{{"input":[{}]}}"#, vec!["1"; 249_998].join(","));
    check_input(&body, (1, 4 * 249_998, 249_998 + 144));
    let body = format!(r#"{{"input":[{}]}}"#, vec!["1"; 300_000].join(","));
    check_wrong(FORMAT, &body, "/input/249998", ("at most 250000 values in all", "more"));
}

#[test]
fn the_body_passes_as_it_came() {
    let body = r#" { "input" : [ "a" ] , "encoding_format" : "base64" } "#;
    check_forwarded(FORMAT, body, body);
    check_forwarded(FORMAT, r#"{"input":"a","service_tier":"auto"}"#, r#"{"input":"a"}"#);
}
