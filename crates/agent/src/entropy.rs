//! The one place that draws randomness: nonces, and the jitter of retries.

use std::time::Duration;

/// The machine gave no random bytes; nothing may be signed.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoEntropy(#[from] getrandom::Error);

/// A nonce that nobody can guess or meet twice.
pub(crate) fn nonce() -> Result<[u8; 32], NoEntropy> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// `span`, its second half random, so that many clients do not come back at one moment.
pub(crate) fn jittered(span: Duration) -> Duration {
    // Without randomness the whole span is waited: later is always safe.
    let Ok(random) = getrandom::u32() else { return span };
    let half = span.checked_div(2).unwrap_or_default();
    let share = half.as_millis().saturating_mul(u128::from(random)) >> 32;
    half.saturating_add(Duration::from_millis(u64::try_from(share).unwrap_or(u64::MAX)))
}
