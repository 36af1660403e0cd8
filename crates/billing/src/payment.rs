//! The life of one payment: a closed set of states, each with just its own data.
//!
//! `Held → Serving → Captured → Settling → Settled`, and the ways out: `Released`, `Unknown`
//! (→ `Settled`, `Lost`, `Released`), `Lost`. A chain that takes a block back makes `Settled` `Unknown`. The store keeps the state and changes it through
//! [`Payment::on`] alone, so a row can never take a step that this table does not have. ADR 0005.

use farebox_protocol::Amount;

/// Where a payment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Payment {
    /// Funds are reserved; nothing is owed yet.
    Held {
        /// The most that can be charged.
        limit: Amount,
    },
    /// The upstream was called. This state never times out: recovery captures the checkpoint.
    Serving {
        /// The most that can be charged.
        limit: Amount,
        /// What the last durable checkpoint says is owed for what may have left: by the usage so
        /// far, estimated where the upstream has not told it yet.
        delivered: Amount,
    },
    /// The work is done and priced; `charge` is owed and its settlement is queued.
    Captured {
        /// What is owed.
        charge: Amount,
    },
    /// A settlement is under way; it may reach the chain at any moment.
    Settling {
        /// What is owed.
        charge: Amount,
    },
    /// Sent, and nobody knows yet whether it landed. Look; never send something else.
    Unknown {
        /// What is owed.
        charge: Amount,
        /// The transaction to look for, if its name is known.
        transaction: Option<String>,
    },
    /// On chain.
    Settled {
        /// What was paid.
        charge: Amount,
        /// By this transaction.
        transaction: String,
    },
    /// Given back without a charge.
    Released {
        /// Why.
        why: Release,
    },
    /// Served, and the money cannot be had any more: booked, never hidden.
    Lost {
        /// What was owed.
        charge: Amount,
        /// The settlement's `errorReason`.
        reason: String,
    },
}

/// Why a hold was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The upstream could not be reached, refused or failed before a byte left.
    UpstreamFailed,
    /// The settlement was refused and nothing had left.
    SettlementRejected,
    /// The process ended before a byte left.
    Crashed,
    /// The server was stopped before the upstream was called.
    Shutdown,
    /// The request turned out to cost nothing.
    NothingOwed,
}

impl Release {
    /// Every reason with its stored name.
    const NAMES: [(Self, &'static str); 5] = [
        (Self::UpstreamFailed, "upstream_failed"),
        (Self::SettlementRejected, "settlement_rejected"),
        (Self::Crashed, "crashed"),
        (Self::Shutdown, "shutdown"),
        (Self::NothingOwed, "nothing_owed"),
    ];

    /// The stored and displayed name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|it| it.0 == self).map_or("", |it| it.1)
    }

    /// The reason of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|it| it.1 == text).map(|it| it.0)
    }
}

/// What happens to a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The last point of free refusal is passed.
    ServeBegan,
    /// So much is owed for what may leave now; the checkpoint is durable before it leaves.
    Delivered(Amount),
    /// The answer is complete, or was cut, and priced; or, where settling comes before the work,
    /// the whole is charged.
    Priced(Amount),
    /// A settlement is about to be sent.
    SettlementBegan,
    /// Nothing was sent; the settlement is queued again.
    NotSent,
    /// A settlement was sent and the wait for it failed.
    Unanswered(Option<String>),
    /// A settlement was seen on chain.
    Confirmed(String),
    /// The chain will never accept it, and something had left.
    Rejected(String),
    /// Nothing left and nothing is owed.
    Abandoned(Release),
    /// Nothing left after all, whatever was announced or booked: whoever had the answer says so. No
    /// settlement can land any more.
    Withdrawn(Release),
    /// The chain has taken back the block with the settlement.
    Reopened,
}

/// The event cannot happen in that state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal transition from {state:?} on {event:?}")]
pub struct Illegal {
    /// Where the payment stands, unchanged.
    pub state: Box<Payment>,
    /// What cannot happen there.
    pub event: Box<Event>,
}

impl Payment {
    /// The next state: pure, total, and the only place where states change.
    pub fn on(self, event: Event) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Held { limit }, Event::ServeBegan) => {
                Ok(Self::Serving { limit, delivered: Amount::ZERO })
            }
            (Self::Serving { limit, delivered }, Event::Delivered(now))
                if delivered <= now && now <= limit =>
            {
                Ok(Self::Serving { limit, delivered: now })
            }
            (Self::Held { limit }, Event::Priced(charge)) if charge <= limit => {
                Ok(Self::Captured { charge })
            }
            // A checkpoint is an estimate, which the upstream's own count may undercut; but what has
            // left is never free.
            (Self::Serving { limit, delivered }, Event::Priced(charge))
                if charge <= limit && (delivered.is_zero() || !charge.is_zero()) =>
            {
                Ok(Self::Captured { charge })
            }
            (state, Event::Abandoned(why)) if state.can_be_abandoned() => {
                Ok(Self::Released { why })
            }
            (state, Event::Withdrawn(why)) if state.can_be_withdrawn() => {
                Ok(Self::Released { why })
            }
            (state, event) => state.on_settlement(event),
        }
    }

    /// The half of the table that begins with a capture.
    fn on_settlement(self, event: Event) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Captured { charge } | Self::Unknown { charge, .. }, Event::SettlementBegan) => {
                Ok(Self::Settling { charge })
            }
            (Self::Settling { charge }, Event::NotSent) => Ok(Self::Captured { charge }),
            (Self::Settling { charge }, Event::Unanswered(transaction)) => {
                Ok(Self::Unknown { charge, transaction })
            }
            (
                Self::Settling { charge } | Self::Unknown { charge, .. },
                Event::Confirmed(transaction),
            ) => Ok(Self::Settled { charge, transaction }),
            // It may land again, by itself or by another transaction: to be looked up.
            (Self::Settled { charge, transaction }, Event::Reopened) => {
                Ok(Self::Unknown { charge, transaction: Some(transaction) })
            }
            (Self::Settling { charge } | Self::Unknown { charge, .. }, Event::Rejected(reason)) => {
                Ok(Self::Lost { charge, reason })
            }
            (state, event) => Err(Illegal { state: Box::new(state), event: Box::new(event) }),
        }
    }

    /// Nothing may have left: whoever asks must also know that no answer byte did (for a captured
    /// payment the store's answer mark says so) and that no settlement can still land.
    fn can_be_abandoned(&self) -> bool {
        match self {
            Self::Held { .. }
            | Self::Captured { .. }
            | Self::Settling { .. }
            | Self::Unknown { .. } => true,
            Self::Serving { delivered, .. } => delivered.is_zero(),
            Self::Settled { .. } | Self::Released { .. } | Self::Lost { .. } => false,
        }
    }

    /// Nothing of it can land on a chain: no settlement has begun, or the chain will never accept it.
    fn can_be_withdrawn(&self) -> bool {
        match self {
            Self::Held { .. }
            | Self::Serving { .. }
            | Self::Captured { .. }
            | Self::Lost { .. } => true,
            Self::Settling { .. }
            | Self::Unknown { .. }
            | Self::Settled { .. }
            | Self::Released { .. } => false,
        }
    }

    /// The stored and displayed name of the state.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Held { .. } => "held",
            Self::Serving { .. } => "serving",
            Self::Captured { .. } => "captured",
            Self::Settling { .. } => "settling",
            Self::Unknown { .. } => "unknown",
            Self::Settled { .. } => "settled",
            Self::Released { .. } => "released",
            Self::Lost { .. } => "lost",
        }
    }

    /// What counts against the payer's exposure limit: what is served and not paid yet, and what was
    /// served and never will be paid. Without the latter a payer who moves the money away in time
    /// would be served up to the limit again and again (attacks A3, A6).
    pub fn exposure(&self) -> Amount {
        match self {
            Self::Held { limit } | Self::Serving { limit, .. } => *limit,
            Self::Captured { charge }
            | Self::Settling { charge }
            | Self::Unknown { charge, .. }
            | Self::Lost { charge, .. } => *charge,
            Self::Settled { .. } | Self::Released { .. } => Amount::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(limit: u128) -> Payment {
        let held = Payment::Held { limit: Amount::from_units(limit) };
        held.on(Event::ServeBegan).unwrap()
    }

    #[test]
    fn a_charge_is_within_the_hold_and_something_where_something_left() {
        assert!(serving(10).on(Event::Priced(Amount::ZERO)).is_ok());
        assert!(serving(10).on(Event::Priced(Amount::from_units(10))).is_ok());
        assert!(serving(10).on(Event::Priced(Amount::from_units(11))).is_err());
        let some = serving(10).on(Event::Delivered(Amount::from_units(3))).unwrap();
        assert!(some.clone().on(Event::Priced(Amount::ZERO)).is_err());
        assert!(some.clone().on(Event::Priced(Amount::from_units(11))).is_err());
        assert!(some.clone().on(Event::Priced(Amount::from_units(1))).is_ok());
        assert!(some.on(Event::Priced(Amount::from_units(3))).is_ok());
    }

    #[test]
    fn what_was_delivered_is_never_given_back() {
        let some = serving(10).on(Event::Delivered(Amount::from_units(3))).unwrap();
        assert!(some.on(Event::Abandoned(Release::Crashed)).is_err());
        assert!(serving(10).on(Event::Abandoned(Release::Crashed)).is_ok());
    }

    #[test]
    fn what_was_only_announced_is_withdrawn_unless_money_may_move() {
        let why = Release::UpstreamFailed;
        let charge = Amount::from_units(3);
        let some = serving(10).on(Event::Delivered(charge)).unwrap();
        let lost = Payment::Lost { charge, reason: "expired".to_owned() };
        for state in [some, Payment::Captured { charge }, lost] {
            assert_eq!(state.on(Event::Withdrawn(why)).unwrap(), Payment::Released { why });
        }
        let settled = Payment::Settled { charge, transaction: "0x1".to_owned() };
        for state in [Payment::Settling { charge }, settled, Payment::Released { why }] {
            assert!(state.on(Event::Withdrawn(why)).is_err());
        }
    }

    #[test]
    fn a_checkpoint_never_falls() {
        let some = serving(10).on(Event::Delivered(Amount::from_units(3))).unwrap();
        assert!(some.on(Event::Delivered(Amount::from_units(2))).is_err());
    }

    #[test]
    fn nothing_settles_twice_or_without_having_begun() {
        let settled = Payment::Settled { charge: Amount::ZERO, transaction: "0x1".to_owned() };
        assert!(settled.clone().on(Event::Confirmed("0x2".to_owned())).is_err());
        assert!(settled.on(Event::SettlementBegan).is_err());
        let captured = Payment::Captured { charge: Amount::ZERO };
        assert!(captured.on(Event::Confirmed("0x2".to_owned())).is_err());
    }

    #[test]
    fn only_what_was_settled_is_reopened_and_can_be_settled_again() {
        let charge = Amount::from_units(3);
        let settled = Payment::Settled { charge, transaction: "0x1".to_owned() };
        let unknown = settled.on(Event::Reopened).unwrap();
        let name = Some("0x1".to_owned());
        assert_eq!(unknown, Payment::Unknown { charge, transaction: name });
        assert!(unknown.clone().on(Event::Reopened).is_err());
        let again = unknown.clone().on(Event::Confirmed("0x2".to_owned())).unwrap();
        assert_eq!(again, Payment::Settled { charge, transaction: "0x2".to_owned() });
        assert!(unknown.on(Event::Rejected("expired".to_owned())).is_ok());
        assert!(Payment::Captured { charge }.on(Event::Reopened).is_err());
    }

    #[test]
    fn every_release_has_a_name() {
        for (why, name) in Release::NAMES {
            assert_eq!(Release::parse(name), Some(why));
            assert_eq!(why.as_str(), name);
        }
    }
}
