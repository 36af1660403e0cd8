//! `SignatureTransfer` of Permit2: ours and the real one, case by case.

use alloy_primitives::{Address, B256, Bytes, Signature, U256, b256};
use alloy_sol_types::{SolCall, SolStruct};
use farebox_devnet::PERMIT2_ADDRESS;
use farebox_testkit::rpc::TOKEN;

use crate::permit2_abi::{
    Permit2, PermitBatchTransferFrom, PermitTransferFrom, SignatureTransferDetails,
    TokenPermissions, exact, plain,
};
use crate::support::{
    End, FAR, Key, PAYER, SPENDER, START, STRANGER, Step, TO, answers, bytes, check, done, error,
    permit2_domain, silence, text,
};

const ORDER: U256 = U256::from_be_bytes(
    b256!("0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").0,
);
const FAILED: &str = "TRANSFER_FROM_FAILED";
const WITNESS_STRING: &str = "Witness witness)TokenPermissions(address token,uint256 amount)\
                              Witness(address to,uint256 validAfter)";

/// A permit over 1,000 units for the spender of the scripts.
fn permit(nonce: u64) -> plain::PermitTransferFrom {
    plain::PermitTransferFrom {
        permitted: plain::TokenPermissions { token: TOKEN, amount: U256::from(1_000) },
        spender: SPENDER.address(),
        nonce: U256::from(nonce),
        deadline: U256::from(FAR),
    }
}

/// The call that uses a permit.
fn call(
    signed: &plain::PermitTransferFrom,
    requested: u64,
    owner: Address,
    signature: Bytes,
) -> Bytes {
    let permitted =
        TokenPermissions { token: signed.permitted.token, amount: signed.permitted.amount };
    Permit2::permitTransferFrom_0Call {
        permit: PermitTransferFrom { permitted, nonce: signed.nonce, deadline: signed.deadline },
        transferDetails: SignatureTransferDetails {
            to: TO,
            requestedAmount: U256::from(requested),
        },
        owner,
        signature,
    }
    .abi_encode()
    .into()
}

fn by_spender(label: &str, data: Bytes, end: End) -> Step {
    Step::new(label, SPENDER, PERMIT2_ADDRESS, data, end)
}

/// A step in which the spender asks for `requested` units of what the payer signed properly.
fn asks(label: &str, signed: &plain::PermitTransferFrom, requested: u64, end: End) -> Step {
    let signature = PAYER.sign_permit2(signed);
    by_spender(label, call(signed, requested, PAYER.address(), signature), end)
}

/// A step in which the spender comes with another signature.
fn with(label: &str, signed: &plain::PermitTransferFrom, signature: Bytes, end: End) -> Step {
    by_spender(label, call(signed, 1_000, PAYER.address(), signature), end)
}

fn digest(signed: &impl SolStruct) -> B256 {
    signed.eip712_signing_hash(&permit2_domain())
}

/// The 64-byte form of EIP-2098.
fn compact(signature: Signature) -> Bytes {
    let parity = if signature.v() { U256::ONE.wrapping_shl(255) } else { U256::ZERO };
    [signature.r().to_be_bytes::<32>(), (signature.s() | parity).to_be_bytes::<32>()]
        .concat()
        .into()
}

/// The other signature that recovers to the same key, with the larger `s`.
fn malleated(signature: Signature) -> Signature {
    Signature::new(signature.r(), ORDER.wrapping_sub(signature.s()), !signature.v())
}

#[tokio::test]
async fn a_permit_is_good_for_one_transfer_up_to_its_amount_and_deadline() {
    let invalid_nonce = || error(&Permit2::InvalidNonce {});
    let last = plain::PermitTransferFrom { nonce: U256::MAX, ..permit(0) };
    let expires =
        |deadline: u64| plain::PermitTransferFrom { deadline: U256::from(deadline), ..permit(90) };
    let mut script = vec![
        asks("the whole amount", &permit(1), 1_000, End::Done),
        asks("the same again", &permit(1), 1_000, invalid_nonce()),
        asks("part of the amount", &permit(2), 1, End::Done),
        asks("the rest of it", &permit(2), 999, invalid_nonce()),
        asks("nothing", &permit(3), 0, End::Done),
        asks("nothing again", &permit(3), 0, invalid_nonce()),
        asks(
            "more than the amount",
            &permit(4),
            1_001,
            error(&Permit2::InvalidAmount { maxAmount: U256::from(1_000) }),
        ),
        asks("the nonce of a refused transfer", &permit(4), 1_000, End::Done),
        asks("the last bit of a word", &permit(255), 1_000, End::Done),
        asks("the first bit of the next", &permit(256), 1_000, End::Done),
        asks("the last nonce of all", &last, 1_000, End::Done),
        asks("it again", &last, 1_000, invalid_nonce()),
    ];
    let past = START - 1;
    let expired = error(&Permit2::SignatureExpired { signatureDeadline: U256::from(past) });
    script.push(asks("after the deadline", &expires(past), 1_000, expired.clone()));
    script.push(asks("which is looked at before the amount", &expires(past), 1_001, expired));
    let over = error(&Permit2::InvalidAmount { maxAmount: U256::from(1_000) });
    script.push(asks("the amount before the nonce", &permit(1), 1_001, over));
    script.push(with("the nonce before the signature", &permit(1), Bytes::new(), invalid_nonce()));
    check(&[], &script).await;
}

#[tokio::test]
async fn a_permit_is_good_at_its_deadline() {
    let at = plain::PermitTransferFrom { deadline: U256::from(START + 1), ..permit(1) };
    check(
        &[],
        &[
            asks("a second before", &permit(0), 1_000, End::Done),
            asks("in the last second", &at, 1_000, End::Done),
        ],
    )
    .await;
}

#[tokio::test]
async fn a11_what_counts_as_a_signature_of_a_key() {
    let mut script = Vec::new();
    for nonce in 0..6 {
        let signature = PAYER.sign(digest(&permit(nonce)));
        script.push(match nonce % 3 {
            0 => with("65 bytes", &permit(nonce), bytes(signature), End::Done),
            1 => with("64 bytes", &permit(nonce), compact(signature), End::Done),
            // Permit2 takes it: the nonce keeps the twin from being used. We must refuse it ourselves.
            _ => with("a high s", &permit(nonce), bytes(malleated(signature)), End::Done),
        });
        let twin = bytes(malleated(signature));
        let used = error(&Permit2::InvalidNonce {});
        script.push(with("the twin of a used one", &permit(nonce), twin, used));
    }
    let signature = PAYER.sign(digest(&permit(9)));
    let good = bytes(signature);
    let with_v = |v: u8| Bytes::from([&good[..64], &[v]].concat());
    let invalid = || error(&Permit2::InvalidSignature {});
    let length = || error(&Permit2::InvalidSignatureLength {});
    let signer = || error(&Permit2::InvalidSigner {});
    let flipped = Signature::new(signature.r(), signature.s(), !signature.v());
    let long = Bytes::from([&good[..], &[0]].concat());
    script.extend([
        with("v of 0", &permit(9), with_v(0), invalid()),
        with("v of 1", &permit(9), with_v(1), invalid()),
        with("v of 29", &permit(9), with_v(29), invalid()),
        with("all zero", &permit(9), vec![0; 65].into(), invalid()),
        with("nothing", &permit(9), Bytes::new(), length()),
        with("63 bytes", &permit(9), good.slice(..63), length()),
        with("66 bytes", &permit(9), long, length()),
        with("the other parity", &permit(9), bytes(flipped), signer()),
        with("of somebody else", &permit(9), STRANGER.sign_permit2(&permit(9)), signer()),
        by_spender(
            "of nobody",
            call(&permit(9), 1_000, Address::ZERO, vec![0; 65].into()),
            invalid(),
        ),
        with("the good one after all", &permit(9), good, End::Done),
    ]);
    check(&[], &script).await;
}

#[tokio::test]
async fn a15_every_signed_field_counts() {
    let signature = PAYER.sign_permit2(&permit(1));
    let good = || permit(1);
    let one = U256::ONE;
    let mut script = Vec::new();
    let other_token = plain::TokenPermissions { token: TO, amount: U256::from(1_000) };
    let more = plain::TokenPermissions { token: TOKEN, amount: U256::from(1_001) };
    for (label, changed) in [
        ("another token", plain::PermitTransferFrom { permitted: other_token, ..good() }),
        ("another amount", plain::PermitTransferFrom { permitted: more, ..good() }),
        ("another nonce", plain::PermitTransferFrom { nonce: one << 200, ..good() }),
        ("another deadline", plain::PermitTransferFrom { deadline: U256::MAX, ..good() }),
    ] {
        let refused = error(&Permit2::InvalidSigner {});
        script.push(with(label, &changed, signature.clone(), refused));
    }
    let data = call(&good(), 1_000, PAYER.address(), signature);
    let refused = error(&Permit2::InvalidSigner {});
    script.push(Step::new("another spender", STRANGER, PERMIT2_ADDRESS, data.clone(), refused));
    script.push(by_spender("nothing changed", data, End::Done));
    check(&[], &script).await;
}

#[tokio::test]
async fn a10_contracts_sign_by_erc_1271_alone() {
    let wallet = |byte| Address::repeat_byte(byte);
    let code = [
        (wallet(0xc0), "0x631626ba7e60e01b60005260206000f3"), // yes
        (wallet(0xc1), "0x63ffffffff60e01b60005260206000f3"), // no
        (wallet(0xc2), "0x00"),                               // nothing
        (wallet(0xc3), "0x60006000fd"),                       // reverts
        (wallet(0xc4), "0x63deadbeef60e01b60005260046000fd"), // reverts with an error of its own
        (wallet(0xc5), "0x631626ba7e60005260206000f3"),       // yes, on the wrong side
        (wallet(0xc6), "0x631626ba7e60e01b60005260046000f3"), // yes, too short
        (wallet(0xc7), "0x631626ba7e60e01b60010160005260206000f3"), // yes, and more
    ];
    let garbage = Bytes::from(vec![7; 3]);
    let ask = |label: &str, owner, end| {
        by_spender(label, call(&permit(1), 0, owner, garbage.clone()), end)
    };
    let own = End::Reverts(Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]));
    let script = [
        ask("yes", wallet(0xc0), End::Done),
        ask("no", wallet(0xc1), error(&Permit2::InvalidContractSignature {})),
        ask("no answer", wallet(0xc2), silence()),
        ask("a revert", wallet(0xc3), silence()),
        ask("an error of its own", wallet(0xc4), own),
        ask("yes on the wrong side", wallet(0xc5), silence()),
        ask("half an answer", wallet(0xc6), silence()),
        ask("yes and more", wallet(0xc7), silence()),
    ];
    check(&code, &script).await;
}

#[tokio::test]
async fn every_manner_of_token_is_understood_alike() {
    let token = |byte| Address::repeat_byte(byte);
    let code = [
        (token(0xd0), "0x00"),                   // no answer
        (token(0xd1), "0x600160005260206000f3"), // true
        (token(0xd2), "0x600060005260206000f3"), // false
        (token(0xd3), "0x600260005260206000f3"), // two
        (token(0xd4), "0x600160005260106000f3"), // 16 bytes
        (token(0xd5), "0x600160005260406000f3"), // true, and 32 bytes more
        (token(0xd6), "0x600160005260206000fd"), // reverts with what looks like true
        (token(0xd7), "0xfe"),                   // burns its gas
    ];
    let of = |token| {
        let permitted = plain::TokenPermissions { token, amount: U256::from(1_000) };
        plain::PermitTransferFrom { permitted, ..permit(u64::from(token[0])) }
    };
    let script = [
        asks("no answer", &of(token(0xd0)), 1, End::Done),
        asks("true", &of(token(0xd1)), 1, End::Done),
        asks("false", &of(token(0xd2)), 1, text(FAILED)),
        asks("two", &of(token(0xd3)), 1, text(FAILED)),
        asks("16 bytes", &of(token(0xd4)), 1, text(FAILED)),
        asks("true and more", &of(token(0xd5)), 1, End::Done),
        asks("a revert", &of(token(0xd6)), 1, text(FAILED)),
        asks("a waste of gas", &of(token(0xd7)), 1, text(FAILED)),
        asks("no code", &of(token(0xd8)), 1, End::Done),
        asks(
            "too little balance",
            &plain::PermitTransferFrom {
                permitted: plain::TokenPermissions { token: TOKEN, amount: U256::MAX },
                ..permit(1)
            },
            1_000_001,
            text(FAILED),
        ),
    ];
    check(&code, &script).await;
}

/// A batch over the token and over a token that always refuses.
fn batch(nonce: u64, tokens: &[(Address, u64)]) -> plain::PermitBatchTransferFrom {
    let permission = |&(token, amount): &(Address, u64)| plain::TokenPermissions {
        token,
        amount: U256::from(amount),
    };
    plain::PermitBatchTransferFrom {
        permitted: tokens.iter().map(permission).collect(),
        spender: SPENDER.address(),
        nonce: U256::from(nonce),
        deadline: U256::from(FAR),
    }
}

fn batch_call(signed: &plain::PermitBatchTransferFrom, requested: &[u64], key: Key) -> Bytes {
    let (permit, details) = batch_arguments(signed, requested);
    Permit2::permitTransferFrom_1Call {
        permit,
        transferDetails: details,
        owner: PAYER.address(),
        signature: key.sign_permit2(signed),
    }
    .abi_encode()
    .into()
}

fn batch_arguments(
    signed: &plain::PermitBatchTransferFrom,
    requested: &[u64],
) -> (PermitBatchTransferFrom, Vec<SignatureTransferDetails>) {
    let permitted = signed
        .permitted
        .iter()
        .map(|permission| TokenPermissions { token: permission.token, amount: permission.amount });
    let details = requested
        .iter()
        .map(|&amount| SignatureTransferDetails { to: TO, requestedAmount: U256::from(amount) });
    let permit = PermitBatchTransferFrom {
        permitted: permitted.collect(),
        nonce: signed.nonce,
        deadline: signed.deadline,
    };
    (permit, details.collect())
}

#[tokio::test]
async fn a_batch_is_one_permit_for_several_transfers() {
    let refusing = Address::repeat_byte(0xe0);
    let code = [(refusing, "0x60006000fd")];
    let two = |nonce| batch(nonce, &[(TOKEN, 600), (TOKEN, 400)]);
    let mixed = |nonce| batch(nonce, &[(TOKEN, 600), (refusing, 400)]);
    let ask = |label: &str, signed: &_, requested: &[u64], end| {
        by_spender(label, batch_call(signed, requested, PAYER), end)
    };
    let over = error(&Permit2::InvalidAmount { maxAmount: U256::from(400) });
    let mismatch = || error(&Permit2::LengthMismatch {});
    let expired = plain::PermitBatchTransferFrom { deadline: U256::ONE, ..two(1) };
    let used = error(&Permit2::InvalidNonce {});
    let script = [
        ask("both in part", &two(1), &[599, 1], End::Done),
        ask("again", &two(1), &[1, 1], used.clone()),
        ask("a nonce is spent for both forms", &batch(1, &[]), &[], used),
        ask("the second above its amount", &two(2), &[600, 401], over),
        ask("too few details", &two(2), &[600], mismatch()),
        ask("too many details", &two(2), &[600, 400, 0], mismatch()),
        ask(
            "too late",
            &expired,
            &[],
            error(&Permit2::SignatureExpired { signatureDeadline: U256::ONE }),
        ),
        by_spender(
            "signed by another",
            batch_call(&two(2), &[1, 1], STRANGER),
            error(&Permit2::InvalidSigner {}),
        ),
        ask("one refuses", &mixed(2), &[600, 400], text(FAILED)),
        ask("one that would refuse is not asked for nothing", &mixed(2), &[600, 0], End::Done),
        ask("nothing at all", &batch(3, &[]), &[], End::Done),
    ];
    check(&code, &script).await;
}

/// The witness of `exact`.
fn witness(valid_after: u64) -> exact::Witness {
    exact::Witness { to: TO, validAfter: U256::from(valid_after) }
}

fn witnessed(nonce: u64) -> exact::PermitWitnessTransferFrom {
    exact::PermitWitnessTransferFrom {
        permitted: exact::TokenPermissions { token: TOKEN, amount: U256::from(1_000) },
        spender: SPENDER.address(),
        nonce: U256::from(nonce),
        deadline: U256::from(FAR),
        witness: witness(0),
    }
}

#[tokio::test]
async fn a_witness_is_part_of_what_is_signed() {
    let ask = |label: &str, nonce: u64, witness: &exact::Witness, type_string: &str, end| {
        let data = Permit2::permitWitnessTransferFrom_0Call {
            permit: PermitTransferFrom {
                permitted: TokenPermissions { token: TOKEN, amount: U256::from(1_000) },
                nonce: U256::from(nonce),
                deadline: U256::from(FAR),
            },
            transferDetails: SignatureTransferDetails { to: TO, requestedAmount: U256::from(9) },
            owner: PAYER.address(),
            witness: witness.eip712_hash_struct(),
            witnessTypeString: type_string.to_owned(),
            signature: PAYER.sign_permit2(&witnessed(nonce)),
        };
        by_spender(label, data.abi_encode().into(), end)
    };
    let signer = || error(&Permit2::InvalidSigner {});
    let without = call(&permit(2), 9, PAYER.address(), PAYER.sign_permit2(&witnessed(2)));
    let script = [
        ask("as signed", 1, &witness(0), WITNESS_STRING, End::Done),
        ask("again", 1, &witness(0), WITNESS_STRING, error(&Permit2::InvalidNonce {})),
        ask("another witness", 2, &witness(1), WITNESS_STRING, signer()),
        ask("another type", 2, &witness(0), "Witness witness)", signer()),
        ask("no type", 2, &witness(0), "", signer()),
        by_spender("without its witness", without, signer()),
        ask("as signed after all", 2, &witness(0), WITNESS_STRING, End::Done),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn a_batch_can_have_a_witness() {
    let signed = |nonce| exact::PermitBatchWitnessTransferFrom {
        permitted: vec![
            exact::TokenPermissions { token: TOKEN, amount: U256::from(600) },
            exact::TokenPermissions { token: TOKEN, amount: U256::from(400) },
        ],
        spender: SPENDER.address(),
        nonce: U256::from(nonce),
        deadline: U256::from(FAR),
        witness: witness(0),
    };
    let ask = |label: &str, nonce: u64, requested: &[u64], witness: &exact::Witness, end| {
        let (permit, details) =
            batch_arguments(&batch(nonce, &[(TOKEN, 600), (TOKEN, 400)]), requested);
        let data = Permit2::permitWitnessTransferFrom_1Call {
            permit,
            transferDetails: details,
            owner: PAYER.address(),
            witness: witness.eip712_hash_struct(),
            witnessTypeString: WITNESS_STRING.to_owned(),
            signature: PAYER.sign_permit2(&signed(nonce)),
        };
        by_spender(label, data.abi_encode().into(), end)
    };
    let over = error(&Permit2::InvalidAmount { maxAmount: U256::from(400) });
    let script = [
        ask("as signed", 1, &[600, 400], &witness(0), End::Done),
        ask("again", 1, &[1, 1], &witness(0), error(&Permit2::InvalidNonce {})),
        ask("another witness", 2, &[1, 1], &witness(7), error(&Permit2::InvalidSigner {})),
        ask("above the second amount", 2, &[1, 401], &witness(0), over),
        ask("one detail missing", 2, &[1], &witness(0), error(&Permit2::LengthMismatch {})),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn an_owner_can_take_permits_back() {
    let bitmap = |label: &str, word: u64, used: U256| {
        let data = Permit2::nonceBitmapCall { owner: PAYER.address(), word: U256::from(word) };
        by_spender(label, data.abi_encode().into(), answers(&used))
    };
    let take_back = |label: &str, word: u64, mask: u64| {
        let call = Permit2::invalidateUnorderedNoncesCall {
            wordPos: U256::from(word),
            mask: U256::from(mask),
        };
        done(label, PAYER, PERMIT2_ADDRESS, &call)
    };
    let script = [
        bitmap("nothing used", 0, U256::ZERO),
        asks("use one", &permit(0), 1, End::Done),
        take_back("two more, one of them again", 0, 0b1011),
        bitmap("three used", 0, U256::from(0b1011)),
        asks("one taken back", &permit(3), 1, error(&Permit2::InvalidNonce {})),
        asks("one that is left", &permit(2), 1, End::Done),
        take_back("in another word", 1, 1),
        asks("there", &permit(256), 1, error(&Permit2::InvalidNonce {})),
        bitmap("beside", 2, U256::ZERO),
    ];
    check(&[], &script).await;
}

#[tokio::test]
async fn the_domain_is_that_of_this_chain_and_nonsense_is_refused_alike() {
    let data = Bytes::from(Permit2::DOMAIN_SEPARATORCall {}.abi_encode());
    let whole = call(&permit(1), 1, PAYER.address(), PAYER.sign_permit2(&permit(1)));
    let mut dirty = whole.to_vec();
    // The first byte of the token's word: an address has none there.
    dirty[4] = 1;
    let script = [
        by_spender("domain", data.clone(), answers(&permit2_domain().separator())),
        by_spender("ether", data, silence()).paying(1),
        by_spender("no function", Bytes::new(), silence()),
        by_spender("another function", vec![1, 2, 3, 4].into(), silence()),
        by_spender("half a call", whole.slice(..100), silence()),
        by_spender("a dirty address", dirty.into(), silence()),
    ];
    check(&[], &script).await;
}
