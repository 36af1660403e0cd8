//! `exact` by EIP-3009: one signed, single-use authorisation that the token itself carries out.
//!
//! Sources: EIP-3009; x402 v2, scheme `exact` on EVM: `{signature, authorization}`, where numbers are
//! decimal strings and the nonce is 32 bytes of hexadecimal.

use alloy_primitives::{Address, B256, U256, b256};
use farebox_protocol::Reason;
use farebox_protocol::wire::{Object, PaymentPayload, PaymentRequirements};
use serde_json::{Value, json};

use super::abi;
use super::authorization::{self as read, Authorization, Limit, Signed, bad, identify};
use super::check::{EvmPayment, Refusal};
use super::eip712::{self, account, number};
use super::method::{Certainty, ContractCall, Method, Proof, Reasons, Seen, Traces};
use super::signed_by::SignedBy;
use super::token::EvmToken;
use crate::rpc::Log;
use crate::scheme::{BadPayload, Charging, Identified, Scheme, TransferMethod};

/// The scheme's name on the wire.
pub(crate) const EXACT: &str = "exact";

/// EIP-712 hash of EIP-3009's type `TransferWithAuthorization`.
const AUTHORIZATION_TYPE_HASH: B256 =
    b256!("0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");

/// `transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)`
const TRANSFER_WITH_AUTHORIZATION: [u8; 4] = [0xe3, 0xee, 0x16, 0x0e];
/// `transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)`: what contracts
/// sign is of any length.
const TRANSFER_WITH_SIGNATURE: [u8; 4] = [0xcf, 0x09, 0x29, 0x95];
/// The calls of an EIP-3009 token that move money by an authorisation and do nothing else.
pub(crate) const TRANSFERS: [[u8; 4]; 2] = [TRANSFER_WITH_AUTHORIZATION, TRANSFER_WITH_SIGNATURE];
/// `authorizationState(address,bytes32)`
const AUTHORIZATION_STATE: [u8; 4] = [0xe9, 0x4a, 0x01, 0x02];

/// `AuthorizationUsed(address,bytes32)`
const AUTHORIZATION_USED: B256 =
    b256!("0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");
/// `AuthorizationCanceled(address,bytes32)`
const AUTHORIZATION_CANCELED: B256 =
    b256!("0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81");

static REASONS: Reasons = Reasons {
    scheme: Reason::InvalidExactEvmScheme,
    network: Reason::InvalidExactEvmNetworkMismatch,
    spender: Reason::InvalidPayload,
    token: Reason::InvalidPayload,
    recipient: Reason::InvalidExactEvmRecipientMismatch,
    facilitator: Reason::InvalidPayload,
    amount: Reason::InvalidExactEvmPayloadAuthorizationValueMismatch,
    over: Reason::InvalidExactEvmPayloadAuthorizationValueMismatch,
    late: Reason::InvalidExactEvmPayloadAuthorizationValidBefore,
    early: Reason::InvalidExactEvmPayloadAuthorizationValidAfter,
    signature: Reason::InvalidExactEvmSignature,
    used: Reason::InvalidExactEvmNonceAlreadyUsed,
    balance: Reason::InvalidExactEvmInsufficientBalance,
    simulation: Reason::InvalidExactEvmTransactionSimulationFailed,
    failed: Reason::InvalidExactEvmTransactionFailed,
    no_contract: Reason::AssetNotDeployedContract,
    not_supported: Reason::InvalidExactEvmEip3009NotSupported,
};

/// `exact` by EIP-3009: one signed, single-use authorisation over exactly the demanded amount.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

impl Scheme for Exact {
    fn name(&self) -> &'static str {
        EXACT
    }

    fn method(&self) -> TransferMethod {
        TransferMethod::Eip3009
    }

    fn word(&self) -> &'static str {
        EXACT
    }

    fn charging(&self) -> Charging {
        Charging::Whole
    }

    fn namespace(&self) -> &'static str {
        "eip155"
    }

    fn identify(
        &self,
        payload: &PaymentPayload,
        requirements: &PaymentRequirements,
    ) -> Result<Identified, BadPayload> {
        identify(self, payload, requirements)
    }

    fn extra(&self, _facilitator: Option<&str>) -> Object {
        Object::new()
    }

    fn used(&self) -> &'static Reason {
        &REASONS.used
    }
}

impl Method for Exact {
    fn reasons(&self) -> &'static Reasons {
        &REASONS
    }

    fn member(&self) -> &'static str {
        "authorization"
    }

    fn read<'a>(&self, payload: &'a Value, asset: Address) -> Result<Signed<'a>, BadPayload> {
        let place = ("payload.authorization", "an EIP-3009 authorization object");
        let object = read::member(payload, self.member(), place)?;
        let (after, before) =
            ("payload.authorization.validAfter", "payload.authorization.validBefore");
        let authorization = Authorization {
            payer: read::address(object, "from", "payload.authorization.from")?,
            pay_to: read::address(object, "to", "payload.authorization.to")?,
            token: asset,
            spender: asset,
            value: read::units(object, "value", "payload.authorization.value")?,
            valid_after: read::seconds(object, "validAfter", after)?,
            limit: Limit::Before(read::seconds(object, "validBefore", before)?),
            nonce: nonce(object)?,
            settler: None,
        };
        Ok(Signed { authorization, signature: read::signature(payload)? })
    }

    /// The names that the token has, because they are what was signed under.
    fn check_extra(&self, token: &EvmToken, offer: &PaymentRequirements) -> Result<(), Refusal> {
        let config = token.config();
        for (key, expected, mismatch) in [
            ("name", &config.name, Reason::InvalidExactEvmTokenNameMismatch),
            ("version", &config.version, Reason::InvalidExactEvmTokenVersionMismatch),
        ] {
            let found = offer.extra.get(key).and_then(Value::as_str).unwrap_or_default();
            if found.is_empty() {
                let message = format!("expected the token's EIP-712 {key} in `extra.{key}`");
                return Err(Refusal::new(Reason::InvalidExactEvmMissingEip712Domain, message));
            }
            if found != expected {
                let message = format!("expected `extra.{key}` to be `{expected}`, found `{found}`");
                return Err(Refusal::new(mismatch, message));
            }
        }
        Ok(())
    }

    fn spender(&self, token: Address) -> Address {
        token
    }

    fn nonce_keeper(&self, token: Address) -> Address {
        token
    }

    fn contracts(&self) -> &'static [(&'static str, Address)] {
        &[]
    }

    fn digest(&self, token: &EvmToken, authorization: &Authorization) -> B256 {
        let [from, to, value, after, before, nonce] = words(authorization);
        let fields = [AUTHORIZATION_TYPE_HASH, from, to, value, after, before, nonce];
        eip712::digest(token.domain_separator().into(), eip712::hash_words(&fields))
    }

    fn use_query(&self, it: &Authorization) -> ContractCall {
        authorization_state(it.token, it.payer, it.nonce)
    }

    fn is_used(&self, _authorization: &Authorization, word: B256) -> Option<bool> {
        match U256::from_be_bytes(word.0) {
            U256::ZERO => Some(false),
            it if it == U256::from(1) => Some(true),
            _ => None,
        }
    }

    fn allowance_query(&self, _authorization: &Authorization) -> Option<ContractCall> {
        None
    }

    fn settle_calls(&self, payment: &EvmPayment) -> Vec<ContractCall> {
        let words = words(&payment.authorization);
        let input = match &payment.signed_by {
            SignedBy::Key(signature) => {
                let v = number(U256::from(signature.v()));
                let words = [words.as_slice(), &[v, signature.r(), signature.s()]].concat();
                abi::encode(TRANSFER_WITH_AUTHORIZATION, &words)
            }
            SignedBy::Wallet(wallet) => {
                abi::encode_with_bytes(TRANSFER_WITH_SIGNATURE, &words, &wallet.bytes)
            }
        };
        vec![ContractCall { to: payment.authorization.token, input }]
    }

    fn traces(&self, it: &Authorization) -> Traces {
        let events = [AUTHORIZATION_USED, AUTHORIZATION_CANCELED];
        Traces {
            addresses: vec![it.token],
            topics: json!([events, account(it.payer), it.nonce]),
            certainty: Certainty::Always,
        }
    }

    fn is_trace(&self, payment: &EvmPayment, log: &Log) -> bool {
        let it = &payment.authorization;
        log.address == it.token
            && [AUTHORIZATION_USED, AUTHORIZATION_CANCELED]
                .iter()
                .any(|event| log.topics == [*event, account(it.payer), it.nonce])
    }

    /// EIP-3009 tokens emit `AuthorizationUsed` and `Transfer` back to back. Nothing may stand between
    /// the payment's two, so that one `Transfer` proves one payment, whatever else a payer's contract
    /// does with other nonces in the same transaction (attack A7) or during a token's callbacks. A
    /// status flag alone proves nothing: some tokens do not revert on a used nonce.
    fn proof(&self, payment: &EvmPayment, seen: Seen<'_>) -> Proof {
        let it = &payment.authorization;
        let value = U256::from(it.value.units());
        let by_token = || seen.logs.iter().filter(|log| log.address == it.token && !log.removed);
        let is_transfer = |log: &Log| log.topics.first() == Some(&abi::TRANSFER);
        let moves_it = |log: &Log| abi::is_transfer(log, it.token, [it.payer, it.pay_to], value);
        let is_use = |log: &&Log| log.topics == [AUTHORIZATION_USED, account(it.payer), it.nonce];
        let mut verdict = Proof::Unrelated;
        for used in by_token().filter(is_use) {
            let next = used.index.checked_add(U256::from(1));
            let unclear = match by_token().find(|log| Some(log.index) == next) {
                Some(next) if moves_it(next) => return Proof::Paid,
                // The use of the nonce moved something else.
                Some(next) if is_transfer(next) => false,
                Some(_) | None => by_token().any(moves_it),
            };
            verdict = match (verdict, unclear) {
                (Proof::Unclear, _) | (_, true) => Proof::Unclear,
                (_, false) => Proof::Spent,
            };
        }
        let cancelled = by_token().any(|log| self.is_trace(payment, log));
        if verdict == Proof::Unrelated && cancelled { Proof::Spent } else { verdict }
    }
}

/// Whether a nonce was used or cancelled.
pub(crate) fn authorization_state(token: Address, payer: Address, nonce: B256) -> ContractCall {
    let input = abi::encode(AUTHORIZATION_STATE, &[account(payer), nonce]);
    ContractCall { to: token, input }
}

/// The members of what was signed, in their order.
fn words(it: &Authorization) -> [B256; 6] {
    [
        account(it.payer),
        account(it.pay_to),
        number(U256::from(it.value.units())),
        number(it.valid_after),
        number(it.limit.seconds()),
        it.nonce,
    ]
}

fn nonce(object: &Value) -> Result<B256, BadPayload> {
    let expected = bad("payload.authorization.nonce", "`0x` and 64 hexadecimal digits");
    let digits =
        read::text(object, "nonce").and_then(|it| it.strip_prefix("0x")).ok_or(expected.clone())?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| expected)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests;
