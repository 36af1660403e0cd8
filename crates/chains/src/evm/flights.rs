//! Payments that are being settled: one flight each, however many ask for it.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::{Address, B256, Bytes};
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};
use tokio::sync::watch;

use super::authorization::Authorization;
use super::check::EvmPayment;
use crate::facilitator::{FacilitatorError, SettleError, Settlement};

/// The most payments that are being settled on one network at a time.
const FLIGHTS_MAX: usize = 8_192;
/// How many settlements are remembered, to answer repeats without asking the chain.
const REMEMBERED_MAX: usize = 8_192;

/// How many payments that were settled at nothing are remembered.
const UNSPENT_MAX: usize = 65_536;

/// The payments of one network that are being settled, and those that were.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    flights: HashMap<PaymentId, Flight>,
    settled: HashMap<PaymentId, (Terms, Settlement)>,
    order: VecDeque<PaymentId>,
    /// Payments that were settled at nothing, until they end.
    unspent: HashMap<Gift, (Terms, Timestamp)>,
}

/// A payment and whom it would have paid. What one seller gives away says nothing of another: a payer
/// can sign the same nonce to both.
type Gift = (PaymentId, Address);

/// What was signed and what is to be moved of it: a repeat is the same in both. So is the signature where
/// a contract must judge it: a bad one, of which nothing is known yet, may not stand for the good one.
type Terms = (Authorization, Amount, Option<Bytes>);

#[derive(Clone, Debug)]
struct Flight {
    payment: EvmPayment,
    progress: watch::Receiver<Progress>,
}

/// How far a flight is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The transaction that may move the money.
    pub(crate) transaction: Option<B256>,
    /// How it ended.
    pub(crate) outcome: Option<Outcome>,
}

/// How a flight ended; [`SettleError`] for several listeners.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Settled(Settlement),
    Rejected { reason: Reason, message: String },
    NotServed { reason: Reason, message: String },
    NotSent(Arc<dyn Error + Send + Sync>),
    Unknown { transaction: Option<B256> },
}

/// What somebody who wants a payment settled has to do.
#[derive(Debug)]
pub(crate) enum Join {
    /// Nothing: it was settled.
    Settled(Settlement),
    /// Fly, and tell by this; and listen.
    Start(Pilot, watch::Receiver<Progress>),
    /// Listen.
    Follow(watch::Receiver<Progress>),
    /// Another authorisation with the same nonce, or another amount, is on its way.
    Conflict,
    /// It was settled at nothing.
    Unspent,
    /// Come back later.
    Full,
}

/// The one who flies, and whoever else can say what was sent.
#[derive(Clone, Debug)]
pub(crate) struct Pilot {
    progress: watch::Sender<Progress>,
}

impl Flights {
    pub(crate) fn join(&self, payment: &EvmPayment) -> Join {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((terms, settlement)) = book.settled.get(&payment.id)
            && *terms == terms_of(payment)
        {
            return Join::Settled(settlement.clone());
        }
        if book.unspent.contains_key(&gift_of(payment)) {
            return Join::Unspent;
        }
        if let Some(flight) = book.flights.get(&payment.id) {
            let same = terms_of(&flight.payment) == terms_of(payment);
            return if same { Join::Follow(flight.progress.clone()) } else { Join::Conflict };
        }
        if FLIGHTS_MAX <= book.flights.len() {
            return Join::Full;
        }
        let (sender, receiver) = watch::channel(Progress::default());
        let flight = Flight { payment: payment.clone(), progress: receiver.clone() };
        book.flights.insert(payment.id, flight);
        Join::Start(Pilot { progress: sender }, receiver)
    }

    /// The flight is over.
    pub(crate) fn finish(&self, payment: &EvmPayment, pilot: &Pilot, outcome: Outcome) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.flights.remove(&payment.id);
        if let Outcome::Settled(settlement) = &outcome {
            let row = (terms_of(payment), settlement.clone());
            if book.settled.insert(payment.id, row).is_none() {
                book.order.push_back(payment.id);
            }
            if REMEMBERED_MAX < book.order.len()
                && let Some(oldest) = book.order.pop_front()
            {
                book.settled.remove(&oldest);
            }
        }
        drop(book);
        pilot.progress.send_modify(|it| it.outcome = Some(outcome));
    }
}

impl Flights {
    /// What was settled by this transaction is so no longer.
    pub(crate) fn undo(&self, transaction: &B256) {
        let name = transaction.to_string();
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.settled.retain(|_, (_, it)| it.transaction != name);
        let Book { settled, order, .. } = &mut *book;
        order.retain(|it| settled.contains_key(it));
    }
}

/// What becomes of a settlement of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// It is settled: nothing can be charged of this payment any more.
    Settled,
    /// Something was or is being charged.
    Charged,
}

impl Flights {
    /// Settles a payment at nothing, which sends nothing and uses no nonce, so that it must be
    /// remembered as long as it could be charged.
    pub(crate) fn settle_nothing(&self, payment: &EvmPayment, now: Timestamp) -> Nothing {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, gift, terms) = (payment.id, gift_of(payment), terms_of(payment));
        if book.flights.contains_key(&id) || book.settled.contains_key(&id) {
            return Nothing::Charged;
        }
        if let Some((known, _)) = book.unspent.get(&gift) {
            return if *known == terms { Nothing::Settled } else { Nothing::Charged };
        }
        let ends = payment.authorization.ends();
        if ends <= now {
            return Nothing::Settled;
        }
        if UNSPENT_MAX <= book.unspent.len() {
            book.unspent.retain(|_, (_, ends)| now < *ends);
        }
        if UNSPENT_MAX <= book.unspent.len() {
            // What ends next is what is lost least by.
            let next = book.unspent.iter().min_by_key(|(_, (_, ends))| *ends).map(|(it, _)| *it);
            next.and_then(|it| book.unspent.remove(&it));
        }
        book.unspent.insert(gift, (terms, ends));
        Nothing::Settled
    }

    /// Whether a payment was settled at nothing.
    pub(crate) fn is_unspent(&self, payment: &EvmPayment) -> bool {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.unspent.contains_key(&gift_of(payment))
    }
}

fn gift_of(payment: &EvmPayment) -> Gift {
    (payment.id, payment.authorization.pay_to)
}

fn terms_of(payment: &EvmPayment) -> Terms {
    let by_wallet = payment.signed_by.wallet().map(|it| it.bytes.clone());
    (payment.authorization, payment.amount, by_wallet)
}

impl Pilot {
    /// The transaction that may move the money.
    pub(crate) fn transaction(&self) -> Option<B256> {
        self.progress.borrow().transaction
    }

    /// This transaction may move the money from now on; `None`: none does.
    pub(crate) fn sent(&self, transaction: Option<B256>) {
        self.progress.send_modify(|it| it.transaction = transaction);
    }
}

impl Outcome {
    pub(crate) fn not_sent(error: impl Error + Send + Sync + 'static) -> Self {
        Self::NotSent(Arc::new(error))
    }

    pub(crate) fn into_result(self) -> Result<Settlement, SettleError> {
        match self {
            Self::Settled(settlement) => Ok(settlement),
            Self::Rejected { reason, message } => Err(SettleError::Rejected { reason, message }),
            Self::NotServed { reason, message } => Err(SettleError::NotServed { reason, message }),
            Self::NotSent(error) => {
                let context = error.to_string();
                let source = error.source().is_some().then_some(Cause(error));
                let source = source.map(|it| -> Box<dyn Error + Send + Sync> { Box::new(it) });
                Err(SettleError::NotSent(FacilitatorError { context, source }))
            }
            Self::Unknown { transaction } => {
                Err(SettleError::Unknown { transaction: transaction.map(|it| it.to_string()) })
            }
        }
    }
}

/// What caused an error that several listeners get.
#[derive(Debug)]
struct Cause(Arc<dyn Error + Send + Sync>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.source().map_or(Ok(()), |it| fmt::Display::fmt(it, f))
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::evm::check::tests::payment;

    fn numbered(number: usize) -> EvmPayment {
        static ANY: LazyLock<EvmPayment> = LazyLock::new(payment);
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let amount = Amount::from_units(0);
        EvmPayment { id: PaymentId::from_bytes(id), amount, ..ANY.clone() }
    }

    #[test]
    fn what_was_settled_at_nothing_stays_so_until_it_ends() {
        let (flights, zero) = (Flights::default(), numbered(1));
        let now = Timestamp::from_seconds(1);
        assert_eq!(flights.settle_nothing(&zero, now), Nothing::Settled);
        assert_eq!(flights.settle_nothing(&zero, now), Nothing::Settled);
        let some = EvmPayment { amount: Amount::from_units(5), ..numbered(1) };
        assert!(matches!(flights.join(&some), Join::Unspent));
        assert!(flights.is_unspent(&some));

        let flying = numbered(2);
        let Join::Start(pilot, _progress) = flights.join(&flying) else { panic!() };
        assert_eq!(flights.settle_nothing(&flying, now), Nothing::Charged);
        flights.finish(&flying, &pilot, Outcome::Unknown { transaction: None });
        assert_eq!(flights.settle_nothing(&flying, now), Nothing::Settled);

        // What has ended can be charged by nobody, so that it need not be remembered.
        let late = numbered(3);
        assert_eq!(flights.settle_nothing(&late, late.authorization.ends()), Nothing::Settled);
        assert!(!flights.is_unspent(&late));
    }

    /// A payer signs one nonce to two sellers, and one of them asks for nothing.
    #[test]
    fn a6_what_one_seller_gives_away_is_not_taken_from_another() {
        let (flights, zero) = (Flights::default(), numbered(1));
        let now = Timestamp::from_seconds(1);
        assert_eq!(flights.settle_nothing(&zero, now), Nothing::Settled);
        let pay_to = Address::repeat_byte(0x77);
        let authorization = Authorization { pay_to, ..zero.authorization };
        let other = EvmPayment { amount: Amount::from_units(5), authorization, ..numbered(1) };
        assert!(!flights.is_unspent(&other));
        let Join::Start(pilot, _progress) = flights.join(&other) else { panic!() };
        flights.finish(&other, &pilot, Outcome::Unknown { transaction: None });
        assert!(flights.is_unspent(&zero));
    }

    #[test]
    fn memory_of_nothing_is_bounded() {
        let flights = Flights::default();
        let now = Timestamp::from_seconds(1);
        for number in 0..UNSPENT_MAX.saturating_add(10) {
            assert_eq!(flights.settle_nothing(&numbered(number), now), Nothing::Settled);
        }
        assert_eq!(flights.0.lock().unwrap().unspent.len(), UNSPENT_MAX);
        // The newest is among them.
        assert!(flights.is_unspent(&numbered(UNSPENT_MAX.saturating_add(9))));
        let end = payment().authorization.ends();
        let last = numbered(usize::MAX);
        let longer = Authorization {
            limit: crate::evm::authorization::Limit::Before(alloy_primitives::U256::MAX),
            ..last.authorization
        };
        flights.settle_nothing(&EvmPayment { authorization: longer, ..last }, end);
        assert_eq!(flights.0.lock().unwrap().unspent.len(), 1);
    }
}
