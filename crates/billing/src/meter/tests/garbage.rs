//! What is no event stream at all, such as one that is still compressed: it passes through, it is
//! metered as far as it can be, and it is not kept.

use proptest::prelude::*;
use proptest::strategy::Union;

use super::*;
use crate::meter::sse::EVENT_BYTES_MAX;

/// The head of a gzip member (RFC 1952): magic, deflate, no flags, no time.
const GZIP: &[u8] = b"\x1F\x8B\x08\0\0\0\0\0\0\x03";
/// The most that is kept of what follows an end marker, beside the marker's own event.
const AFTER_END_MAX: usize = 64 * 1024;

/// Bytes that look compressed, of any length, without or with the line ends that random ones have.
fn noise(length: usize, seed: u64, line_ends: bool) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let plain = |it: u8| if !line_ends && matches!(it, b'\n' | b'\r') { b'.' } else { it };
    (0..length).map(|_| plain(next())).collect()
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let fixed: [&[u8]; 18] = [
        GZIP,
        b"\n\n",
        b"\r\n\r\n",
        b"\r",
        b"data: ",
        b"data: {\"choices\":[{\"delta\":{\"content\":\"",
        b"data: {\"usage\":",
        b"[DONE]",
        b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5}}}\n\n",
        b"data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"",
        b"data: {\"type\":\"message_stop\"}\n\n",
        b"data: {\"type\":\"response.output_text.delta\",\"delta\":\"abcdefgh\"}\n\n",
        b"data: {\"type\":\"response.completed\",\"response\":{\"output\":[\"x\"]}}\n\n",
        b"event: error\n",
        b"data: {\"type\":\"error\"}\n\n",
        b"\xEF\xBB\xBF",
        b"\xFF\xFE",
        b"",
    ];
    prop_oneof![
        6 => Union::new(fixed.map(|it| Just(it.to_vec()))),
        3 => (0_usize..3_000, any::<u64>()).prop_map(|(length, seed)| noise(length, seed, true)),
        3 => (0_usize..600_000, any::<u64>()).prop_map(|(length, seed)| noise(length, seed, false)),
        1 => (0_usize..70_000, any::<u64>()).prop_map(|(length, seed)| {
            [b"data: [DONE]\n\n", noise(length, seed, true).as_slice()].concat()
        }),
    ]
}

/// What came out while the stream went on, and what at its end.
fn pass(format: Format, pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>, Metered) {
    let mut filter = StreamFilter::new(format, &facts(UsageEvent::Hidden));
    let (mut sent, mut out) = (0_usize, Vec::new());
    for piece in pieces {
        for bytes in filter.push(Bytes::copy_from_slice(piece)) {
            out.extend_from_slice(&bytes);
        }
        sent = sent.checked_add(piece.len()).unwrap();
        // What has not come out is what is in memory.
        let kept = sent.checked_sub(out.len()).unwrap();
        assert!(kept <= EVENT_BYTES_MAX || filter.is_done(), "{kept} bytes are kept");
    }
    let ended = filter.end();
    let metered = *ended.metered();
    (out, ended.finish(None).concat(), metered)
}

/// Every format that is read.
fn format() -> impl Strategy<Value = Format> {
    let metered = Format::ALL.into_iter().filter(|it| it.is_metered());
    prop::sample::select(metered.collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn garbage_passes_and_is_not_kept(
        format in format(),
        pieces in prop::collection::vec(piece(), 0..16),
    ) {
        let all = pieces.concat();
        let (out, tail, metered) = pass(format, &pieces);
        prop_assert!(all.starts_with(&out), "bytes were made up, lost or moved");
        prop_assert!(tail.len() <= EVENT_BYTES_MAX.checked_add(AFTER_END_MAX).unwrap());
        let usage = metered.usage.unwrap();
        prop_assert!(usage.input_tokens <= 1_000 && usage.output_tokens <= 1_000);
        prop_assert!(metered.unread_bytes <= u64::try_from(all.len()).unwrap());
        // However it was cut, the same is metered.
        let (again, _, whole) = pass(format, &[all]);
        prop_assert_eq!(metered, whole);
        prop_assert_eq!(out.len(), again.len());
    }

    #[test]
    fn an_answer_of_garbage_is_metered_within_the_bounds(
        format in format(),
        pieces in prop::collection::vec(piece(), 0..6),
    ) {
        let metered = meter_answer(format, &facts(UsageEvent::Hidden), &pieces.concat());
        prop_assert!(metered.usage.unwrap().output_tokens <= 1_000);
    }
}

/// A compressed stream has no line that could end an event: it goes on as it comes, and the client
/// is not served for nothing.
#[test]
fn a_compressed_stream_is_passed_on_and_counted() {
    let chunks: Vec<_> =
        std::iter::once(GZIP.to_vec()).chain((0..64).map(|it| noise(65_536, it, false))).collect();
    let (out, tail, metered) = pass(Format::OpenAiChat, &chunks);
    assert_eq!([out, tail].concat(), chunks.concat());
    let length: usize = chunks.iter().map(Vec::len).sum();
    assert_eq!(metered.unread_bytes, u64::try_from(length).unwrap());
    assert_eq!((metered.ending, metered.content), (Ending::Cut, Content::Some));
}
