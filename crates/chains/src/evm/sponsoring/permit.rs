//! `eip2612GasSponsoring`: the payer's EIP-2612 permit for Permit2, submitted with the payment.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, keccak256};
use farebox_protocol::{Reason, Timestamp};
use serde_json::Value;

use super::check_parties;
use crate::evm::address::EvmAddress;
use crate::evm::authorization::{self as read, Authorization};
use crate::evm::check::{EXPIRY_MARGIN, Refusal};
use crate::evm::contracts::PERMIT2;
use crate::evm::eip712::{self, account, number};
use crate::evm::signature::Signature;
use crate::evm::token::EvmToken;

/// What a permit must say.
pub(super) const FIELDS: &[&str] =
    &["from", "asset", "spender", "amount", "nonce", "deadline", "signature", "version"];

/// A permit that the payer signed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SignedPermit {
    value: U256,
    deadline: U256,
    signature: Signature,
}

/// What an owner signs so that `spender` may spend so much (EIP-2612).
pub(crate) fn permit_digest(
    token: &EvmToken,
    [owner, spender]: [Address; 2],
    [value, nonce, deadline]: [U256; 3],
) -> B256 {
    static TYPE: LazyLock<B256> = LazyLock::new(|| {
        keccak256(
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)",
        )
    });
    let permit = eip712::hash_words(&[
        *TYPE,
        account(owner),
        account(spender),
        number(value),
        number(nonce),
        number(deadline),
    ]);
    eip712::digest(token.domain_separator().into(), permit)
}

impl SignedPermit {
    pub(super) fn read(
        token: &EvmToken,
        info: &Value,
        authorization: &Authorization,
    ) -> Result<Self, Refusal> {
        let payer = authorization.payer;
        let format = Reason::InvalidEip2612ExtensionFormat;
        let mismatches = [
            Reason::Eip2612FromMismatch,
            Reason::Eip2612AssetMismatch,
            Reason::Eip2612SpenderNotPermit2,
        ];
        check_parties(info, authorization, &format, mismatches)?;
        let refuse = |message: String| Refusal::of(payer, &format, message);
        let number = |key: &str| {
            let number = read::text(info, key).and_then(read::decimal);
            number
                .ok_or_else(|| refuse(format!("expected a decimal number in the permit's `{key}`")))
        };
        let (value, nonce, deadline) = (number("amount")?, number("nonce")?, number("deadline")?);
        let permitted = authorization.value;
        if value != U256::from(permitted.units()) {
            let message = format!("expected a permit over {permitted}, found one over {value}");
            return Err(Refusal::of(payer, &Reason::Permit22612AmountMismatch, message));
        }
        let digest = permit_digest(token, [payer, PERMIT2], [value, nonce, deadline]);
        let text = read::text(info, "signature").unwrap_or_default();
        let signature = Signature::parse(text)
            .map_err(|error| refuse(format!("the permit's `signature`: {error}")))?;
        if signature.recover(digest) != Ok(payer) {
            let payer = EvmAddress::from(payer);
            return Err(refuse(format!("expected a permit signed by {payer}, found another")));
        }
        Ok(Self { value, deadline, signature })
    }

    pub(super) fn check_window(
        &self,
        authorization: &Authorization,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (found, limit) = (self.deadline, authorization.limit.seconds());
        let message = if read::time(found) < now.plus(EXPIRY_MARGIN) {
            let now = now.seconds();
            format!("expected a permit with a deadline well after {now}, found {found}")
        } else if found < limit {
            // The payment may be settled at any time until then, and not without the permit.
            format!("expected a permit that is good until its payment's {limit}, found {found}")
        } else {
            return Ok(());
        };
        Err(Refusal::of(authorization.payer, &Reason::Eip2612DeadlineExpired, message))
    }

    /// The allowance that it sets.
    pub(super) fn value(&self) -> U256 {
        self.value
    }

    /// The struct that the proxies take.
    pub(crate) fn words(&self) -> [B256; 5] {
        let v = number(U256::from(self.signature.v()));
        [number(self.value), number(self.deadline), self.signature.r(), self.signature.s(), v]
    }
}

impl std::fmt::Debug for SignedPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedPermit({} until {})", self.value, self.deadline)
    }
}
