//! Golden matrix: each format × each fixture, as shapes that servers really send.
//!
//! A fixture's snapshot says what was metered and how the client's stream differs from the
//! upstream's. However the fixture is cut, the outcome is the same.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use farebox_billing::{Ceiling, Format, Metered, RequestFacts, StreamFilter, meter_answer};
use proptest::prelude::*;

const RECEIPT: &str = "the receipt";

/// Fixtures of a format by the ending of their names.
fn fixtures(format: Format, ending: &str) -> Vec<(String, Vec<u8>)> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format.as_str());
    let entries = std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|it| it.extension().is_some_and(|it| it == ending)).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// The facts of a small request that did not ask for the usage of its stream.
fn facts(format: Format) -> RequestFacts {
    let body = match format {
        Format::OpenAiChat => {
            r#"{"model":"m","messages":[{"role":"user","content":"Say hello."}],"stream":true}"#
        }
        Format::OpenAiCompletions => r#"{"model":"m","prompt":"Say hello.","stream":true}"#,
        Format::OpenAiEmbeddings => r#"{"model":"m","input":"Say hello."}"#,
        Format::OpenAiResponses => r#"{"model":"m","input":"Say hello.","stream":true}"#,
        Format::AnthropicMessages => {
            r#"{"model":"m","max_tokens":4096,"messages":[{"role":"user","content":"Say hello."}],
                "stream":true}"#
        }
        Format::Opaque => "",
    };
    RequestFacts::read(format, body.as_bytes(), &Ceiling::default()).unwrap()
}

/// How many streams and answers each format has: a fixture that is not found is not tested.
const FIXTURES: [(Format, usize, usize); 5] = [
    (Format::OpenAiChat, 14, 7),
    (Format::OpenAiCompletions, 10, 6),
    (Format::OpenAiEmbeddings, 1, 9),
    (Format::OpenAiResponses, 15, 11),
    (Format::AnthropicMessages, 20, 9),
];

/// What the client reads, and what was metered.
fn run<'a>(format: Format, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Metered) {
    let mut filter = StreamFilter::new(format, &facts(format));
    let mut read = Vec::new();
    for chunk in chunks {
        read.extend(filter.push(Bytes::copy_from_slice(chunk)));
    }
    let ended = filter.end();
    let metered = *ended.metered();
    read.extend(ended.finish(Some(RECEIPT)));
    (read.concat(), metered)
}

/// The lines of the upstream's stream, each with a mark for what became of it.
fn difference(sent: &[u8], read: &[u8]) -> String {
    let (sent, read) = (String::from_utf8_lossy(sent), String::from_utf8_lossy(read));
    let mut marked = Vec::new();
    let mut left = read.split('\n').peekable();
    for line in sent.split('\n') {
        while let Some(receipt) = left.next_if(|it| it.contains(RECEIPT)) {
            marked.push(format!("+ {receipt}"));
        }
        let mark = if left.next_if(|it| *it == line).is_some() { ' ' } else { '-' };
        marked.push(format!("{mark} {line}"));
    }
    marked.extend(left.map(|it| format!("+ {it}")));
    let lines: Vec<_> = marked.iter().map(|it| it.trim_end()).collect();
    lines.join("\n")
}

#[test]
fn streams() {
    for (format, streams, _) in FIXTURES {
        let fixtures = fixtures(format, "sse");
        assert_eq!(fixtures.len(), streams, "{format}");
        for (name, sent) in &fixtures {
            check_stream(format, name, sent);
        }
    }
}

fn check_stream(format: Format, name: &str, sent: &[u8]) {
    let (read, metered) = run(format, [sent]);
    for cut in 0..=sent.len() {
        let (head, tail) = sent.split_at(cut);
        assert_eq!(run(format, [head, tail]), (read.clone(), metered), "{name} cut at {cut}");
    }
    let text = format!("{metered:#?}\n\n{}", difference(sent, &read));
    insta::assert_snapshot!(format!("{format}__{name}_stream"), text);
}

#[test]
fn answers() {
    for (format, _, answers) in FIXTURES {
        let fixtures = fixtures(format, "json");
        assert_eq!(fixtures.len(), answers, "{format}");
        for (name, sent) in fixtures {
            let metered = meter_answer(format, &facts(format), &sent);
            insta::assert_snapshot!(format!("{format}__{name}_answer"), format!("{metered:#?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    /// Fixtures in any order, one after the other, in chunks of any sizes.
    #[test]
    fn no_way_to_cut_a_stream_matters(
        format in prop::sample::select(FIXTURES.map(|(format, ..)| format).to_vec()),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
        sizes in proptest::collection::vec(1_usize..200, 1..8),
    ) {
        let fixtures = fixtures(format, "sse");
        let sent: Vec<u8> = order.iter().flat_map(|it| it.get(&fixtures).1.clone()).collect();
        let whole = run(format, [sent.as_slice()]);
        let mut chunks = Vec::new();
        let mut rest = sent.as_slice();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        prop_assert_eq!(run(format, chunks), whole);
    }
}
