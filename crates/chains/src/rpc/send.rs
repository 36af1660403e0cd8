//! Sending a signed transaction, and what a node's answer says of where it is now.

use serde_json::json;

use super::{Answer, Call, NodeError, ROUNDS, RpcClient, RpcError};

/// Where a signed transaction is after it was handed to the nodes.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// A node has it.
    Accepted,
    /// No node has it, and none will: the same bytes may be sent again.
    Refused(RpcError),
    /// Its nonce was taken by another transaction, mined or waiting.
    NonceTaken(NodeError),
    /// Its nonce leaves a gap that the node does not keep.
    NonceTooHigh(NodeError),
    /// A node may have it.
    Unknown(RpcError),
}

/// What one refusal means. Nodes agree on no codes, so their words decide; the words are those of
/// geth, erigon, nethermind, besu, reth, anvil and Arbitrum's sequencer.
const KNOWN: &[&str] = &[
    "already known",
    "known transaction",
    "already imported",
    "already in mempool",
    "alreadyknown",
];
const NONCE_TAKEN: &[&str] = &[
    "nonce too low",
    "nonce is too low",
    "oldnonce",
    "replacement transaction",
    "nonce has already",
];
const NONCE_TOO_HIGH: &[&str] =
    &["nonce too high", "nonce gap", "gapped-nonce", "nonce is too high"];
const REFUSED: &[&str] = &[
    "revert",
    "insufficient funds",
    "insufficient balance",
    "underpriced",
    "less than block base fee",
    "lower than the block base fee",
    "feetoolow",
    "fee too low",
    "gas tip cap",
    "intrinsic gas",
    "gas limit",
    "out of gas",
    "exceeds the configured cap",
    "txpool is full",
    "pool is full",
    "invalid chain id",
    "invalid sender",
    "not supported",
    "unknown transaction type",
    "rate limit",
    "too many requests",
    "limit exceeded",
];
/// JSON-RPC's own codes for requests that were not understood, and "limit exceeded" (EIP-1474).
const REFUSED_CODES: &[i64] = &[-32_700, -32_600, -32_601, -32_602, -32_004, -32_005, -32_006];

impl RpcClient {
    /// Hands a signed transaction to the endpoints in turn, until one has it.
    ///
    /// Where one may have it already, a refusal by another proves nothing.
    pub(crate) async fn send_raw(&self, bytes: &[u8]) -> Sent {
        let raw = json!([format!("0x{}", hex::encode(bytes))]);
        let call = Call::new("eth_sendRawTransaction", raw);
        let mut outcome = Sent::Refused(RpcError::NoEndpoint);
        for _ in 0..ROUNDS {
            for (_, endpoint) in self.in_turn() {
                let answer = self.single_at(endpoint, &call).await;
                outcome = match (outcome, judge(answer)) {
                    (_, Sent::Accepted) => return Sent::Accepted,
                    (Sent::Unknown(error), _) | (_, Sent::Unknown(error)) => Sent::Unknown(error),
                    (_, taken @ (Sent::NonceTaken(_) | Sent::NonceTooHigh(_))) => return taken,
                    (_, Sent::Refused(error)) => Sent::Refused(error),
                };
            }
            if !matches!(&outcome, Sent::Unknown(error) if error.is_broken_off()) {
                break;
            }
        }
        outcome
    }
}

fn judge(answer: Result<Answer, RpcError>) -> Sent {
    let error = match answer {
        Ok(Ok(_)) => return Sent::Accepted,
        Ok(Err(error)) => error,
        Err(error) if error.maybe_done() => return Sent::Unknown(error),
        Err(error) => return Sent::Refused(error),
    };
    let words = error.message.to_ascii_lowercase();
    let says = |list: &[&str]| list.iter().any(|it| words.contains(it));
    // "Unknown transaction type" knows nothing of the transaction.
    let known = words.replace("unknown", "");
    if KNOWN.iter().any(|it| known.contains(it)) {
        return Sent::Accepted;
    }
    if says(NONCE_TAKEN) {
        return Sent::NonceTaken(error);
    }
    if says(NONCE_TOO_HIGH) {
        return Sent::NonceTooHigh(error);
    }
    let refused = says(REFUSED) || REFUSED_CODES.contains(&error.code);
    let error = RpcError::Node { method: "eth_sendRawTransaction", error };
    if refused { Sent::Refused(error) } else { Sent::Unknown(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: i64, message: &str, expected: &str) {
        let error = NodeError { code, message: message.to_owned(), data: None };
        let sent = judge(Ok(Err(error)));
        assert!(format!("{sent:?}").starts_with(expected), "{message}: {sent:?}");
    }

    #[test]
    fn refusals_are_told_apart() {
        check(-32000, "already known", "Accepted");
        check(-32003, "transaction already imported", "Accepted");
        check(-32000, "known transaction: 0x1f", "Accepted");
        check(-32000, "unknown transaction type", "Refused");
        check(-32000, "unknown transaction", "Unknown");
        check(-32000, "nonce too low: next nonce 5, tx nonce 4", "NonceTaken");
        check(-32000, "replacement transaction underpriced", "NonceTaken");
        check(-32000, "nonce too high", "NonceTooHigh");
        check(-32000, "insufficient funds for gas * price + value: balance 0", "Refused");
        check(-32003, "Insufficient funds for gas * price + value", "Refused");
        check(-32000, "transaction underpriced: gas tip cap 0", "Refused");
        check(-32003, "max fee per gas less than block base fee", "Refused");
        check(-32602, "invalid argument", "Refused");
        check(3, "execution reverted", "Refused");
        check(-32603, "internal error", "Unknown");
        check(-32000, "request timed out", "Unknown");
    }
}
