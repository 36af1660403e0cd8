//! The decoder against another one, and every way to cut a stream.

use proptest::prelude::*;

use super::*;

/// Reads a whole stream at once, line by line, as the standard tells it: an independent oracle.
/// Gives the data of each event that an empty line ends.
fn oracle(stream: &str) -> Vec<String> {
    let text = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut events = Vec::new();
    let mut data: Vec<&str> = Vec::new();
    // What follows the last line end is not a line, and ends no event.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.split('\n') {
        if line.is_empty() {
            if !data.is_empty() {
                events.push(data.join("\n"));
            }
            data.clear();
        } else if line == "data" {
            data.push("");
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value));
        }
    }
    events
}

/// The frames and the rest of a stream that comes in these chunks.
fn decode(chunks: impl IntoIterator<Item = Bytes>) -> (Vec<Bytes>, Rest) {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for chunk in chunks {
        for frame in decoder.push(chunk) {
            let Frame::Event(event) = frame else { panic!("too long") };
            events.push(event);
        }
    }
    (events, decoder.finish())
}

fn rest_bytes(rest: &Rest) -> &[u8] {
    match rest {
        Rest::Nothing => b"",
        Rest::Event(bytes) | Rest::Unterminated(bytes) => bytes,
    }
}

fn data_of(events: &[Bytes], rest: &Rest) -> Vec<String> {
    let last = if let Rest::Event(event) = rest { Some(event) } else { None };
    let all = events.iter().chain(last).filter_map(|it| data(it));
    all.map(|it| String::from_utf8(it.into_owned()).unwrap()).collect()
}

#[test]
fn an_event_in_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\ndata: c");
    let (events, rest) = decode([chunk.clone()]);
    assert_eq!(events, ["data: a\n\n", "data: b\n\n"]);
    assert_eq!(events[1].as_ptr(), chunk[9..].as_ptr());
    assert_eq!(rest, Rest::Unterminated(Bytes::from_static(b"data: c")));
}

#[test]
fn the_line_feed_of_a_cut_line_end_belongs_to_its_event() {
    let (events, rest) = decode(["data: a\r\n\r", "\ndata: b\r\r", "x"].map(Bytes::from));
    assert_eq!(events, ["data: a\r\n\r\n", "data: b\r\r"]);
    assert_eq!(rest, Rest::Unterminated(Bytes::from_static(b"x")));
    let (events, rest) = decode([Bytes::from_static(b"data: a\r\r")]);
    assert!(events.is_empty());
    assert_eq!(rest, Rest::Event(Bytes::from_static(b"data: a\r\r")));
}

/// Pieces of streams in which cuts are dangerous.
fn stream() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("\n\n"),
        Just("data: "),
        Just("data:"),
        Just("data"),
        Just(": comment"),
        Just("event: x"),
        Just(" "),
        Just("{\"a\":1}"),
        Just("[DONE]"),
        Just("é漢😀"),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|it| it.concat())
}

fn cut(stream: &str, cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let whole = Bytes::from(stream.to_owned());
    let mut at: Vec<_> = cuts.iter().map(|it| it.index(whole.len().saturating_add(1))).collect();
    at.extend([0, whole.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| whole.slice(pair[0]..pair[1])).collect()
}

proptest! {
    #[test]
    fn cuts_change_nothing_and_no_byte_is_lost(
        stream in stream(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (events, rest) = decode([Bytes::from(stream.clone())]);
        let mut all = events.concat();
        all.extend_from_slice(rest_bytes(&rest));
        prop_assert_eq!(String::from_utf8(all).unwrap(), stream.clone());
        prop_assert_eq!(data_of(&events, &rest), oracle(&stream));
        prop_assert_eq!(decode(cut(&stream, &cuts)), (events, rest));
    }

    #[test]
    fn arbitrary_bytes_come_out_as_they_went_in(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10),
    ) {
        let (events, rest) = decode(chunks.iter().cloned().map(Bytes::from));
        let mut all = events.concat();
        all.extend_from_slice(rest_bytes(&rest));
        prop_assert_eq!(all, chunks.concat());
        for event in &events {
            drop(data(event));
        }
    }
}
