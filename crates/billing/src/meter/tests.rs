//! Streams and answers, cut everywhere.

mod garbage;

use super::*;
use crate::facts::{UsageBounds, UsageEvent};

fn facts(usage_event: UsageEvent) -> RequestFacts {
    let bounds =
        UsageBounds { input_tokens: 1_000, output_tokens: 1_000, output_tokens_per_choice: 1_000 };
    RequestFacts { usage_event, prompt_bytes: 10, bounds: Some(bounds), ..RequestFacts::default() }
}

/// Everything that a client gets to read, with the receipt, and what was metered.
fn run(chunks: &[&[u8]], event: UsageEvent) -> (Vec<u8>, Metered) {
    let mut filter = StreamFilter::new(Format::OpenAiChat, &facts(event));
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(filter.push(Bytes::copy_from_slice(chunk)));
    }
    let ended = filter.end();
    let metered = *ended.metered();
    out.extend(ended.finish(Some("receipt")));
    (out.concat(), metered)
}

/// A stream, what the client sees of it, its usage, how it ended. Cut in two at every byte, and
/// into single bytes.
#[track_caller]
fn check(stream: &str, expected: &str, usage: Usage, ending: Ending) {
    let stream = stream.as_bytes();
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let (out, metered) = run(&[head, tail], UsageEvent::Hidden);
        assert_eq!(String::from_utf8_lossy(&out), expected, "cut at {cut}");
        assert_eq!((metered.usage, metered.ending), (Some(usage), ending), "cut at {cut}");
    }
    let bytes: Vec<_> = stream.chunks(1).collect();
    let (out, metered) = run(&bytes, UsageEvent::Hidden);
    assert_eq!(String::from_utf8_lossy(&out), expected, "byte by byte");
    assert_eq!((metered.usage, metered.ending), (Some(usage), ending), "byte by byte");
}

const HI: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":7}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
/// Before the last event, and where there is none.
const RECEIPT: &str = ": receipt\n";
const ALONE: &str = ": receipt\n\n";

#[test]
fn the_usage_event_is_read_and_left_out() {
    let usage = Usage::reported(12, 7);
    check(&format!("{HI}{USAGE}{DONE}"), &format!("{HI}{RECEIPT}{DONE}"), usage, Ending::Complete);
    let crlf = |it: &str| it.replace('\n', "\r\n");
    check(
        &crlf(&format!("{HI}{USAGE}{DONE}")),
        &format!("{}{RECEIPT}{}", crlf(HI), crlf(DONE)),
        usage,
        Ending::Complete,
    );
    let cr = |it: &str| it.replace('\n', "\r");
    check(
        &cr(&format!("{HI}{USAGE}{DONE}")),
        &format!("{}{RECEIPT}{}", cr(HI), cr(DONE)),
        usage,
        Ending::Complete,
    );
}

#[test]
fn the_usage_event_is_shown_to_who_asked_for_it() {
    let stream = format!("{HI}{USAGE}{DONE}");
    let (out, metered) = run(&[stream.as_bytes()], UsageEvent::Shown);
    assert_eq!(String::from_utf8_lossy(&out), format!("{HI}{USAGE}{RECEIPT}{DONE}"));
    assert_eq!(metered.usage, Some(Usage::reported(12, 7)));
}

#[test]
fn usage_beside_choices_stays_and_the_last_counts() {
    let one = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\
               \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    let two = one.replace(":1}", ":2}");
    check(
        &format!("{one}{two}{DONE}"),
        &format!("{one}{two}{RECEIPT}{DONE}"),
        Usage::reported(3, 2),
        Ending::Complete,
    );
}

#[test]
fn usage_once_told_is_not_forgotten() {
    check(
        &format!("{USAGE}{HI}{DONE}"),
        &format!("{HI}{RECEIPT}{DONE}"),
        Usage::reported(12, 7),
        Ending::Complete,
    );
}

#[test]
fn everything_else_passes_untouched() {
    let odd = ": keep-alive\n\n\n\nevent: x\nid: 7\nretry: 1\ndata\n\ndata:{\"a\": 1.0,\"choices\":7}\n\n\
               data: not json\n\ndata: {\"choices\":[],\"usage\":null,\"prompt_filter_results\":[]}\n\n";
    check(
        &format!("{odd}{DONE}"),
        &format!("{odd}{RECEIPT}{DONE}"),
        Usage::estimated(3, 0),
        Ending::Complete,
    );
}

#[test]
fn data_over_several_lines_is_one_document() {
    let usage = "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":1,\ndata:\"completion_tokens\":2}}\n\n";
    check(
        &format!("\u{feff}{usage}{DONE}"),
        &format!("{RECEIPT}{DONE}"),
        Usage::reported(1, 2),
        Ending::Complete,
    );
}

#[test]
fn what_follows_the_end_marker_waits_too() {
    let late = ": late\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
    check(
        &format!("{HI}{DONE}{late}"),
        &format!("{HI}{RECEIPT}{DONE}{late}"),
        Usage::estimated(3, 1),
        Ending::Complete,
    );
    let mut filter = StreamFilter::new(Format::OpenAiChat, &facts(UsageEvent::Hidden));
    assert!(!filter.is_done());
    assert!(filter.push(Bytes::from_static(DONE.as_bytes())).is_empty());
    assert!(filter.is_done());
}

#[test]
fn a_flood_after_the_end_marker_is_not_kept() {
    let mut filter = StreamFilter::new(Format::OpenAiChat, &facts(UsageEvent::Hidden));
    assert!(filter.push(Bytes::from_static(DONE.as_bytes())).is_empty());
    for _ in 0..1_000 {
        assert!(filter.push(Bytes::from(format!(":{}\n\n", "x".repeat(1_000)))).is_empty());
    }
    let held: usize = filter.end().finish(None).iter().map(Bytes::len).sum();
    assert!(held <= 64 * 1024, "{held}");
}

#[test]
fn a_stream_without_its_end_marker_is_cut() {
    check(HI, &format!("{HI}{ALONE}"), Usage::estimated(3, 1), Ending::Cut);
    check("", ALONE, Usage::estimated(3, 0), Ending::Cut);
    // Half an event is of no use to a client and would swallow the comment.
    let half = "data: {\"choices\":[{\"delta\":{\"cont";
    check(&format!("{HI}{half}"), &format!("{HI}{ALONE}"), Usage::estimated(3, 1), Ending::Cut);
}

#[test]
fn a_last_event_without_its_empty_line_counts() {
    let hi = HI.trim_end();
    let usage = USAGE.trim_end();
    let tail = format!("{RECEIPT}{DONE}");
    for end in ["data: [DONE]", "data: [DONE]\n"] {
        check(
            &format!("{HI}{USAGE}{end}"),
            &format!("{HI}{tail}"),
            Usage::reported(12, 7),
            Ending::Complete,
        );
    }
    check(hi, &format!("{HI}{ALONE}"), Usage::estimated(3, 1), Ending::Cut);
    check(&format!("{HI}{usage}"), &format!("{HI}{ALONE}"), Usage::reported(12, 7), Ending::Cut);
}

#[test]
fn a_look_at_the_meter_changes_nothing() {
    let mut filter = StreamFilter::new(Format::OpenAiChat, &facts(UsageEvent::Hidden));
    let mut seen = vec![filter.so_far()];
    for piece in [HI, USAGE, DONE] {
        drop(filter.push(Bytes::from_static(piece.as_bytes())));
        seen.push(filter.so_far());
    }
    let usage: Vec<_> = seen.iter().map(|it| it.usage.unwrap()).collect();
    let reported = Usage::reported(12, 7);
    assert_eq!(usage, [Usage::estimated(3, 0), Usage::estimated(3, 1), reported, reported]);
    let endings: Vec<_> = seen.iter().map(|it| it.ending).collect();
    assert_eq!(endings, [Ending::Cut, Ending::Cut, Ending::Cut, Ending::Complete]);
    assert_eq!(filter.end().metered(), seen.last().unwrap());
}

#[test]
fn an_error_in_the_stream_is_told() {
    let error = "data: {\"error\":{\"message\":\"overloaded\",\"code\":529}}\n\n";
    let usage = Usage::estimated(3, 0);
    check(&format!("{error}{DONE}"), &format!("{error}{RECEIPT}{DONE}"), usage, Ending::Failed);
    check(error, &format!("{error}{ALONE}"), usage, Ending::Failed);
    let (_, metered) = run(&[error.as_bytes()], UsageEvent::Hidden);
    assert_eq!(metered.content, Content::None);
    let (_, metered) = run(&[HI.as_bytes(), error.as_bytes()], UsageEvent::Hidden);
    assert_eq!((metered.content, metered.ending), (Content::Some, Ending::Failed));
}

/// One delta and the bytes of text in it: estimates count four bytes to a token.
#[track_caller]
fn check_text(delta: &str, bytes: u64) {
    let event = format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n");
    check(
        &format!("{event}{DONE}"),
        &format!("{event}{RECEIPT}{DONE}"),
        Usage::estimated(3, bytes.div_ceil(4)),
        Ending::Complete,
    );
}

#[test]
fn text_is_counted_wherever_it_stands() {
    check_text(r#"{"role":"assistant","content":""}"#, 0);
    check_text("{}", 0);
    check_text("null", 0);
    check_text("7", 0);
    check_text(r#"{"content":"12345678"}"#, 8);
    check_text(r#"{"content":"\u00e9\n12345"}"#, 8);
    check_text(r#"{"content":"漢字ab😀1"}"#, 13);
    check_text(r#"{"refusal":"12345678"}"#, 8);
    check_text(r#"{"content":null,"reasoning_content":"12345678"}"#, 8);
    check_text(r#"{"reasoning":"12345678","reasoning_content":"12345678"}"#, 8);
    check_text(r#"{"content":[{"type":"text","text":"12345678"}]}"#, 8);
    check_text(
        r#"{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"1234","arguments":"{\"a\":1}"}}]}"#,
        11,
    );
    check_text(r#"{"function_call":{"name":"1234","arguments":"5678"}}"#, 8);
}

#[test]
fn every_choice_counts() {
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"1234\"}},\
                 {\"index\":1,\"delta\":{\"content\":\"5678\"}}]}\n\n";
    check(
        &format!("{event}{event}{DONE}"),
        &format!("{event}{event}{RECEIPT}{DONE}"),
        Usage::estimated(3, 4),
        Ending::Complete,
    );
}

#[test]
fn an_estimate_stays_within_the_bounds() {
    let long = HI.replace("hi", &"x".repeat(9_000));
    let (_, metered) = run(&[long.as_bytes()], UsageEvent::Hidden);
    assert_eq!(metered.usage, Some(Usage::estimated(3, 1_000)));
}

#[test]
fn an_event_too_long_passes_unread_and_is_marked() {
    let long = HI.replace("hi", &"x".repeat(sse::EVENT_BYTES_MAX.saturating_mul(2)));
    let stream = format!("{HI}{long}{USAGE}{DONE}");
    let expected = format!("{HI}{long}{RECEIPT}{DONE}");
    for size in [1_000, 1 << 16, 1 << 20, 1 << 22] {
        let chunks: Vec<_> = stream.as_bytes().chunks(size).collect();
        let (out, metered) = run(&chunks, UsageEvent::Hidden);
        assert!(out == expected.as_bytes(), "chunks of {size}");
        assert_eq!(metered.usage, Some(Usage::reported(12, 7)));
        assert_eq!(metered.unread_bytes, u64::try_from(long.len()).unwrap());
    }
}

#[test]
fn a_comment_stays_a_comment() {
    assert_eq!(sse::comment("a"), ": a\n");
    assert_eq!(sse::comment("a\ndata: x\r\n\rb"), ": a\n: data: x\n: b\n");
}

#[test]
fn an_opaque_stream_passes_as_it_comes() {
    let mut filter = StreamFilter::new(Format::Opaque, &RequestFacts::default());
    assert!(filter.push(Bytes::new()).is_empty());
    assert_eq!(filter.push(Bytes::from_static(b"data: [DO")), ["data: [DO"]);
    assert!(!filter.is_done());
    assert_eq!(filter.so_far().content, Content::Some);
    let ended = filter.end();
    assert_eq!((ended.metered().content, ended.metered().usage), (Content::Some, None));
    assert!(ended.finish(Some("receipt")).is_empty());
}

#[track_caller]
fn check_answer(body: &str, usage: Usage, ending: Ending, content: Content) {
    let expected = Metered { usage: Some(usage), ending, content, unread_bytes: 0 };
    let actual = meter_answer(Format::OpenAiChat, &facts(UsageEvent::Hidden), body.as_bytes());
    assert_eq!(actual, expected, "{body}");
}

#[test]
fn answers() {
    let choice = r#""choices":[{"message":{"role":"assistant","content":"12345"}}]"#;
    let usage = |usage: &str| format!("{{{choice},\"usage\":{usage}}}");
    let good = |body: &str, expected: Usage| {
        check_answer(body, expected, Ending::Complete, Content::Some);
    };
    good(
        &usage(r#"{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}"#),
        Usage::reported(3, 1),
    );
    good(
        &usage(
            r#"{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,
               "prompt_tokens_details":{"cached_tokens":4},
               "completion_tokens_details":{"reasoning_tokens":5}}"#,
        ),
        Usage { cached_input_tokens: 4, reasoning_tokens: 5, ..Usage::reported(9, 8) },
    );
    // Reasoning counted beside the completion: the total tells.
    good(
        &usage(
            r#"{"prompt_tokens":9,"completion_tokens":8,"total_tokens":22,
               "completion_tokens_details":{"reasoning_tokens":5}}"#,
        ),
        Usage { reasoning_tokens: 5, ..Usage::reported(9, 13) },
    );
    for untold in [
        "null",
        "{}",
        "7",
        r#"{"prompt_tokens":3}"#,
        r#"{"prompt_tokens":-1,"completion_tokens":1}"#,
    ] {
        good(&usage(untold), Usage::estimated(3, 2));
    }
    check_answer("not json", Usage::estimated(3, 2), Ending::Cut, Content::Some);
    good(
        r#"{"choices":7,"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":"4","prompt_tokens_details":7}}"#,
        Usage::reported(3, 1),
    );
    check_answer("{}", Usage::estimated(3, 0), Ending::Complete, Content::None);
    check_answer("", Usage::estimated(3, 0), Ending::Cut, Content::None);
    check_answer(
        r#"{"error":{"message":"no"}}"#,
        Usage::estimated(3, 0),
        Ending::Failed,
        Content::None,
    );
    let opaque = |body: &[u8]| meter_answer(Format::Opaque, &RequestFacts::default(), body);
    assert_eq!((opaque(b"x").content, opaque(b"").content), (Content::Some, Content::None));
    assert_eq!(opaque(b"x").usage, None);
}

/// Servers in Python write half of a surrogate pair as it is; the text around it was delivered.
#[test]
fn half_a_surrogate_pair_makes_no_text_free() {
    let facts = RequestFacts::default();
    let text = format!(r#""{}\ud83d""#, "a".repeat(4_000));
    for (format, body) in [
        (Format::OpenAiChat, format!(r#"{{"choices":[{{"message":{{"content":{text}}}}}]}}"#)),
        (Format::OpenAiChat, format!(r#"{{"choices":[{{"message":{text}}}]}}"#)),
        (Format::OpenAiChat, format!(r#"{{"choices":[{text}]}}"#)),
        (Format::OpenAiCompletions, format!(r#"{{"choices":[{{"text":{text}}}]}}"#)),
        (Format::OpenAiResponses, format!(r#"{{"output":[{{"text":{text}}}]}}"#)),
        (Format::AnthropicMessages, format!(r#"{{"content":[{{"text":{text}}}]}}"#)),
    ] {
        let metered = meter_answer(format, &facts, body.as_bytes());
        assert!(1_000 <= metered.usage.unwrap().output_tokens, "{body:.80}: {metered:?}");
        assert_eq!((metered.content, metered.ending), (Content::Some, Ending::Complete));
    }
    let mut filter = StreamFilter::new(Format::OpenAiChat, &facts);
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{text}}}}}]}}\n\n");
    drop(filter.push(Bytes::from(event)));
    assert!(1_000 <= filter.so_far().usage.unwrap().output_tokens);
}

/// The usage is told, whatever the content looks like.
#[test]
fn content_that_is_nested_deep_hides_no_usage() {
    let facts = RequestFacts::default();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (format, body) in [
        (
            Format::AnthropicMessages,
            format!(r#"{{"type":"message","content":[{{"type":"tool_use","input":{deep}}}],"#),
        ),
        (Format::OpenAiResponses, format!(r#"{{"output":[{{"arguments":{deep}}}],"#)),
        (Format::OpenAiChat, format!(r#"{{"choices":[{{"message":{{"tool_calls":{deep}}}}}],"#)),
        (Format::OpenAiCompletions, format!(r#"{{"choices":[{{"text":{deep}}}],"#)),
    ] {
        let body = format!(r#"{body}"usage":{{"input_tokens":100000,"output_tokens":300}}}}"#);
        let metered = meter_answer(format, &facts, body.as_bytes());
        let usage = metered.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (100_000, 300), "{format}");
        assert_eq!((metered.content, metered.ending), (Content::Some, Ending::Complete));
    }
}

/// It is read as it passes, and it costs what it would have cost in one piece.
#[test]
fn the_usage_of_a_document_too_long_is_read() {
    let long = "x".repeat(1_000);
    let usage = |input: u64| format!(r#""usage":{{"input_tokens":{input},"output_tokens":300}}"#);
    let fake = format!(
        r#"{{"text":"{long}\"{}","more":{{{}}}}}"#,
        usage(1).replace('"', "\\\""),
        usage(2)
    );
    for (format, content) in [
        (Format::OpenAiChat, "choices"),
        (Format::OpenAiCompletions, "choices"),
        (Format::OpenAiEmbeddings, "data"),
        (Format::OpenAiResponses, "output"),
        (Format::AnthropicMessages, "content"),
    ] {
        let body =
            format!("{{{:?}:[{fake}],{},\"metadata\":{{{}}}}}\n", content, usage(9), usage(3));
        let facts = facts(UsageEvent::Hidden);
        let whole = meter_answer(format, &facts, body.as_bytes());
        assert_eq!(whole.usage.unwrap().input_tokens, 9, "{format}: {body:.100}");
        for size in [1, 1_000, 1 << 20] {
            let mut filter = StreamFilter::of_document(format, &facts);
            let mut out = Vec::new();
            for chunk in body.as_bytes().chunks(size) {
                out.extend(filter.push(Bytes::copy_from_slice(chunk)));
            }
            assert!(!filter.is_done());
            let ended = filter.end();
            assert_eq!(*ended.metered(), whole, "{format} in chunks of {size}");
            assert!(ended.finish(Some("receipt")).is_empty());
            assert!(out.concat() == body.as_bytes(), "{format} in chunks of {size}");
        }
        // Without its end, by the bytes that came, within the bounds of the request.
        let mut filter = StreamFilter::of_document(format, &facts);
        drop(filter.push(Bytes::from_static(b"{\"a\":[12345")));
        let cut = *filter.end().metered();
        assert_eq!((cut.ending, cut.content), (Ending::Cut, Content::Some), "{format}");
        assert_eq!(cut.usage, Some(Usage::estimated(3, 3)), "{format}");
    }
    let filter = StreamFilter::of_document(Format::OpenAiChat, &RequestFacts::default());
    assert_eq!(filter.end().metered().content, Content::None);
}

/// What a client had written into it is not its usage.
#[test]
fn the_usage_of_an_event_too_long_is_read() {
    let long = "x".repeat(sse::EVENT_BYTES_MAX.saturating_mul(2));
    let usage = |input: u64| format!(r#""usage":{{"input_tokens":{input},"output_tokens":300}}"#);
    let fake = usage(1);
    let event = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\
         \"instructions\":\"\\\"usage\\\":{{}}}}\",\"tools\":[{{{fake}}}],\
         \"output\":[{{\"text\":\"{long}\"}}],{},\"metadata\":{{{fake}}}}}}}\n\n",
        usage(100_000)
    );
    for size in [1_000, 1 << 16, 1 << 20, 1 << 22] {
        let mut filter = StreamFilter::new(Format::OpenAiResponses, &RequestFacts::default());
        let mut out = Vec::new();
        for chunk in event.as_bytes().chunks(size) {
            out.extend(filter.push(Bytes::copy_from_slice(chunk)));
        }
        let ended = filter.end();
        let metered = *ended.metered();
        out.extend(ended.finish(None));
        assert!(out.concat() == event.as_bytes(), "chunks of {size}");
        assert_eq!(metered.usage, Some(Usage::reported(100_000, 300)), "chunks of {size}");
        assert_eq!((metered.ending, metered.content), (Ending::Complete, Content::Some));
    }
}
