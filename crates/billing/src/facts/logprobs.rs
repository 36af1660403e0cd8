//! Log probabilities: an answer may have many for each token, and grows with them to a size that
//! cannot be withheld until it is paid for, so their number is bounded before the work is done.

use super::fields::{count, count_at};
use super::members::Members;
use super::{BadBody, Pointer};

/// The most log probabilities in one answer. Each takes up to 256 bytes where the answer is
/// indented: so 8 MiB in all, half of what a gateway withholds by default.
const LOGPROBS_MAX: u64 = 32_768;
/// The most bytes of prompt that `echo` may repeat in one answer. Escaped, each takes up to six.
const ECHOED_BYTES_MAX: u64 = 1 << 20;

/// Refuses more log probabilities than an answer of so many tokens can have.
pub(super) fn refuse_too_many(members: &Members<'_>, tokens: u64) -> Result<(), BadBody> {
    let at = Pointer::default().name("logprobs");
    let asked = match members.get("logprobs") {
        None | Some("false") => 0,
        Some("true") => 1,
        Some(number) => count_at(number, &at, 0)?.saturating_add(1),
    };
    let top = count(members, "top_logprobs", 0)?.map_or(0, |it| it.saturating_add(1));
    // Of the Responses API.
    let included = members.get("include").is_some_and(|it| it.contains("logprobs"));
    let each = asked.max(top).max(u64::from(included));
    let all = each.saturating_mul(tokens);
    if all <= LOGPROBS_MAX {
        return Ok(());
    }
    let at = if asked < top { Pointer::default().name("top_logprobs") } else { at };
    Err(at.unexpected(
        format_args!("at most {LOGPROBS_MAX} log probabilities in the whole answer"),
        format_args!("up to {all}, {each} for each of {tokens} tokens"),
    ))
}

/// Refuses an `echo` of so many bytes that the answer could not be withheld.
pub(super) fn refuse_long_echo(bytes: u64) -> Result<(), BadBody> {
    if bytes <= ECHOED_BYTES_MAX {
        return Ok(());
    }
    let expected = format_args!("a prompt of which at most {ECHOED_BYTES_MAX} bytes are repeated");
    Err(Pointer::default().name("echo").unexpected(expected, bytes))
}
