//! What batches prove, event by event.

use super::*;
use crate::evm::check::tests::payment as any_payment;
use crate::evm::contracts::EXACT_PROXY;
use crate::evm::exact_permit2::ExactPermit2;
use crate::evm::multicall::aggregate;

const TOKEN: Address = Address::repeat_byte(0x70);
const OTHER_TOKEN: Address = Address::repeat_byte(0x71);

fn payment(nonce: u8, units: u128) -> EvmPayment {
    let any = any_payment();
    let value = Amount::from_units(units);
    let authorization = Authorization {
        token: TOKEN,
        spender: EXACT_PROXY,
        value,
        nonce: B256::with_last_byte(nonce),
        limit: Limit::Through(U256::from(1_000).saturating_add(U256::from(nonce))),
        settler: None,
        ..any.authorization
    };
    EvmPayment { method: &ExactPermit2, authorization, amount: value, ..any }
}

fn settle(payment: &EvmPayment) -> ContractCall {
    payment.method.settle_calls(payment).remove(0)
}

fn log(address: Address, topics: Vec<B256>, data: &[u8]) -> Log {
    let (transaction_hash, index) = (B256::ZERO, U256::ZERO);
    let data = data.to_vec().into();
    Log { address, topics, data, transaction_hash, index, removed: false }
}

/// What a settlement that ran leaves.
fn events(payment: &EvmPayment) -> [Log; 2] {
    let it = &payment.authorization;
    let topics = vec![abi::TRANSFER, account(it.payer), account(it.pay_to)];
    let amount = B256::from(U256::from(it.value.units()));
    let settled = log(EXACT_PROXY, vec![super::super::SETTLED], &[]);
    [log(it.token, topics, amount.as_slice()), settled]
}

struct Batched {
    call: ContractCall,
    logs: Vec<Log>,
}

/// A transaction of these calls in which these settlements ran.
fn batch(calls: &[ContractCall], ran: &[&EvmPayment]) -> Batched {
    let logs = ran.iter().flat_map(|it| events(it)).collect();
    Batched { call: aggregate(calls), logs }
}

impl Batched {
    #[track_caller]
    fn check(&self, payment: &EvmPayment, expected: Proof) {
        let seen = Seen { call: &self.call, logs: &self.logs };
        assert_eq!(payment.method.proof(payment, seen), expected);
    }

    fn rivals(&self, payment: &EvmPayment) -> Option<(Vec<B256>, usize)> {
        let seen = Seen { call: &self.call, logs: &self.logs };
        let rivals = payment.method.rivals(payment, seen)?;
        Some((rivals.all.iter().map(|it| it.nonce).collect(), rivals.paid))
    }
}

#[test]
fn each_settlement_that_ran_is_paid_and_no_other() {
    let (one, two, three) = (payment(1, 10), payment(2, 20), payment(3, 30));
    let transfer = [TRANSFERS[0].as_slice(), &[0; 288]].concat().into();
    let by_eip3009 = ContractCall { to: TOKEN, input: transfer };
    let calls = [settle(&one), by_eip3009, settle(&two), settle(&three)];
    let all = batch(&calls, &[&one, &two, &three]);
    for it in [&one, &two, &three] {
        all.check(it, Proof::Paid);
    }
    all.check(&payment(4, 10), Proof::Unrelated);
    let some = batch(&calls, &[&one, &three]);
    some.check(&one, Proof::Paid);
    some.check(&two, Proof::Unrelated);
    some.check(&three, Proof::Paid);
    // What was signed with the same nonce, and paid, spends this one.
    all.check(&payment(1, 11), Proof::Spent);
    batch(&calls, &[]).check(&payment(1, 11), Proof::Unrelated);
}

#[test]
fn a07_of_payments_that_look_alike_all_were_paid_or_it_takes_more_to_tell() {
    let all: Vec<EvmPayment> = (1..=3).map(|nonce| payment(nonce, 10)).collect();
    let [one, two, three] = [&all[0], &all[1], &all[2]];
    let calls: Vec<ContractCall> = all.iter().map(settle).collect();
    batch(&calls, &[one, two, three]).check(two, Proof::Paid);
    batch(&calls, &[]).check(two, Proof::Unrelated);
    let some = batch(&calls, &[one, three]);
    for it in [one, two, three] {
        some.check(it, Proof::Unclear);
        let (rivals, paid) = some.rivals(it).unwrap();
        assert_eq!((rivals.len(), rivals[0], paid), (3, it.authorization.nonce, 2));
    }
    // One that was asked for twice ran once.
    let twice = [settle(one), settle(one)];
    batch(&twice, &[one]).check(one, Proof::Paid);
    assert_eq!(batch(&twice, &[one]).rivals(one), None);
}

#[test]
fn a07_a_rival_is_known_with_all_that_was_signed() {
    let (one, two) = (payment(1, 10), payment(2, 10));
    let batch = batch(&[settle(&one), settle(&two)], &[&two]);
    let seen = Seen { call: &batch.call, logs: &batch.logs };
    let rivals = one.method.rivals(&one, seen).unwrap();
    assert_eq!(rivals, Rivals { all: vec![one.authorization, two.authorization], paid: 1 });
}

#[test]
fn a07_one_transfer_does_not_pay_for_two() {
    let (paid, unpaid) = (payment(1, 10), payment(2, 10));
    // A contract that settles a payment beside, of which another settlement could take the event.
    let stranger = ContractCall { to: Address::repeat_byte(9), input: vec![1, 2, 3, 4].into() };
    let calls = [stranger, settle(&unpaid), settle(&paid)];
    batch(&calls, &[&paid]).check(&unpaid, Proof::Unclear);
    batch(&calls, &[&paid]).check(&paid, Proof::Unclear);
    assert_eq!(batch(&calls, &[&paid]).rivals(&paid), None);
    // A token that calls others while it is being settled in.
    let mut odd = payment(3, 10);
    odd.authorization.token = OTHER_TOKEN;
    let calls = [settle(&odd), settle(&unpaid)];
    batch(&calls, &[&paid]).check(&unpaid, Proof::Unclear);
    // An EIP-3009 call of another contract than the token.
    let transfer = [TRANSFERS[0].as_slice(), &[0; 288]].concat().into();
    let calls = [ContractCall { to: OTHER_TOKEN, input: transfer }, settle(&unpaid)];
    batch(&calls, &[&paid]).check(&unpaid, Proof::Unclear);
}

#[test]
fn a20_a_settlement_without_a_transfer_proves_nothing() {
    let one = payment(1, 10);
    let mut silent = batch(&[settle(&one)], &[&one]);
    silent.logs.remove(0);
    silent.check(&one, Proof::Unrelated);
    let mut other = batch(&[settle(&one)], &[&one]);
    other.logs[0].data = B256::with_last_byte(9).to_vec().into();
    other.check(&one, Proof::Unrelated);
    let two = payment(2, 20);
    let mut removed = batch(&[settle(&one), settle(&two)], &[&one, &two]);
    removed.logs[0].removed = true;
    removed.check(&two, Proof::Unclear);
}
