//! Transaction numbers of one account on one chain: none is used twice, none is left out.
//!
//! Numbers are handed out under a short lock and never while waiting for a node, so that many
//! transactions of one account can be on their way at once. A number whose transaction certainly
//! never left is handed out again first, because a chain waits at a gap.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::address::EvmAddress;
use crate::rpc::{RpcClient, RpcError, quantity};

/// How far behind its last transaction an account's gaps are looked for.
const GAPS_MAX: u64 = 10_000;

/// The numbers of one account.
#[derive(Debug)]
pub(crate) struct Nonces {
    address: EvmAddress,
    book: Mutex<Book>,
    /// One question to the node at a time.
    asking: tokio::sync::Mutex<()>,
}

impl Nonces {
    pub(crate) fn new(address: EvmAddress) -> Self {
        Self { address, book: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// The next number; asks the chain if what is known may be out of date.
    pub(crate) async fn take(&self, rpc: &RpcClient) -> Result<u64, RpcError> {
        loop {
            if let Some(nonce) = self.with(Book::take) {
                return Ok(nonce);
            }
            self.ask(rpc).await?;
        }
    }

    async fn ask(&self, rpc: &RpcClient) -> Result<(), RpcError> {
        let _one_at_a_time = self.asking.lock().await;
        if self.with(|book| book.is_current()) {
            return Ok(());
        }
        let params = serde_json::json!([self.address.to_lower_hex(), "pending"]);
        let count = rpc.call("eth_getTransactionCount", params).await?;
        let count = quantity(&count)?;
        self.with(|book| book.learn(count));
        Ok(())
    }

    /// The transaction with this number certainly never left.
    pub(crate) fn give_back(&self, nonce: u64) {
        self.with(|book| book.give_back(nonce));
    }

    /// Another transaction has this number.
    pub(crate) fn taken(&self, nonce: u64) {
        self.with(|book| book.taken(nonce));
    }

    /// The chain's count may have moved without us.
    pub(crate) fn doubt(&self) {
        self.with(Book::doubt);
    }

    /// The transaction with this number was mined.
    pub(crate) fn landed(&self, nonce: u64) {
        self.with(|book| book.landed(nonce));
    }

    /// The transaction with this number was mined, in a block that may still be taken back: the number is
    /// its own until [`Self::landed`].
    pub(crate) fn in_block(&self, nonce: u64) {
        self.with(|book| book.in_block(nonce));
    }

    /// The transaction with this number is on its way: again, or from before this process began.
    pub(crate) fn on_its_way(&self, nonce: u64) {
        self.with(|book| book.on_its_way(nonce));
    }

    /// How many transactions are on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.with(|book| book.in_flight.len())
    }

    /// Whether transactions on their way wait for a number that nobody has.
    pub(crate) fn has_gap(&self) -> bool {
        self.with(|book| book.gap().is_some())
    }

    /// Takes such a number.
    pub(crate) fn take_gap(&self) -> Option<u64> {
        self.with(Book::take_gap)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is known of the numbers. Pure.
#[derive(Debug, Default)]
struct Book {
    /// The first number that was never handed out; unknown at first and when in doubt.
    next: Option<u64>,
    /// Numbers below it that are free again.
    freed: BTreeSet<u64>,
    /// Numbers with a transaction that may be mined.
    in_flight: BTreeSet<u64>,
    /// Numbers with a transaction in a block that may still be taken back.
    in_block: BTreeSet<u64>,
    /// Numbers below this belong to others.
    floor: u64,
}

impl Book {
    fn is_current(&self) -> bool {
        self.next.is_some()
    }

    fn take(&mut self) -> Option<u64> {
        let next = self.next?;
        let nonce = self.freed.pop_first().unwrap_or(next);
        if nonce == next {
            self.next = Some(next.saturating_add(1));
        }
        self.in_flight.insert(nonce);
        Some(nonce)
    }

    fn give_back(&mut self, nonce: u64) {
        self.in_flight.remove(&nonce);
        self.freed.insert(nonce);
        // Free numbers at the end are no gap: they are simply next.
        while let Some(next) = self.next {
            let last = next.saturating_sub(1);
            if !self.freed.remove(&last) {
                break;
            }
            self.next = Some(last);
        }
    }

    fn taken(&mut self, nonce: u64) {
        self.in_flight.remove(&nonce);
        self.floor = self.floor.max(nonce.saturating_add(1));
        self.doubt();
    }

    fn doubt(&mut self) {
        self.next = None;
    }

    fn landed(&mut self, nonce: u64) {
        self.in_flight.remove(&nonce);
        self.in_block.remove(&nonce);
    }

    fn in_block(&mut self, nonce: u64) {
        self.in_flight.remove(&nonce);
        self.in_block.insert(nonce);
    }

    fn on_its_way(&mut self, nonce: u64) {
        self.in_block.remove(&nonce);
        self.freed.remove(&nonce);
        self.in_flight.insert(nonce);
        if self.next.is_some_and(|next| next <= nonce) {
            self.doubt();
        }
    }

    fn is_ours(&self, nonce: u64) -> bool {
        self.in_flight.contains(&nonce) || self.in_block.contains(&nonce)
    }

    /// Takes in the chain's count of mined and waiting transactions. It may lag behind what we
    /// sent, so numbers on their way stay taken; what lies between is free.
    fn learn(&mut self, count: u64) {
        let start = count.max(self.floor);
        let last = self.in_flight.last().max(self.in_block.last());
        let behind = last.map_or(0, |it| it.saturating_add(1));
        let next = start.max(behind);
        // A node that said nonsense once must not make the range long.
        let start = start.max(next.saturating_sub(GAPS_MAX));
        self.freed = (start..next).filter(|it| !self.is_ours(*it)).collect();
        self.next = Some(next);
    }

    fn gap(&self) -> Option<u64> {
        let gap = *self.freed.first()?;
        (gap < *self.in_flight.last()?).then_some(gap)
    }

    fn take_gap(&mut self) -> Option<u64> {
        let gap = self.gap()?;
        self.freed.remove(&gap);
        self.in_flight.insert(gap);
        Some(gap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn book(count: u64) -> Book {
        let mut book = Book::default();
        assert_eq!(book.take(), None);
        book.learn(count);
        book
    }

    #[test]
    fn freed_numbers_come_first_and_gaps_are_seen() {
        let mut book = book(5);
        assert_eq!([book.take(), book.take(), book.take()], [Some(5), Some(6), Some(7)]);
        book.give_back(6);
        assert_eq!(book.take(), Some(6));
        book.give_back(7);
        assert_eq!((book.next, book.freed.len()), (Some(7), 0));
        assert_eq!(book.take(), Some(7));
        book.give_back(5);
        assert_eq!(book.take_gap(), Some(5));
        assert_eq!(book.take_gap(), None);
        book.landed(5);
        assert_eq!(book.take(), Some(8));
    }

    #[test]
    fn a_stranger_with_our_key_is_made_way_for() {
        let mut book = book(5);
        assert_eq!(book.take(), Some(5));
        book.taken(5);
        assert_eq!(book.take(), None);
        // A node that lags still says 5.
        book.learn(5);
        assert_eq!(book.take(), Some(6));
        book.doubt();
        book.learn(9);
        assert_eq!(book.take(), Some(9));
    }

    #[test]
    fn doubt_keeps_what_is_on_its_way() {
        let mut book = book(0);
        for _ in 0..4 {
            book.take();
        }
        book.give_back(1);
        book.doubt();
        book.learn(0);
        assert_eq!([book.take(), book.take()], [Some(1), Some(4)]);
    }

    #[test]
    fn a_number_whose_block_is_taken_back_stays_with_its_transaction() {
        let mut book = book(5);
        assert_eq!([book.take(), book.take()], [Some(5), Some(6)]);
        book.in_block(5);
        book.in_block(6);
        book.doubt();
        // The chain has forgotten both.
        book.learn(5);
        book.on_its_way(5);
        assert_eq!((book.take(), book.take_gap()), (Some(7), None));
        book.landed(6);
        book.landed(5);
        assert_eq!(book.take(), Some(8));
    }

    #[test]
    fn what_an_earlier_process_sent_keeps_its_numbers() {
        let mut book = Book::default();
        book.on_its_way(6);
        book.on_its_way(7);
        book.learn(5);
        assert_eq!([book.take(), book.take()], [Some(5), Some(8)]);
        book.on_its_way(12);
        assert_eq!(book.take(), None);
    }

    #[test]
    fn a_node_that_says_nonsense_makes_no_endless_work() {
        let mut book = book(u64::MAX - 5);
        book.take();
        book.doubt();
        book.learn(0);
        assert!(book.freed.len() <= 10_000);
    }

    proptest! {
        #[test]
        fn no_number_is_out_twice(steps in prop::collection::vec((0_u8..5, 0_usize..8), 1..200)) {
            let mut book = book(3);
            let mut out: Vec<u64> = Vec::new();
            let mut mined = 3_u64;
            for (step, which) in steps {
                match step {
                    0 | 1 => match book.take() {
                        Some(nonce) => {
                            prop_assert!(!out.contains(&nonce));
                            out.push(nonce);
                        }
                        None => book.learn(mined),
                    },
                    2 if which < out.len() => book.give_back(out.swap_remove(which)),
                    3 => {
                        out.sort_unstable();
                        if out.first() == Some(&mined) {
                            book.landed(out.remove(0));
                            mined = mined.saturating_add(1);
                        }
                    }
                    _ => book.doubt(),
                }
            }
            // When everything on its way is mined and every gap filled, none is missing.
            book.doubt();
            book.learn(mined);
            while let Some(gap) = book.take_gap() {
                out.push(gap);
            }
            out.sort_unstable();
            let expected: Vec<u64> = (mined..).take(out.len()).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
