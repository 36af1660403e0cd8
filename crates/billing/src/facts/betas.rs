//! Versions of the Anthropic API that a header asks for, and that make every token dearer.

/// How betas begin that change what a token costs: prompts of a million tokens are dearer from the
/// 200 000th on.
const DEAR: &[&str] = &["context-1m"];

/// The first beta in an `anthropic-beta` header (names, with commas between) for which no price of
/// ours is meant. Those that need a field in the body are refused there.
pub fn unpriced_beta(header: &str) -> Option<&str> {
    let mut names = header.split(',').map(str::trim);
    names.find(|name| {
        let name = name.to_ascii_lowercase();
        DEAR.iter().any(|it| name.starts_with(it))
    })
}
