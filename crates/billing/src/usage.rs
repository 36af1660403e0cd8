//! What a request consumed.

use serde::{Deserialize, Serialize};

/// What a request consumed, as metered; part of the receipt.
///
/// Made by [`Usage::reported`] or [`Usage::estimated`], so that kinds can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// Those of the prompt tokens that the upstream had cached.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_input_tokens: u64,
    /// Those of the prompt tokens that the upstream wrote to its cache; at some APIs they are dearer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_input_tokens: u64,
    /// Completion tokens over all choices, reasoning included.
    pub output_tokens: u64,
    /// Those of the completion tokens that were spent on reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reasoning_tokens: u64,
    /// Who says so.
    pub basis: Basis,
}

/// Where a usage comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The upstream told it.
    Reported,
    /// The upstream did not; it was worked out from the bytes of text on both sides.
    #[default]
    Estimated,
}

impl Usage {
    /// What the upstream told.
    pub const fn reported(input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            input_tokens,
            cached_input_tokens: 0,
            cache_write_input_tokens: 0,
            output_tokens,
            reasoning_tokens: 0,
            basis: Basis::Reported,
        }
    }

    /// What was worked out from the text.
    pub const fn estimated(input_tokens: u64, output_tokens: u64) -> Self {
        Self { basis: Basis::Estimated, ..Self::reported(input_tokens, output_tokens) }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        let full = Usage {
            cached_input_tokens: 3,
            cache_write_input_tokens: 1,
            reasoning_tokens: 2,
            ..Usage::reported(9, 7)
        };
        for (usage, text) in [
            (Usage::estimated(1, 2), r#"{"inputTokens":1,"outputTokens":2,"basis":"estimated"}"#),
            (
                full,
                r#"{"inputTokens":9,"cachedInputTokens":3,"cacheWriteInputTokens":1,"outputTokens":7,"reasoningTokens":2,"basis":"reported"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&usage).unwrap(), text);
            assert_eq!(serde_json::from_str::<Usage>(text).unwrap(), usage);
        }
    }
}
