//! The specification's closed set of codes for why a payment was not taken.
//!
//! Sources: x402 v2 §9 for the core codes; the npm package `@x402/evm` 2.27.0 for those of `exact`,
//! `upto`, Permit2 and gas sponsoring on EVM networks, where it is finer than §9 and spells some cases
//! differently. Both spellings are known here: ours is the package's, a remote facilitator may use
//! either.

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
    /// The wallet of an ERC-6492 signature could not be deployed as the signature says.
    SmartWalletDeploymentFailed,
    /// The payment's or the demand's scheme is not `upto`.
    InvalidUptoEvmScheme,
    /// `upto`: the payment's and the demand's network differ.
    InvalidUptoEvmNetworkMismatch,
    /// `upto`: the transaction was mined and failed, or did not move the money.
    InvalidUptoEvmTransactionFailed,
    /// `upto`: more is to be settled than was authorised.
    InvalidUptoEvmPayloadSettlementExceedsAmount,
    /// `upto`: the authorisation names another facilitator.
    UptoFacilitatorMismatch,
    /// Permit2: somebody else than the scheme's proxy may move the money.
    InvalidPermit2Spender,
    /// Permit2: the authorisation pays somebody else.
    InvalidPermit2RecipientMismatch,
    /// Permit2: the deadline is past, or too near to settle in time.
    Permit2DeadlineExpired,
    /// Permit2: `witness.validAfter` is in the future.
    Permit2NotYetValid,
    /// Permit2: the permitted amount is not the demanded one.
    Permit2AmountMismatch,
    /// Permit2: the permitted token is not the demanded asset.
    Permit2TokenMismatch,
    /// Permit2: the signature is not the payer's over these fields.
    InvalidPermit2Signature,
    /// The payer must let Permit2 spend the token first, and nobody sponsors that.
    Permit2AllowanceRequired,
    /// Permit2: the chain would refuse the transfer for a reason not told apart.
    Permit2SimulationFailed,
    /// Permit2: the payer has not got the amount.
    Permit2InsufficientBalance,
    /// The scheme's contracts are not on this network.
    Permit2ProxyNotDeployed,
    /// Permit2: the nonce was used or invalidated.
    Permit2InvalidNonce,
    /// The EIP-2612 permit is not over the permitted amount.
    Permit22612AmountMismatch,
    /// The EIP-2612 permit is not of the specified form, or not signed by the payer.
    InvalidEip2612ExtensionFormat,
    /// The EIP-2612 permit is somebody else's.
    Eip2612FromMismatch,
    /// The EIP-2612 permit is of another token.
    Eip2612AssetMismatch,
    /// The EIP-2612 permit is for another spender than Permit2.
    Eip2612SpenderNotPermit2,
    /// The EIP-2612 permit is expired, or too near to it.
    Eip2612DeadlineExpired,
    /// The sponsored approval is not of the specified form.
    InvalidErc20ApprovalExtensionFormat,
    /// The sponsored approval is somebody else's.
    Erc20ApprovalFromMismatch,
    /// The sponsored approval is of another token.
    Erc20ApprovalAssetMismatch,
    /// The sponsored approval is for another spender than Permit2.
    Erc20ApprovalSpenderNotPermit2,
    /// The sponsored transaction does not call the token.
    Erc20ApprovalTxWrongTarget,
    /// The sponsored transaction does not call `approve`.
    Erc20ApprovalTxWrongSelector,
    /// The sponsored transaction approves another spender than Permit2.
    Erc20ApprovalTxWrongSpender,
    /// The sponsored transaction's call is not `approve` to the letter, or approves too little.
    Erc20ApprovalTxInvalidCalldata,
    /// The sponsored transaction is not signed by the payer.
    Erc20ApprovalTxSignerMismatch,
    /// The sponsored transaction's signature is none.
    Erc20ApprovalTxInvalidSignature,
    /// The sponsored transaction cannot be read.
    Erc20ApprovalTxParseFailed,
    /// The sponsored transaction cannot be mined as things stand, or failed.
    Erc20ApprovalTxFailed,
    /// The sponsored transaction was not taken by the network.
    Erc20ApprovalBroadcastFailed,
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
    (Reason::SmartWalletDeploymentFailed, "smart_wallet_deployment_failed"),
    (Reason::InvalidUptoEvmScheme, "invalid_upto_evm_scheme"),
    (Reason::InvalidUptoEvmNetworkMismatch, "invalid_upto_evm_network_mismatch"),
    (Reason::InvalidUptoEvmTransactionFailed, "invalid_upto_evm_transaction_failed"),
    (
        Reason::InvalidUptoEvmPayloadSettlementExceedsAmount,
        "invalid_upto_evm_payload_settlement_exceeds_amount",
    ),
    (Reason::UptoFacilitatorMismatch, "upto_facilitator_mismatch"),
    (Reason::InvalidPermit2Spender, "invalid_permit2_spender"),
    (Reason::InvalidPermit2RecipientMismatch, "invalid_permit2_recipient_mismatch"),
    (Reason::Permit2DeadlineExpired, "permit2_deadline_expired"),
    (Reason::Permit2NotYetValid, "permit2_not_yet_valid"),
    (Reason::Permit2AmountMismatch, "permit2_amount_mismatch"),
    (Reason::Permit2TokenMismatch, "permit2_token_mismatch"),
    (Reason::InvalidPermit2Signature, "invalid_permit2_signature"),
    (Reason::Permit2AllowanceRequired, "permit2_allowance_required"),
    (Reason::Permit2SimulationFailed, "permit2_simulation_failed"),
    (Reason::Permit2InsufficientBalance, "permit2_insufficient_balance"),
    (Reason::Permit2ProxyNotDeployed, "permit2_proxy_not_deployed"),
    (Reason::Permit2InvalidNonce, "permit2_invalid_nonce"),
    (Reason::Permit22612AmountMismatch, "permit2_2612_amount_mismatch"),
    (Reason::InvalidEip2612ExtensionFormat, "invalid_eip2612_extension_format"),
    (Reason::Eip2612FromMismatch, "eip2612_from_mismatch"),
    (Reason::Eip2612AssetMismatch, "eip2612_asset_mismatch"),
    (Reason::Eip2612SpenderNotPermit2, "eip2612_spender_not_permit2"),
    (Reason::Eip2612DeadlineExpired, "eip2612_deadline_expired"),
    (Reason::InvalidErc20ApprovalExtensionFormat, "invalid_erc20_approval_extension_format"),
    (Reason::Erc20ApprovalFromMismatch, "erc20_approval_from_mismatch"),
    (Reason::Erc20ApprovalAssetMismatch, "erc20_approval_asset_mismatch"),
    (Reason::Erc20ApprovalSpenderNotPermit2, "erc20_approval_spender_not_permit2"),
    (Reason::Erc20ApprovalTxWrongTarget, "erc20_approval_tx_wrong_target"),
    (Reason::Erc20ApprovalTxWrongSelector, "erc20_approval_tx_wrong_selector"),
    (Reason::Erc20ApprovalTxWrongSpender, "erc20_approval_tx_wrong_spender"),
    (Reason::Erc20ApprovalTxInvalidCalldata, "erc20_approval_tx_invalid_calldata"),
    (Reason::Erc20ApprovalTxSignerMismatch, "erc20_approval_tx_signer_mismatch"),
    (Reason::Erc20ApprovalTxInvalidSignature, "erc20_approval_tx_invalid_signature"),
    (Reason::Erc20ApprovalTxParseFailed, "erc20_approval_tx_parse_failed"),
    (Reason::Erc20ApprovalTxFailed, "erc20_approval_tx_failed"),
    (Reason::Erc20ApprovalBroadcastFailed, "erc20_approval_broadcast_failed"),
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
