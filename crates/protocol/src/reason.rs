//! The specification's closed set of codes for why a payment was not taken.
//!
//! Sources: x402 v2 §9 for the core codes; the npm package `@x402/evm` 2.27.0 for those of `exact`
//! on EVM networks, where it is finer than §9 and spells some cases differently. Both spellings are
//! known here: ours is the package's, a remote facilitator may use either.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `invalidReason` and `errorReason` (x402 v2 §9 and the scheme texts).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The payer has not got the amount.
    InsufficientFunds,
    /// `validAfter` is not in the past.
    InvalidExactEvmPayloadAuthorizationValidAfter,
    /// `validBefore` is past, or too near to settle in time.
    InvalidExactEvmPayloadAuthorizationValidBefore,
    /// The authorised value is not the demanded amount.
    InvalidExactEvmPayloadAuthorizationValue,
    /// The signature is not the payer's over these fields on this token.
    InvalidExactEvmPayloadSignature,
    /// The authorisation pays somebody else.
    InvalidExactEvmPayloadRecipientMismatch,
    /// `extra.name` or `extra.version` is missing.
    MissingEip712Domain,
    /// `extra.name` is not the token's.
    InvalidExactEvmTokenNameMismatch,
    /// The authorisation was used or cancelled.
    InvalidExactEvmNonceAlreadyUsed,
    /// `extra.version` is not the token's.
    InvalidExactEvmTokenVersionMismatch,
    /// The payment's or the demand's scheme is not `exact`.
    InvalidExactEvmScheme,
    /// The payment's and the demand's network differ.
    InvalidExactEvmNetworkMismatch,
    /// `extra.name` or `extra.version` is missing.
    InvalidExactEvmMissingEip712Domain,
    /// The authorisation pays somebody else.
    InvalidExactEvmRecipientMismatch,
    /// The signature is not the payer's over these fields on this token, or not of the one
    /// canonical form.
    InvalidExactEvmSignature,
    /// The authorised value is not the demanded amount.
    InvalidExactEvmPayloadAuthorizationValueMismatch,
    /// The payer has not got the amount.
    InvalidExactEvmInsufficientBalance,
    /// The token has no EIP-3009.
    InvalidExactEvmEip3009NotSupported,
    /// The transaction was mined and the expected `Transfer` is not in its receipt.
    InvalidExactEvmTransferEventMismatch,
    /// There is no contract at the token's address.
    AssetNotDeployedContract,
    /// A signature of a wallet that is not deployed yet, from a factory that is not trusted.
    Eip6492FactoryNotAllowed,
    /// The scheme's payload has other forms, and this one is not served here.
    UnsupportedPayloadType,
    /// The chain would refuse the transfer for a reason not told apart above.
    InvalidExactEvmTransactionSimulationFailed,
    /// The transaction was mined and failed, or did not move the money.
    InvalidExactEvmTransactionFailed,
    /// Not a network that is served here, or the payment's and the demand's differ.
    InvalidNetwork,
    /// The payload is not of the form that its scheme has.
    InvalidPayload,
    /// The demand is not of the form that its scheme has.
    InvalidPaymentRequirements,
    /// The payment's and the demand's scheme differ.
    InvalidScheme,
    /// Not a scheme that is served here.
    UnsupportedScheme,
    /// Not a version that is served here.
    InvalidX402Version,
    /// Sent, and not seen to land yet: ask again with the same body.
    SettlementPending,
    /// Verification could not be carried out.
    UnexpectedVerifyError,
    /// Settlement could not be carried out.
    UnexpectedSettleError,
    /// A code that this program does not know, from a remote facilitator.
    Other(Box<str>),
}

/// Every code with its text on the wire: one row each.
const CODES: &[(Reason, &str)] = &[
    (Reason::InsufficientFunds, "insufficient_funds"),
    (
        Reason::InvalidExactEvmPayloadAuthorizationValidAfter,
        "invalid_exact_evm_payload_authorization_valid_after",
    ),
    (
        Reason::InvalidExactEvmPayloadAuthorizationValidBefore,
        "invalid_exact_evm_payload_authorization_valid_before",
    ),
    (
        Reason::InvalidExactEvmPayloadAuthorizationValue,
        "invalid_exact_evm_payload_authorization_value",
    ),
    (Reason::InvalidExactEvmPayloadSignature, "invalid_exact_evm_payload_signature"),
    (
        Reason::InvalidExactEvmPayloadRecipientMismatch,
        "invalid_exact_evm_payload_recipient_mismatch",
    ),
    (Reason::MissingEip712Domain, "missing_eip712_domain"),
    (Reason::InvalidExactEvmTokenNameMismatch, "invalid_exact_evm_token_name_mismatch"),
    (Reason::InvalidExactEvmNonceAlreadyUsed, "invalid_exact_evm_nonce_already_used"),
    (
        Reason::InvalidExactEvmTransactionSimulationFailed,
        "invalid_exact_evm_transaction_simulation_failed",
    ),
    (Reason::InvalidExactEvmTransactionFailed, "invalid_exact_evm_transaction_failed"),
    (Reason::InvalidExactEvmTokenVersionMismatch, "invalid_exact_evm_token_version_mismatch"),
    (Reason::InvalidExactEvmScheme, "invalid_exact_evm_scheme"),
    (Reason::InvalidExactEvmNetworkMismatch, "invalid_exact_evm_network_mismatch"),
    (Reason::InvalidExactEvmMissingEip712Domain, "invalid_exact_evm_missing_eip712_domain"),
    (Reason::InvalidExactEvmRecipientMismatch, "invalid_exact_evm_recipient_mismatch"),
    (Reason::InvalidExactEvmSignature, "invalid_exact_evm_signature"),
    (
        Reason::InvalidExactEvmPayloadAuthorizationValueMismatch,
        "invalid_exact_evm_payload_authorization_value_mismatch",
    ),
    (Reason::InvalidExactEvmInsufficientBalance, "invalid_exact_evm_insufficient_balance"),
    (Reason::InvalidExactEvmEip3009NotSupported, "invalid_exact_evm_eip3009_not_supported"),
    (Reason::InvalidExactEvmTransferEventMismatch, "invalid_exact_evm_transfer_event_mismatch"),
    (Reason::AssetNotDeployedContract, "asset_not_deployed_contract"),
    (Reason::Eip6492FactoryNotAllowed, "eip6492_factory_not_allowed"),
    (Reason::UnsupportedPayloadType, "unsupported_payload_type"),
    (Reason::InvalidNetwork, "invalid_network"),
    (Reason::InvalidPayload, "invalid_payload"),
    (Reason::InvalidPaymentRequirements, "invalid_payment_requirements"),
    (Reason::InvalidScheme, "invalid_scheme"),
    (Reason::UnsupportedScheme, "unsupported_scheme"),
    (Reason::InvalidX402Version, "invalid_x402_version"),
    (Reason::SettlementPending, "settlement_pending"),
    (Reason::UnexpectedVerifyError, "unexpected_verify_error"),
    (Reason::UnexpectedSettleError, "unexpected_settle_error"),
];

impl Reason {
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        if let Self::Other(text) = self {
            return text;
        }
        CODES.iter().find(|(code, _)| code == self).map_or("unexpected_verify_error", |it| it.1)
    }

    /// The code of a text; an unknown one is kept as it is.
    pub fn parse(text: &str) -> Self {
        let known = CODES.iter().find(|(_, it)| *it == text);
        known.map_or_else(|| Self::Other(text.into()), |(code, _)| code.clone())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_text_of_its_own() {
        for (code, text) in CODES {
            assert_eq!(Reason::parse(text), *code);
            assert_eq!(code.as_str(), *text);
            assert_eq!(CODES.iter().filter(|it| it.1 == *text).count(), 1);
        }
        let foreign = Reason::parse("invalid_something_new");
        assert_eq!(foreign.as_str(), "invalid_something_new");
    }
}
