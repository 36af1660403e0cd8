//! That no answer grows too large to be paid for, and that no header makes tokens dearer.

use super::*;
use crate::unpriced_beta;

/// A body, where and with how many log probabilities it is refused, if it is.
#[track_caller]
fn check_refused(format: Format, body: &str, refused: Option<(&str, &str)>) {
    let outcome = RequestFacts::read(format, body.as_bytes(), &Ceiling::default());
    let error = outcome.err();
    let told = error.as_ref().map(|it| (it.pointer(), it.found()));
    assert_eq!(told, refused, "{body}");
}

#[test]
fn log_probabilities_are_bounded_over_the_whole_answer() {
    let text = Format::OpenAiCompletions;
    let responses = Format::OpenAiResponses;
    check_refused(CHAT, &with(r#""logprobs":true,"n":8"#), None);
    check_refused(CHAT, &with(r#""logprobs":true,"top_logprobs":20,"max_tokens":1000"#), None);
    check_refused(CHAT, &with(r#""logprobs":false,"n":8"#), None);
    let far = Some(("/top_logprobs", "up to 86016, 21 for each of 4096 tokens"));
    check_refused(CHAT, &with(r#""logprobs":true,"top_logprobs":20"#), far);
    check_refused(CHAT, &with(r#""top_logprobs":20"#), far);
    let choices = Some(("/top_logprobs", "up to 49152, 6 for each of 8192 tokens"));
    check_refused(CHAT, &with(r#""top_logprobs":5,"max_tokens":1024,"n":8"#), choices);
    let all = Some(("/top_logprobs", "-1"));
    check_refused(CHAT, &with(r#""logprobs":true,"top_logprobs":-1"#), all);
    check_refused(text, r#"{"prompt":"a","logprobs":5}"#, None);
    let many = Some(("/logprobs", "up to 36864, 9 for each of 4096 tokens"));
    check_refused(text, r#"{"prompt":"a","logprobs":8,"max_tokens":4096}"#, many);
    check_refused(responses, r#"{"input":"","top_logprobs":7}"#, None);
    let nine = Some(("/top_logprobs", "up to 40960, 10 for each of 4096 tokens"));
    check_refused(responses, r#"{"input":"","top_logprobs":9}"#, nine);
}

#[test]
fn what_repeats_the_prompt_is_bounded() {
    for format in [CHAT, Format::OpenAiCompletions] {
        let body = r#"{"messages":[],"prompt_logprobs":1}"#;
        let body = if format == CHAT { body.to_owned() } else { body.replace("messages", "stop") };
        check_unpriced(format, &body, "/prompt_logprobs");
    }
    let long = "a".repeat(200_000);
    let echo = |more: &str| format!(r#"{{"prompt":"{long}","echo":true{more}}}"#);
    assert!(
        RequestFacts::read(Format::OpenAiCompletions, echo("").as_bytes(), &Ceiling::default())
            .is_ok()
    );
    for more in [r#","n":8"#, r#","logprobs":0"#] {
        let body = echo(more);
        RequestFacts::read(Format::OpenAiCompletions, body.as_bytes(), &Ceiling::default())
            .unwrap_err();
    }
}

#[test]
fn a_beta_that_makes_tokens_dearer_is_found() {
    for (header, found) in [
        ("", None),
        ("prompt-caching-2024-07-31, output-128k-2025-02-19", None),
        ("context-1m-2025-08-07", Some("context-1m-2025-08-07")),
        ("token-efficient-tools-2025-02-19 ,Context-1M-2026", Some("Context-1M-2026")),
    ] {
        assert_eq!(unpriced_beta(header), found, "{header}");
    }
}
