//! The proxies of x402 over our Permit2 and over the real one: the settle-time rules of `exact` over
//! Permit2 and of `upto`.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolError, SolStruct, eip712_domain, sol};
use farebox_devnet::{EXACT_PERMIT2_PROXY_ADDRESS, PERMIT2_ADDRESS, UPTO_PERMIT2_PROXY_ADDRESS};
use farebox_testkit::rpc::{CHAIN_ID, TOKEN};

use crate::permit2_abi::{Permit2, Proxy, exact, upto};
use crate::support::{
    End, Erc20, FAR, Key, PAYER, SPENDER, START, STRANGER, Step, TO, answers, check, done, error,
    silence, text,
};

sol! {
    /// EIP-2612.
    struct Permit { address owner; address spender; uint256 value; uint256 nonce; uint256 deadline; }
    function permit(address owner, address spender, uint256 value, uint256 deadline,
        uint8 v, bytes32 r, bytes32 s) external;
}

/// A payment of 1,000 units as the payer signs it.
#[derive(Clone)]
struct Payment {
    token: Address,
    amount: u64,
    nonce: u64,
    deadline: u64,
    to: Address,
    facilitator: Address,
    valid_after: u64,
}

fn payment(nonce: u64) -> Payment {
    Payment {
        token: TOKEN,
        amount: 1_000,
        nonce,
        deadline: FAR,
        to: TO,
        facilitator: SPENDER.address(),
        valid_after: 0,
    }
}

impl Payment {
    fn exact_witness(&self) -> exact::Witness {
        exact::Witness { to: self.to, validAfter: U256::from(self.valid_after) }
    }

    fn upto_witness(&self) -> upto::Witness {
        upto::Witness {
            to: self.to,
            facilitator: self.facilitator,
            validAfter: U256::from(self.valid_after),
        }
    }

    fn sign_exact(&self, key: Key) -> Bytes {
        key.sign_permit2(&exact::PermitWitnessTransferFrom {
            permitted: exact::TokenPermissions {
                token: self.token,
                amount: U256::from(self.amount),
            },
            spender: EXACT_PERMIT2_PROXY_ADDRESS,
            nonce: U256::from(self.nonce),
            deadline: U256::from(self.deadline),
            witness: self.exact_witness(),
        })
    }

    fn sign_upto(&self, key: Key) -> Bytes {
        key.sign_permit2(&upto::PermitWitnessTransferFrom {
            permitted: upto::TokenPermissions {
                token: self.token,
                amount: U256::from(self.amount),
            },
            spender: UPTO_PERMIT2_PROXY_ADDRESS,
            nonce: U256::from(self.nonce),
            deadline: U256::from(self.deadline),
            witness: self.upto_witness(),
        })
    }

    fn exact_permit(&self) -> exact::PermitTransferFrom {
        exact::PermitTransferFrom {
            permitted: exact::TokenPermissions {
                token: self.token,
                amount: U256::from(self.amount),
            },
            nonce: U256::from(self.nonce),
            deadline: U256::from(self.deadline),
        }
    }

    fn upto_permit(&self) -> upto::PermitTransferFrom {
        upto::PermitTransferFrom {
            permitted: upto::TokenPermissions {
                token: self.token,
                amount: U256::from(self.amount),
            },
            nonce: U256::from(self.nonce),
            deadline: U256::from(self.deadline),
        }
    }

    /// The call that settles this payment by `exact`.
    fn exact(&self, owner: Address, signature: Bytes) -> Bytes {
        let (permit, witness) = (self.exact_permit(), self.exact_witness());
        exact::settleCall { permit, owner, witness, signature }.abi_encode().into()
    }

    /// The call that settles `amount` units of this payment by `upto`.
    fn upto(&self, amount: u64, owner: Address, signature: Bytes) -> Bytes {
        let (permit, witness) = (self.upto_permit(), self.upto_witness());
        let amount = U256::from(amount);
        upto::settleCall { permit, amount, owner, witness, signature }.abi_encode().into()
    }
}

/// The facilitator settles by `exact` what the payer signed properly.
fn exactly(label: &str, payment: &Payment, end: End) -> Step {
    let data = payment.exact(PAYER.address(), payment.sign_exact(PAYER));
    Step::new(label, SPENDER, EXACT_PERMIT2_PROXY_ADDRESS, data, end)
}

/// The facilitator settles by `upto` what the payer signed properly.
fn up_to(label: &str, payment: &Payment, amount: u64, end: End) -> Step {
    let data = payment.upto(amount, PAYER.address(), payment.sign_upto(PAYER));
    Step::new(label, SPENDER, UPTO_PERMIT2_PROXY_ADDRESS, data, end)
}

fn nonce_used() -> End {
    error(&Permit2::InvalidNonce {})
}

fn not_signed() -> End {
    error(&Permit2::InvalidSigner {})
}

fn expired(at: u64) -> End {
    error(&Permit2::SignatureExpired { signatureDeadline: U256::from(at) })
}

#[tokio::test]
async fn exact_settles_the_signed_amount_to_the_signed_payee_once() {
    let signature = payment(1).sign_exact(PAYER);
    let settle = |changed: Payment| {
        let data = changed.exact(PAYER.address(), signature.clone());
        Step::new("changed", STRANGER, EXACT_PERMIT2_PROXY_ADDRESS, data, not_signed())
    };
    let of = |owner, signature| {
        let data = payment(1).exact(owner, signature);
        Step::new(
            "owner",
            SPENDER,
            EXACT_PERMIT2_PROXY_ADDRESS,
            data,
            error(&Proxy::InvalidOwner {}),
        )
    };
    let anyone = payment(1).exact(PAYER.address(), signature.clone());
    let script = [
        settle(Payment { amount: 999, ..payment(1) }),
        settle(Payment { nonce: 2, ..payment(1) }),
        settle(Payment { deadline: FAR + 1, ..payment(1) }),
        settle(Payment { to: STRANGER.address(), ..payment(1) }),
        settle(Payment { valid_after: 1, ..payment(1) }),
        of(Address::ZERO, signature.clone()),
        Step::new("by anyone", STRANGER, EXACT_PERMIT2_PROXY_ADDRESS, anyone, End::Done),
        exactly("again", &payment(1), nonce_used()),
        exactly("nothing", &Payment { amount: 0, ..payment(3) }, error(&Proxy::InvalidAmount {})),
        exactly(
            "to nobody",
            &Payment { to: Address::ZERO, ..payment(3) },
            error(&Proxy::InvalidDestination {}),
        ),
        exactly("too late", &Payment { deadline: START, ..payment(3) }, expired(START)),
        exactly(
            "too early",
            &Payment { valid_after: START + 100, ..payment(3) },
            error(&Proxy::PaymentTooEarly {}),
        ),
        // Simulated in the second of the step before, and valid from then on.
        exactly("in time", &Payment { valid_after: START + 11, ..payment(3) }, End::Done),
        exactly(
            "more than there is",
            &Payment { amount: 2_000_000, ..payment(4) },
            text("TRANSFER_FROM_FAILED"),
        ),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn upto_settles_what_the_signed_facilitator_says_up_to_the_ceiling() {
    let signature = payment(1).sign_upto(PAYER);
    let other = Payment { facilitator: STRANGER.address(), ..payment(1) };
    let as_stranger = |label: &str, payment: &Payment, end| {
        let data = payment.upto(400, PAYER.address(), signature.clone());
        Step::new(label, STRANGER, UPTO_PERMIT2_PROXY_ADDRESS, data, end)
    };
    let exceeds = || error(&Proxy::AmountExceedsPermitted {});
    let unauthorized = || error(&Proxy::UnauthorizedFacilitator {});
    let nobody = payment(1).upto(400, Address::ZERO, signature.clone());
    let script = [
        as_stranger("another facilitator", &payment(1), unauthorized()),
        as_stranger("who writes himself in", &other, not_signed()),
        up_to("signed for another", &other, 400, unauthorized()),
        up_to("a unit above the ceiling", &payment(1), 1_001, exceeds()),
        up_to("far above it", &payment(1), u64::MAX, exceeds()),
        up_to("nothing", &payment(1), 0, error(&Proxy::InvalidAmount {})),
        Step::new(
            "of nobody",
            SPENDER,
            UPTO_PERMIT2_PROXY_ADDRESS,
            nobody,
            error(&Proxy::InvalidOwner {}),
        ),
        up_to(
            "to nobody",
            &Payment { to: Address::ZERO, ..payment(1) },
            1,
            error(&Proxy::InvalidDestination {}),
        ),
        up_to(
            "too early",
            &Payment { valid_after: START + 100, ..payment(1) },
            1,
            error(&Proxy::PaymentTooEarly {}),
        ),
        up_to("too late", &Payment { deadline: START, ..payment(1) }, 1, expired(START)),
        up_to("part of the ceiling", &payment(1), 400, End::Done),
        up_to("the rest of it", &payment(1), 600, nonce_used()),
        up_to("the whole ceiling", &payment(2), 1_000, End::Done),
        up_to("one unit", &payment(3), 1, End::Done),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn a15_a_payment_for_one_proxy_is_none_for_the_other() {
    let (exactly, up_to) = (payment(1).sign_exact(PAYER), payment(1).sign_upto(PAYER));
    let script = [
        Step::new(
            "exact as upto",
            SPENDER,
            UPTO_PERMIT2_PROXY_ADDRESS,
            payment(1).upto(1_000, PAYER.address(), exactly),
            not_signed(),
        ),
        Step::new(
            "upto as exact",
            SPENDER,
            EXACT_PERMIT2_PROXY_ADDRESS,
            payment(1).exact(PAYER.address(), up_to),
            not_signed(),
        ),
    ];
    check(&[], &script).await;
}

/// The payer's approval of Permit2 by EIP-2612, in the token's domain.
fn approval(value: u64, nonce: u64, deadline: u64) -> exact::EIP2612Permit {
    let message = Permit {
        owner: PAYER.address(),
        spender: PERMIT2_ADDRESS,
        value: U256::from(value),
        nonce: U256::from(nonce),
        deadline: U256::from(deadline),
    };
    let domain = eip712_domain! {
        name: "USDC", version: "2", chain_id: CHAIN_ID, verifying_contract: TOKEN,
    };
    let signature = PAYER.sign(message.eip712_signing_hash(&domain));
    exact::EIP2612Permit {
        value: message.value,
        deadline: message.deadline,
        r: signature.r().into(),
        s: signature.s().into(),
        v: if signature.v() { 28 } else { 27 },
    }
}

/// `settleWithPermit` of `exact`.
fn exactly_with(label: &str, payment: &Payment, permit: exact::EIP2612Permit, end: End) -> Step {
    let data = exact::settleWithPermitCall {
        permit2612: permit,
        permit: payment.exact_permit(),
        owner: PAYER.address(),
        witness: payment.exact_witness(),
        signature: payment.sign_exact(PAYER),
    };
    Step::new(label, SPENDER, EXACT_PERMIT2_PROXY_ADDRESS, data.abi_encode().into(), end)
}

/// `settleWithPermit` of `upto`.
fn up_to_with(
    label: &str,
    payment: &Payment,
    amount: u64,
    permit: exact::EIP2612Permit,
    end: End,
) -> Step {
    let exact::EIP2612Permit { value, deadline, r, s, v } = permit;
    let data = upto::settleWithPermitCall {
        permit2612: upto::EIP2612Permit { value, deadline, r, s, v },
        permit: payment.upto_permit(),
        amount: U256::from(amount),
        owner: PAYER.address(),
        witness: payment.upto_witness(),
        signature: payment.sign_upto(PAYER),
    };
    Step::new(label, SPENDER, UPTO_PERMIT2_PROXY_ADDRESS, data.abi_encode().into(), end)
}

/// What Permit2 may still take of the payer.
fn allowance(label: &str, left: u64) -> Step {
    let call = Erc20::allowanceCall { owner: PAYER.address(), spender: PERMIT2_ADDRESS };
    Step::new(label, STRANGER, TOKEN, call.abi_encode().into(), answers(&U256::from(left)))
}

#[tokio::test]
async fn a_payer_without_allowance_and_without_gas_pays_by_eip_2612() {
    let failed = || text("TRANSFER_FROM_FAILED");
    let mismatch = || error(&Proxy::Permit2612AmountMismatch {});
    let take_back = Erc20::approveCall { spender: PERMIT2_ADDRESS, value: U256::ZERO };
    let front_run = approval(1_000, 2, FAR);
    let (v, r, s) = (front_run.v, front_run.r, front_run.s);
    let front_run = permitCall {
        owner: PAYER.address(),
        spender: PERMIT2_ADDRESS,
        value: U256::from(1_000),
        deadline: U256::from(FAR),
        v,
        r,
        s,
    };
    let wrong = || exact::EIP2612Permit { r: B256::repeat_byte(1), ..approval(1_000, 0, FAR) };
    let script = [
        done("no allowance", PAYER, TOKEN, &take_back),
        exactly("without", &payment(1), failed()),
        exactly_with("an approval of less", &payment(1), approval(999, 0, FAR), mismatch()),
        exactly_with("of more", &payment(1), approval(1_001, 0, FAR), mismatch()),
        exactly_with("a wrong one", &payment(1), wrong(), failed()),
        exactly_with("an expired one", &payment(1), approval(1_000, 0, START), failed()),
        exactly_with("the right one", &payment(1), approval(1_000, 0, FAR), End::Done),
        allowance("used up", 0),
        exactly_with("again", &payment(1), approval(1_000, 0, FAR), nonce_used()),
        // The approval is of the ceiling, and what is not charged of it stays.
        up_to_with(
            "an approval of the charge",
            &payment(2),
            300,
            approval(300, 1, FAR),
            mismatch(),
        ),
        up_to_with(
            "a charge above it",
            &payment(2),
            1_001,
            approval(1_000, 1, FAR),
            error(&Proxy::AmountExceedsPermitted {}),
        ),
        up_to_with("300 of 1,000", &payment(2), 300, approval(1_000, 1, FAR), End::Done),
        allowance("the rest", 700),
        // Somebody else submits the approval first: the payment works all the same.
        done("front-run", STRANGER, TOKEN, &front_run),
        up_to_with("after that", &payment(3), 1_000, approval(1_000, 2, FAR), End::Done),
        allowance("used up again", 0),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn a_refused_approval_is_told_in_an_event_of_its_kind() {
    let token = |byte| Address::repeat_byte(byte);
    // Each answers true to everything but `permit`, which it refuses: with the panic 0x11; without a
    // word; with an error of its own.
    let but_permit = "0x60003560e01c63d505accf14601957600160005260206000f35b";
    let code = [
        (token(0xf0), format!("{but_permit}634e487b7160e01b600052601160045260246000fd")),
        (token(0xf1), format!("{but_permit}60006000fd")),
        (token(0xf2), format!("{but_permit}63deadbeef60e01b60005260046000fd")),
    ];
    let code = code.each_ref().map(|(token, code)| (*token, code.as_str()));
    let of = |token, nonce| Payment { token, ..payment(nonce) };
    let script = [
        exactly_with("a panic", &of(token(0xf0), 1), approval(1_000, 0, FAR), End::Done),
        exactly_with("no reason", &of(token(0xf1), 2), approval(1_000, 0, FAR), End::Done),
        exactly_with("its own error", &of(token(0xf2), 3), approval(1_000, 0, FAR), End::Done),
        up_to_with("a panic", &of(token(0xf0), 4), 1, approval(1_000, 0, FAR), End::Done),
        exactly_with("no code", &of(token(0xf3), 5), approval(1_000, 0, FAR), silence()),
    ];
    check(&code, &script).await;
}

#[tokio::test]
async fn a_token_cannot_settle_while_it_is_settled_in() {
    for proxy in [EXACT_PERMIT2_PROXY_ADDRESS, UPTO_PERMIT2_PROXY_ADDRESS] {
        let token = Address::repeat_byte(0xf8);
        // The second payment would settle by itself: signed, unused, and sent by its facilitator.
        let of = |nonce| Payment { token, ..payment(nonce) };
        let second = Payment { facilitator: token, ..of(2) };
        let inner = if proxy == EXACT_PERMIT2_PROXY_ADDRESS {
            second.exact(PAYER.address(), second.sign_exact(PAYER))
        } else {
            second.upto(1, PAYER.address(), second.sign_upto(PAYER))
        };
        let code = calls_once(proxy, &inner);
        let outer = if proxy == EXACT_PERMIT2_PROXY_ADDRESS {
            exactly("outer", &of(1), End::Done)
        } else {
            up_to("outer", &of(1), 1, End::Done)
        };
        check(&[(token, &code)], &[outer]).await;
    }
}

/// Code that calls `to` with `data`, succeeds only if that is refused for being a re-entry, and then
/// answers true.
fn calls_once(to: Address, data: &Bytes) -> String {
    let selector = alloy_primitives::hex::encode(Proxy::ReentrancyGuardReentrantCall::SELECTOR);
    let data = alloy_primitives::hex::encode(data);
    let length = data.len() / 2;
    let to = alloy_primitives::hex::encode(to);
    let program = |start: usize, end: usize| {
        [
            format!("61{length:04x}61{start:04x}600039"), // the data to memory
            format!("6000600061{length:04x}6000600073{to}5af150"), // the call
            "3d600060003e60005160e01c".to_owned(),        // the first four bytes of its answer
            format!("63{selector}1461{end:04x}57"),       // as they should be?
            "60006000fd".to_owned(),                      // no
            "5b600160005260206000f3".to_owned(),          // yes
        ]
        .concat()
    };
    let start = program(0, 0).len() / 2;
    let end = start.saturating_sub("5b600160005260206000f3".len() / 2);
    format!("0x{}{data}", program(start, end))
}
