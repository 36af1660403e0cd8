//! `openai-completions`.

use super::*;

const FORMAT: Format = Format::OpenAiCompletions;

#[track_caller]
fn check_bounds(body: &str, expected: (u64, u64, u64)) {
    let facts = RequestFacts::read(FORMAT, body.as_bytes(), &Ceiling::default()).unwrap();
    let bounds = facts.bounds.unwrap();
    let actual = (facts.choices, bounds.output_tokens_per_choice, bounds.output_tokens);
    assert_eq!(actual, expected, "{body}");
}

#[test]
fn every_prompt_is_completed_as_often_as_asked() {
    check_bounds(r#"{"prompt":"a"}"#, (1, 16, 16));
    check_bounds("{}", (1, 16, 16));
    check_bounds(r#"{"prompt":"a","max_tokens":null}"#, (1, 16, 16));
    check_bounds(r#"{"prompt":"a","max_tokens":0}"#, (1, 0, 0));
    check_bounds(r#"{"prompt":"a","max_tokens":5000}"#, (1, 4096, 4096));
    check_bounds(r#"{"prompt":"a","max_tokens":10,"n":3}"#, (3, 10, 30));
    check_bounds(r#"{"prompt":"a","max_tokens":10,"n":3,"best_of":5}"#, (5, 10, 50));
    check_bounds(r#"{"prompt":["a","b"],"max_tokens":10,"n":3}"#, (6, 10, 60));
    check_bounds(r#"{"prompt":[[1,2],[3]],"max_tokens":10}"#, (2, 10, 20));
    check_bounds(r#"{"prompt":[1,2,3],"max_tokens":10}"#, (1, 10, 10));
    check_bounds(r#"{"prompt":[],"max_tokens":10}"#, (1, 10, 10));
}

/// One byte and 128 + 16 tokens of template, for each of the choices, beside what is new.
#[test]
fn an_echo_may_be_counted_as_output() {
    check_bounds(r#"{"prompt":"a","max_tokens":10,"n":2,"echo":true}"#, (2, 10, 20 + 2 * 145));
    check_bounds(r#"{"prompt":"a","max_tokens":0,"echo":true}"#, (1, 0, 145));
    check_bounds(r#"{"prompt":"a","max_tokens":10,"echo":false}"#, (1, 10, 10));
}

#[test]
fn text_and_tokens_become_prompt() {
    let read = |body: &str| {
        let facts = RequestFacts::read(FORMAT, body.as_bytes(), &Ceiling::default()).unwrap();
        (facts.prompt_bytes, facts.bounds.unwrap().input_tokens)
    };
    assert_eq!(read(r#"{"prompt":"12345"}"#), (5, 5 + 144));
    assert_eq!(read(r#"{"prompt":["123","45"]}"#), (5, 5 + 128 + 32));
    assert_eq!(read(r#"{"prompt":[5,100000,7]}"#), (12, 3 + 144));
    assert_eq!(read(r#"{"prompt":[[5,100000],[7]]}"#), (12, 3 + 128 + 32));
    assert_eq!(read(r#"{"prompt":"1","suffix":"2345"}"#), (7, 7 + 144));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text = "a string, an array of strings, or arrays of tokens";
    let count = "a whole number of at least 0";
    for (body, pointer, told) in [
        (r#"{"prompt":7}"#, "/prompt", (text, "a number")),
        (r#"{"prompt":{"a":1}}"#, "/prompt", (text, "an object")),
        (r#"{"prompt":[{}]}"#, "/prompt/0", ("a string or tokens", "an object")),
        (r#"{"prompt":[["a"]]}"#, "/prompt/0/0", ("a token", "a string")),
        (r#"{"prompt":[1,-2]}"#, "/prompt/1", (count, "-2")),
        (r#"{"prompt":[[1,2.5]]}"#, "/prompt/0/1", (count, "2.5")),
        (r#"{"prompt":["a",2]}"#, "/prompt/1", ("only strings, or only tokens", "both")),
        (r#"{"prompt":"a","n":9}"#, "/n", ("at most 8 choices", "9")),
        (r#"{"prompt":"a","best_of":9}"#, "/best_of", ("at most 8 choices", "9")),
        (r#"{"prompt":"a","echo":1}"#, "/echo", ("true or false", "a number")),
        (r#"{"prompt":"a","max_tokens":-1}"#, "/max_tokens", (count, "-1")),
        (r#"{"prompt":"a","min_tokens":17}"#, "/min_tokens", ("at most 16 tokens", "17")),
    ] {
        check_wrong(FORMAT, body, pointer, told);
    }
    for body in [r#"{"Prompt":"a"}"#, r#"{"prompt":"a","Best_Of":8}"#, r#"{"Echo":true}"#] {
        let error = RequestFacts::read(FORMAT, body.as_bytes(), &Ceiling::default()).unwrap_err();
        assert!(matches!(error, BadBody::Ambiguous { .. }), "{body}");
    }
}

#[test]
fn what_no_limit_bounds_is_refused() {
    for (member, pointer) in [
        (r#""n_predict":9"#, "/n_predict"),
        (r#""max_completion_tokens":9"#, "/max_completion_tokens"),
        (r#""messages":[]"#, "/messages"),
        (r#""use_beam_search":true"#, "/use_beam_search"),
        (r#""prompt_embeds":"AAAA""#, "/prompt_embeds"),
        (r#""service_tier":"priority""#, "/service_tier"),
    ] {
        check_unpriced(FORMAT, &format!(r#"{{"prompt":"a",{member}}}"#), pointer);
    }
}

#[test]
fn the_upstream_gets_the_priced_limits() {
    for unchanged in [
        r#" { "prompt" : "a" , "max_tokens" : 7 } "#,
        r#"{"prompt":"a","max_tokens":0,"echo":true}"#,
        r#"{"prompt":"a","max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}"#,
    ] {
        check_forwarded(FORMAT, unchanged, unchanged);
    }
    check_forwarded(FORMAT, r#"{"prompt":"a"}"#, r#"{"prompt":"a","max_tokens":16}"#);
    check_forwarded(
        FORMAT,
        r#"{"max_tokens":900,"prompt":[1, 2],"service_tier":"auto"}"#,
        r#"{"max_tokens":100,"prompt":[1, 2]}"#,
    );
    check_forwarded(
        FORMAT,
        r#"{"prompt":"a","max_tokens":5,"stream":true}"#,
        r#"{"prompt":"a","max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}"#,
    );
}
