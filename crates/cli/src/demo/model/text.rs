//! Words for the demo model: sentences put together by a number that the prompt decides.

/// Sentences are a subject, a verb, an object and a place, in this order.
const PARTS: [[&str; 8]; 4] = [
    [
        " The meter",
        " A careful agent",
        " The driver",
        " Every passenger",
        " The night bus",
        " A signed promise",
        " The ledger",
        " The conductor",
    ],
    [
        " counts",
        " remembers",
        " carries",
        " settles",
        " never forgets",
        " checks",
        " hands over",
        " writes down",
    ],
    [
        " each token",
        " the exact fare",
        " a small coin",
        " what was promised",
        " the last receipt",
        " an honest price",
        " the whole journey",
        " one clear answer",
    ],
    [
        " before the doors close.",
        " at every stop.",
        " without being asked.",
        " twice to be sure.",
        " in the morning light.",
        " on the chain.",
        " to the last unit.",
        " and rides on.",
    ],
];

/// A number for a text; equal texts have equal numbers (FNV-1a).
pub(super) fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The fewest tokens of an answer, and how many more there may be.
const ANSWER: (usize, u64) = (60, 64);

/// The whole answer to `prompt`: how long it is, the prompt decides as well.
pub(super) fn answer(prompt: &str) -> Vec<String> {
    let more = fingerprint(prompt).checked_rem(ANSWER.1).unwrap_or_default();
    tokens(prompt, ANSWER.0.saturating_add(usize::try_from(more).unwrap_or_default()))
}

/// The first `count` tokens of an answer to `prompt`; a token is a word with the space before it.
pub(super) fn tokens(prompt: &str, count: usize) -> Vec<String> {
    let mut state = fingerprint(prompt);
    let mut tokens: Vec<String> = Vec::with_capacity(count);
    while tokens.len() < count {
        for choices in &PARTS {
            // A step of a linear congruential generator (Knuth's MMIX), of which the high bits
            // choose.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let choice = choices.get(usize::try_from(state >> 61).unwrap_or_default());
            let words = choice.copied().unwrap_or_default().split_inclusive(' ');
            // `" a b"` splits into `" "`, `"a "`, `"b"`; a token begins with its space.
            tokens.extend(words.filter(|it| *it != " ").map(|it| format!(" {}", it.trim())));
        }
    }
    tokens.truncate(count);
    if let Some(first) = tokens.first_mut() {
        *first = first.trim_start().to_owned();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_by_themselves() {
        for prompt in ["", "hello", "What does a meter know?", "Tell me about the night bus."] {
            assert!((60..124).contains(&answer(prompt).len()), "{prompt}");
            assert_eq!(answer(prompt), answer(prompt));
        }
    }

    #[test]
    fn as_many_tokens_as_asked_for_and_the_same_again() {
        for count in [0, 1, 5, 64, 400] {
            assert_eq!(tokens("hello", count).len(), count);
        }
        assert_eq!(tokens("hello", 50), tokens("hello", 50));
        assert_ne!(tokens("hello", 50), tokens("goodbye", 50));
        let text = tokens("hello", 12).concat();
        assert!(!text.contains("  ") && !text.starts_with(' '), "{text}");
    }
}
