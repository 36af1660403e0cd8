//! Payments by Permit2: what the methods that go through one of x402's proxies have in common.
//!
//! The payer signs a Permit2 transfer whose spender is the proxy and whose witness names who gets the
//! money. Permit2 marks used nonces in a bitmap and says nothing of them in events, so what a
//! transaction was is read from its call. Sources: Permit2's `SignatureTransfer`; x402, schemes
//! `exact` and `upto` on EVM.

mod batched;

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, Bytes, U256, b256, keccak256};
use farebox_protocol::wire::PaymentRequirements;
use serde_json::{Value, json};

use super::abi;
use super::authorization::{self as read, Authorization, Limit, Signed, bad};
use super::check::{EvmPayment, Refusal};
use super::contracts::PERMIT2;
use super::eip712::{self, account, number};
use super::method::{Certainty, ContractCall, Method, Proof, Reasons, Rivals, Seen, Traces};
use super::sponsoring::Sponsoring;
use super::token::EvmToken;
use crate::rpc::Log;
use crate::scheme::{BadPayload, Scheme};

/// `nonceBitmap(address,uint256)`
pub(crate) const NONCE_BITMAP: [u8; 4] = [0x4f, 0xe0, 0x2b, 0x44];
/// `UnorderedNonceInvalidation(address,uint256,uint256)`
const INVALIDATION: B256 =
    b256!("0x3704902f963766a4e561bbaab6e6cdc1b1dd12f6e9e99648da8843b3f46b918d");
/// `Settled()`
const SETTLED: B256 = b256!("0x97088ec3606cfe8cc112180570d03fcde05f9b8e1bfef8e27784eaf5dd5691b6");
/// `SettledWithPermit()`
const SETTLED_WITH_PERMIT: B256 =
    b256!("0xde5b89d10fc800c459329c382fabfcad0be0ed7e5328e01fae04e507b09ef5d8");

/// How Permit2 and the proxies say why they revert.
const ERRORS: &[([u8; 4], &str)] = &[
    ([0x75, 0x66, 0x88, 0xfe], "InvalidNonce()"),
    ([0xcd, 0x21, 0xdb, 0x4f], "SignatureExpired(uint256)"),
    ([0x81, 0x5e, 0x1d, 0x64], "InvalidSigner()"),
    ([0x8b, 0xaa, 0x57, 0x9f], "InvalidSignature()"),
    ([0x4b, 0xe6, 0x32, 0x1b], "InvalidSignatureLength()"),
    ([0xb0, 0x66, 0x9c, 0xbc], "InvalidContractSignature()"),
    ([0x37, 0x28, 0xb8, 0x3d], "InvalidAmount(uint256)"),
    ([0x2c, 0x52, 0x11, 0xc6], "InvalidAmount()"),
    ([0xac, 0x6b, 0x05, 0xf5], "InvalidDestination()"),
    ([0x49, 0xe2, 0x7c, 0xff], "InvalidOwner()"),
    ([0xa6, 0x55, 0x39, 0xfa], "PaymentTooEarly()"),
    ([0x0f, 0x6f, 0xae, 0x87], "UnauthorizedFacilitator()"),
    ([0xfe, 0x64, 0xb4, 0xc7], "AmountExceedsPermitted()"),
    ([0x05, 0x0c, 0xda, 0x49], "Permit2612AmountMismatch()"),
    ([0x3e, 0xe5, 0xae, 0xb5], "ReentrancyGuardReentrantCall()"),
];

/// The name of an error of Permit2 or a proxy.
pub(crate) fn revert_name(data: &[u8]) -> Option<&'static str> {
    ERRORS.iter().find(|(selector, _)| data.starts_with(selector)).map(|(_, name)| *name)
}

/// How many words EIP-2612's permit takes before the others in `settleWithPermit`.
const PERMIT_BYTES: usize = 5 * 32;

/// A scheme whose money goes through a proxy of x402.
pub(crate) trait Permit2Scheme: Scheme {
    /// Which.
    fn proxy(&self) -> &'static Proxy;
}

/// A contract that spends by Permit2.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: Address,
    /// It and Permit2, with their names.
    pub(crate) contracts: &'static [(&'static str, Address)],
    pub(crate) settle: [u8; 4],
    pub(crate) settle_with_permit: [u8; 4],
    /// Whether the witness names who settles; it then says how much, too.
    pub(crate) settler: Settler,
    /// Its EIP-712 types.
    pub(crate) types: LazyLock<Types>,
    pub(crate) reasons: Reasons,
}

/// Who can settle through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settler {
    /// Anybody, the whole amount.
    Anybody,
    /// The facilitator that was signed, any amount up to the one that was signed.
    Facilitator,
}

/// Hashes of the EIP-712 types of what is signed.
#[derive(Debug)]
pub(crate) struct Types {
    transfer: B256,
    witness: B256,
}

impl Types {
    /// With this type `Witness`.
    pub(crate) fn of(witness: &str) -> Self {
        let transfer = format!(
            "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,\
             uint256 deadline,Witness witness){TOKEN_PERMISSIONS}{witness}"
        );
        Self { transfer: keccak256(transfer), witness: keccak256(witness) }
    }
}

const TOKEN_PERMISSIONS: &str = "TokenPermissions(address token,uint256 amount)";
static TOKEN_PERMISSIONS_TYPE: LazyLock<B256> = LazyLock::new(|| keccak256(TOKEN_PERMISSIONS));

impl<T: Permit2Scheme> Method for T {
    fn reasons(&self) -> &'static Reasons {
        &self.proxy().reasons
    }

    fn member(&self) -> &'static str {
        "permit2Authorization"
    }

    fn read<'a>(&self, payload: &'a Value, _asset: Address) -> Result<Signed<'a>, BadPayload> {
        let authorization = read_authorization(payload, self.member(), self.proxy().settler)?;
        Ok(Signed { authorization, signature: read::signature(payload)? })
    }

    /// The token's names are not signed under.
    fn check_extra(&self, _token: &EvmToken, _offer: &PaymentRequirements) -> Result<(), Refusal> {
        Ok(())
    }

    fn spender(&self, _token: Address) -> Address {
        self.proxy().address
    }

    fn nonce_keeper(&self, _token: Address) -> Address {
        PERMIT2
    }

    fn contracts(&self) -> &'static [(&'static str, Address)] {
        self.proxy().contracts
    }

    fn digest(&self, token: &EvmToken, it: &Authorization) -> B256 {
        let proxy = self.proxy();
        let witness: Vec<B256> =
            [proxy.types.witness].into_iter().chain(witness_words(it)).collect();
        let [permitted_token, amount, nonce, deadline] = permit_words(it);
        let permitted = [*TOKEN_PERMISSIONS_TYPE, permitted_token, amount];
        let transfer = [
            proxy.types.transfer,
            eip712::hash_words(&permitted),
            account(it.spender),
            nonce,
            deadline,
            eip712::hash_words(&witness),
        ];
        eip712::digest(domain_separator(token.chain_id()), eip712::hash_words(&transfer))
    }

    fn use_query(&self, it: &Authorization) -> ContractCall {
        let input = abi::encode(NONCE_BITMAP, &[account(it.payer), number(position(it).0)]);
        ContractCall { to: PERMIT2, input }
    }

    fn is_used(&self, it: &Authorization, word: B256) -> Option<bool> {
        Some(!(U256::from_be_bytes(word.0) & position(it).1).is_zero())
    }

    fn allowance_query(&self, it: &Authorization) -> Option<ContractCall> {
        Some(abi::allowance(it.token, it.payer, PERMIT2))
    }

    /// With the allowance that is there; and with the one that the payer signed, where one was sent.
    fn settle_calls(&self, payment: &EvmPayment) -> Vec<ContractCall> {
        let proxy = self.proxy();
        let words = settle_words(payment, proxy.settler);
        let signature = payment.signed_by.bytes();
        let call = |input: Bytes| ContractCall { to: proxy.address, input };
        let mut calls = vec![call(abi::encode_with_bytes(proxy.settle, &words, &signature))];
        if let Some(Sponsoring::Permit(permit)) = &payment.sponsoring {
            let words: Vec<B256> = permit.words().into_iter().chain(words).collect();
            calls.push(call(abi::encode_with_bytes(proxy.settle_with_permit, &words, &signature)));
        }
        calls
    }

    fn traces(&self, it: &Authorization) -> Traces {
        Traces {
            addresses: vec![it.token, PERMIT2],
            topics: json!([[abi::TRANSFER, INVALIDATION], account(it.payer)]),
            certainty: Certainty::Payments,
        }
    }

    fn is_trace(&self, payment: &EvmPayment, log: &Log) -> bool {
        let it = &payment.authorization;
        let transfer = [abi::TRANSFER, account(it.payer), account(it.pay_to)];
        log.address == it.token && log.topics == transfer || is_invalidation(it, log)
    }

    /// Only a transaction that calls the proxy itself, or through Multicall3 and nothing else besides,
    /// says which authorisations it settled; one through another contract could name any.
    fn proof(&self, payment: &EvmPayment, seen: Seen<'_>) -> Proof {
        let it = &payment.authorization;
        let proxy = self.proxy();
        let logs = || seen.logs.iter().filter(|log| !log.removed);
        let value = U256::from(payment.amount.units());
        let parties = [it.payer, it.pay_to];
        let moved = || logs().any(|log| abi::is_transfer(log, it.token, parties, value));
        if seen.call.to == proxy.address {
            return match settled_by(&seen.call.input, proxy) {
                Some(found) if [found.owner, found.nonce] != [account(it.payer), it.nonce] => {
                    Proof::Unrelated
                }
                Some(found) if found.words == settle_words(payment, proxy.settler) && moved() => {
                    Proof::Paid
                }
                Some(_) => Proof::Spent,
                None => Proof::Unrelated,
            };
        }
        if let Some(batch) = batched::read(payment, proxy, seen) {
            return batch.proof(payment);
        }
        if logs().any(|log| is_settlement(proxy, log)) && moved() {
            return Proof::Unclear;
        }
        if logs().any(|log| is_invalidation(it, log)) { Proof::Cancelled } else { Proof::Unrelated }
    }

    fn rivals(&self, payment: &EvmPayment, seen: Seen<'_>) -> Option<Rivals> {
        batched::read(payment, self.proxy(), seen)?.rivals(payment)
    }
}

/// Whether a proxy says that it settled something.
fn is_settlement(proxy: &Proxy, log: &Log) -> bool {
    let event = log.topics.first();
    log.address == proxy.address && (event == Some(&SETTLED) || event == Some(&SETTLED_WITH_PERMIT))
}

/// The settlement that a call of a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settled {
    /// The words before the signature, as [`settle_words`] makes them.
    words: Vec<B256>,
    owner: B256,
    nonce: B256,
}

fn settled_by(input: &Bytes, proxy: &Proxy) -> Option<Settled> {
    let (selector, rest) = input.split_at_checked(4)?;
    let rest = if selector == proxy.settle_with_permit {
        rest.get(PERMIT_BYTES..)?
    } else if selector == proxy.settle {
        rest
    } else {
        return None;
    };
    let (length, owner) = match proxy.settler {
        Settler::Anybody => (7, 4),
        Settler::Facilitator => (9, 5),
    };
    let words: Vec<B256> = rest.chunks_exact(32).take(length).map(B256::from_slice).collect();
    if words.len() != length {
        return None;
    }
    let (owner, nonce) = (*words.get(owner)?, *words.get(2)?);
    Some(Settled { words, owner, nonce })
}

/// The arguments of `settle` before the signature.
fn settle_words(payment: &EvmPayment, settler: Settler) -> Vec<B256> {
    let it = &payment.authorization;
    let mut words = permit_words(it).to_vec();
    if settler == Settler::Facilitator {
        words.push(number(U256::from(payment.amount.units())));
    }
    words.push(account(it.payer));
    words.extend(witness_words(it));
    words
}

fn permit_words(it: &Authorization) -> [B256; 4] {
    let amount = number(U256::from(it.value.units()));
    [account(it.token), amount, it.nonce, number(it.limit.seconds())]
}

fn witness_words(it: &Authorization) -> impl Iterator<Item = B256> {
    let facilitator = it.settler.map(account);
    [account(it.pay_to)].into_iter().chain(facilitator).chain([number(it.valid_after)])
}

/// The word of the bitmap that a nonce is in, and its bit there.
fn position(it: &Authorization) -> (U256, U256) {
    let nonce = U256::from_be_bytes(it.nonce.0);
    let bit = usize::from(nonce.byte(0));
    (nonce.wrapping_shr(8), U256::from(1).wrapping_shl(bit))
}

/// Whether the payer invalidated this nonce with others.
fn is_invalidation(it: &Authorization, log: &Log) -> bool {
    let (position, bit) = position(it);
    let mut words = log.data.chunks_exact(32).map(U256::from_be_slice);
    log.address == PERMIT2
        && log.topics == [INVALIDATION, account(it.payer)]
        && words.next() == Some(position)
        && words.next().is_some_and(|mask| !(mask & bit).is_zero())
}

/// Permit2's EIP-712 domain, which has no version.
fn domain_separator(chain_id: u64) -> B256 {
    static TYPE: LazyLock<B256> = LazyLock::new(|| {
        keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)")
    });
    static NAME: LazyLock<B256> = LazyLock::new(|| keccak256("Permit2"));
    eip712::hash_words(&[*TYPE, *NAME, number(U256::from(chain_id)), account(PERMIT2)])
}

fn read_authorization(
    payload: &Value,
    member: &str,
    settler: Settler,
) -> Result<Authorization, BadPayload> {
    let place = ("payload.permit2Authorization", "a Permit2 authorization object");
    let object = read::member(payload, member, place)?;
    let place = ("payload.permit2Authorization.permitted", "an object of token and amount");
    let permitted = read::member(object, "permitted", place)?;
    let place = ("payload.permit2Authorization.witness", "an object of to and validAfter");
    let witness = read::member(object, "witness", place)?;
    let facilitator = "payload.permit2Authorization.witness.facilitator";
    Ok(Authorization {
        payer: read::address(object, "from", "payload.permit2Authorization.from")?,
        pay_to: read::address(witness, "to", "payload.permit2Authorization.witness.to")?,
        token: read::address(permitted, "token", "payload.permit2Authorization.permitted.token")?,
        spender: read::address(object, "spender", "payload.permit2Authorization.spender")?,
        value: read::units(permitted, "amount", "payload.permit2Authorization.permitted.amount")?,
        valid_after: read::seconds(
            witness,
            "validAfter",
            "payload.permit2Authorization.witness.validAfter",
        )?,
        limit: Limit::Through(read::seconds(
            object,
            "deadline",
            "payload.permit2Authorization.deadline",
        )?),
        nonce: nonce(object)?,
        settler: match settler {
            Settler::Anybody => None,
            Settler::Facilitator => Some(read::address(witness, "facilitator", facilitator)?),
        },
    })
}

/// Official clients write the nonce in decimal digits; the specification's example of `upto` in
/// hexadecimal ones. Both say one number.
fn nonce(object: &Value) -> Result<B256, BadPayload> {
    let text = read::text(object, "nonce").unwrap_or_default();
    let number = match text.strip_prefix("0x") {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            U256::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => read::decimal(text),
    };
    number.map(B256::from).ok_or(bad(
        "payload.permit2Authorization.nonce",
        "a number of at most 256 bits as a decimal string",
    ))
}

#[cfg(test)]
mod tests;
