//! `AllowanceTransfer` of Permit2: ours and the real one, case by case.

use alloy_primitives::{Address, U160, U256, aliases::U48};
use alloy_sol_types::SolCall;
use farebox_devnet::PERMIT2_ADDRESS;
use farebox_testkit::rpc::TOKEN;

use crate::permit2_abi::{
    AllowanceTransferDetails, Permit2, PermitBatch, PermitDetails, PermitSingle, TokenSpenderPair,
};
use crate::support::{
    End, FAR, Key, PAYER, SPENDER, START, STRANGER, Step, TO, answers, check, error, text,
};

const OTHER_TOKEN: Address = Address::repeat_byte(0xd1);

fn step(label: &str, from: Key, call: &impl SolCall, end: End) -> Step {
    Step::new(label, from, PERMIT2_ADDRESS, call.abi_encode().into(), end)
}

fn approve(label: &str, amount: U160, expiration: u64) -> Step {
    let call = Permit2::approveCall {
        token: TOKEN,
        spender: SPENDER.address(),
        amount,
        expiration: U48::from(expiration),
    };
    step(label, PAYER, &call, End::Done)
}

fn allowance(label: &str, token: Address, amount: U160, expiration: u64, nonce: u64) -> Step {
    let (owner, spender) = (PAYER.address(), SPENDER.address());
    let call = Permit2::allowanceCall { owner, token, spender };
    step(label, STRANGER, &call, answers(&(amount, U48::from(expiration), U48::from(nonce))))
}

fn takes(label: &str, from: Key, amount: u64, end: End) -> Step {
    let call = Permit2::transferFrom_0Call {
        from: PAYER.address(),
        to: TO,
        amount: U160::from(amount),
        token: TOKEN,
    };
    step(label, from, &call, end)
}

fn expired(at: u64) -> End {
    error(&Permit2::AllowanceExpired { deadline: U256::from(at) })
}

fn insufficient(left: u64) -> End {
    error(&Permit2::InsufficientAllowance { amount: U256::from(left) })
}

#[tokio::test]
async fn an_allowance_is_spent_until_it_is_empty_or_expires() {
    let amount = U160::from(100);
    let script = [
        takes("nothing was allowed", SPENDER, 1, expired(0)),
        approve("100 for ever", amount, FAR),
        allowance("as said", TOKEN, amount, FAR, 0),
        takes("60", SPENDER, 60, End::Done),
        takes("60 more", SPENDER, 60, insufficient(40)),
        takes("by another", STRANGER, 1, expired(0)),
        takes("40", SPENDER, 40, End::Done),
        allowance("empty", TOKEN, U160::ZERO, FAR, 0),
        takes("nothing", SPENDER, 0, End::Done),
        // Step 9 is at START + 9, and so is the last second of what it allows.
        approve("until now", amount, 0),
        allowance("which was then", TOKEN, amount, START + 9, 0),
        takes("too late", SPENDER, 1, expired(START + 9)),
        approve("until step 14", amount, START + 14),
        takes("a second before", SPENDER, 1, End::Done),
        takes("in the last second", SPENDER, 1, End::Done),
        allowance("what is left", TOKEN, U160::from(98), START + 14, 0),
        takes("too late again", SPENDER, 1, expired(START + 14)),
        approve("without limit", U160::MAX, FAR),
        takes("some", SPENDER, 7, End::Done),
        allowance("still without limit", TOKEN, U160::MAX, FAR, 0),
        takes("more than there is", SPENDER, 2_000_000, text("TRANSFER_FROM_FAILED")),
    ];
    check(&[], &script).await;
}

fn details(token: Address, amount: u64, nonce: u64) -> PermitDetails {
    PermitDetails {
        token,
        amount: U160::from(amount),
        expiration: U48::from(FAR),
        nonce: U48::from(nonce),
    }
}

fn permits(label: &str, details: PermitDetails, deadline: u64, signer: Key, end: End) -> Step {
    let permit =
        PermitSingle { details, spender: SPENDER.address(), sigDeadline: U256::from(deadline) };
    let signature = signer.sign_permit2(&permit);
    let call = Permit2::permit_0Call { owner: PAYER.address(), permitSingle: permit, signature };
    step(label, STRANGER, &call, end)
}

fn permits_all(label: &str, details: Vec<PermitDetails>, signer: Key, end: End) -> Step {
    let permit = PermitBatch { details, spender: SPENDER.address(), sigDeadline: U256::from(FAR) };
    let signature = signer.sign_permit2(&permit);
    let call = Permit2::permit_1Call { owner: PAYER.address(), permitBatch: permit, signature };
    step(label, STRANGER, &call, end)
}

#[tokio::test]
async fn permits_are_in_the_order_of_their_nonces() {
    let used = || error(&Permit2::InvalidNonce {});
    let signer = || error(&Permit2::InvalidSigner {});
    let late = error(&Permit2::SignatureExpired { signatureDeadline: U256::from(5) });
    let now = PermitDetails { expiration: U48::ZERO, ..details(TOKEN, 5, 1) };
    let script = [
        permits("the first", details(TOKEN, 100, 0), FAR, PAYER, End::Done),
        allowance("as signed", TOKEN, U160::from(100), FAR, 1),
        permits("again", details(TOKEN, 100, 0), FAR, PAYER, used()),
        permits("one too many ahead", details(TOKEN, 100, 2), FAR, PAYER, used()),
        permits("of somebody else", details(TOKEN, 100, 1), FAR, STRANGER, signer()),
        permits("too late", details(TOKEN, 100, 1), 5, PAYER, late),
        takes("by permit", SPENDER, 30, End::Done),
        permits("for this second", now, FAR, PAYER, End::Done),
        allowance("which was step 7's", TOKEN, U160::from(5), START + 7, 2),
        permits_all(
            "two tokens, two nonces",
            vec![details(TOKEN, 10, 2), details(OTHER_TOKEN, 20, 0)],
            PAYER,
            End::Done,
        ),
        allowance("the one", TOKEN, U160::from(10), FAR, 3),
        allowance("the other", OTHER_TOKEN, U160::from(20), FAR, 1),
        permits_all(
            "one of two is used",
            vec![details(TOKEN, 10, 3), details(OTHER_TOKEN, 20, 0)],
            PAYER,
            used(),
        ),
        permits_all("of somebody else", vec![details(TOKEN, 10, 3)], STRANGER, signer()),
        permits_all("none", Vec::new(), PAYER, End::Done),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn several_transfers_go_all_or_none() {
    let code = [(OTHER_TOKEN, "0x600160005260206000f3")];
    let one = |token, amount: u64| AllowanceTransferDetails {
        from: PAYER.address(),
        to: TO,
        amount: U160::from(amount),
        token,
    };
    let take = |label: &str, transfers, end| {
        step(label, SPENDER, &Permit2::transferFrom_1Call { transferDetails: transfers }, end)
    };
    let script = [
        permits_all(
            "two tokens",
            vec![details(TOKEN, 10, 0), details(OTHER_TOKEN, 20, 0)],
            PAYER,
            End::Done,
        ),
        take("both", vec![one(TOKEN, 4), one(OTHER_TOKEN, 20)], End::Done),
        take("the second too much", vec![one(TOKEN, 4), one(OTHER_TOKEN, 1)], insufficient(0)),
        take("twice of one", vec![one(TOKEN, 4), one(TOKEN, 2)], End::Done),
        take("none", Vec::new(), End::Done),
    ];
    check(&code, &script).await;
}

#[tokio::test]
async fn an_owner_can_shut_everybody_out() {
    let lockdown = |label: &str, tokens: &[Address]| {
        let pairs =
            tokens.iter().map(|&token| TokenSpenderPair { token, spender: SPENDER.address() });
        step(label, PAYER, &Permit2::lockdownCall { approvals: pairs.collect() }, End::Done)
    };
    let skip_to = |label: &str, nonce: u64, end| {
        let call = Permit2::invalidateNoncesCall {
            token: TOKEN,
            spender: SPENDER.address(),
            newNonce: U48::from(nonce),
        };
        step(label, PAYER, &call, end)
    };
    let invalid = || error(&Permit2::InvalidNonce {});
    let script = [
        approve("100", U160::from(100), FAR),
        lockdown("of two tokens", &[TOKEN, OTHER_TOKEN]),
        allowance("nothing left", TOKEN, U160::ZERO, FAR, 0),
        takes("so", SPENDER, 1, insufficient(0)),
        lockdown("of none", &[]),
        skip_to("where it is", 0, invalid()),
        skip_to("too far", 0x10000, error(&Permit2::ExcessiveInvalidation {})),
        skip_to("as far as one may", 0xffff, End::Done),
        skip_to("back", 5, invalid()),
        permits("skipped", details(TOKEN, 1, 0), FAR, PAYER, invalid()),
        permits("the next", details(TOKEN, 1, 0xffff), FAR, PAYER, End::Done),
        allowance("as signed", TOKEN, U160::from(1), FAR, 0x10000),
    ];
    check(&[], &script).await;
}
