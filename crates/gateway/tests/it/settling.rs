//! The settlement worker against facilitators that fail, lie low and answer late: what is sent,
//! what is never sent again, and what the ledger and the client are told.

mod desk;
mod told;

use std::sync::Arc;
use std::time::Duration;

use farebox_gateway::Settled;
use farebox_protocol::{Amount, PaymentId, Reason, Timestamp};
use farebox_store::AnswerMark;
use farebox_testkit::gate::Gate;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use self::desk::{CHARGE, Desk, SETTLE_BY, START, Says, Sees};

const WAIT: Duration = Duration::from_secs(30);

fn landed(number: u64) -> Settled {
    Settled::Landed { transaction: format!("0x{number:064x}"), charge: Amount::from_units(CHARGE) }
}

impl Desk {
    /// A payment that a request waits for: past the hold, before the settlement.
    async fn withhold(&self, number: u64) -> (PaymentId, tokio::task::JoinHandle<Settled>) {
        let expected = self.settler.expect(PaymentId::from_bytes(desk::id_of(number)));
        let id = self.capture(number, AnswerMark::Withheld).await;
        (id, self.tasks.spawn(expected.settle(WAIT)))
    }

    /// Waits until a settlement was tried, or looked up, so often and is queued again.
    async fn until_asked(&self, id: PaymentId, state: &str, count: usize) {
        let asked = || self.facilitator.settles().len() + self.facilitator.lookups();
        self.until("asked", async || {
            asked() == count && self.payment(id).await.state.name() == state
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_not_sent_is_tried_again_after_growing_pauses_until_it_settles() {
    let mut says = vec![Says::NotSent; 9];
    says.push(Says::Lands);
    let desk = Desk::start(&says, &[]);
    let id = desk.capture(1, AnswerMark::Sent).await;
    desk.settler.kick();
    let mut due = vec![START];
    for tries in 1..=9 {
        desk.until_asked(id, "captured", tries).await;
        due.push(desk.advance_to_due().await);
    }
    desk.until_state(id, "settled").await;
    // Nothing was tried before it was due, and the pauses double up to a minute.
    assert_eq!(desk.facilitator.settles(), due);
    let mut full = Duration::from_millis(500);
    for pair in due.windows(2) {
        let pause = pair[1].since(pair[0]);
        assert!(full / 2 <= pause && pause <= full, "{pause:?} of {full:?}");
        full = (full * 2).min(Duration::from_mins(1));
    }
    assert_eq!(desk.facilitator.lookups(), 0);
    assert_eq!(desk.payment(id).await.refund_owed, None);
}

#[tokio::test]
async fn what_may_have_been_sent_for_a_withheld_answer_is_looked_up_and_never_sent_again() {
    // What the chain shows at last, and what becomes of the payment.
    let ends =
        [(Sees::Landed, "settled", Some("settled_unanswered")), (Sees::Dead, "released", None)];
    for (end, state, owed) in ends {
        let mut sees = vec![Sees::Open, Sees::Nothing, Sees::Open, Sees::CannotTell, Sees::Nothing];
        sees.push(end);
        let desk = Desk::start(&[Says::Unknown], &sees);
        let (id, waiting) = desk.withhold(1).await;
        desk.until_asked(id, "unknown", 1).await;
        desk.clock.advance_to(START.plus(WAIT));
        assert_eq!(waiting.await.unwrap(), Settled::Pending);
        for asked in 2..=6 {
            desk.until_asked(id, "unknown", asked).await;
            desk.advance_to_due().await;
        }
        desk.until_state(id, state).await;
        desk.until("booked", async || desk.payment(id).await.refund_owed.as_deref() == owed).await;
        assert_eq!(desk.facilitator.settles().len(), 1);
        assert_eq!(desk.ledger.next_due_now().await, None);
    }
}

#[tokio::test]
async fn who_still_waits_is_told_what_the_look_up_found() {
    let cases = [
        (Sees::Landed, landed(1), "settled"),
        (
            Sees::Dead,
            Settled::Rejected {
                reason: "invalid_exact_evm_payload_authorization_valid_before".to_owned(),
            },
            "released",
        ),
    ];
    for (sees, told, state) in cases {
        let desk = Desk::start(&[Says::Unknown], &[sees]);
        let (id, waiting) = desk.withhold(1).await;
        desk.until_asked(id, "unknown", 1).await;
        desk.advance_to_due().await;
        assert_eq!(waiting.await.unwrap(), told);
        assert_eq!(desk.payment(id).await.state.name(), state);
        assert_eq!(desk.payment(id).await.refund_owed, None);
        assert_eq!(desk.facilitator.settles().len(), 1);
    }
}

#[tokio::test]
async fn what_may_have_been_sent_for_a_served_answer_is_sent_again_only_when_the_chain_has_it_not()
{
    let sees = [Sees::Nothing, Sees::Nothing, Sees::Open];
    let desk = Desk::start(&[Says::Unknown, Says::Lands], &sees);
    let id = desk.capture(1, AnswerMark::Sent).await;
    desk.settler.kick();
    for asked in 1..=3 {
        desk.until_asked(id, "unknown", asked).await;
        assert_eq!(desk.facilitator.settles().len(), 1);
        desk.advance_to_due().await;
    }
    desk.until_state(id, "settled").await;
    assert_eq!(desk.facilitator.settles().len(), 2);
    assert_eq!(desk.payment(id).await.refund_owed, None);
}

#[tokio::test]
async fn a_refusal_gives_back_what_was_withheld_and_books_what_was_served_as_lost() {
    for (mark, state) in [
        (AnswerMark::Withheld, "released"),
        (AnswerMark::Leaving, "lost"),
        (AnswerMark::Sent, "lost"),
    ] {
        let reason = Reason::InvalidExactEvmInsufficientBalance;
        let desk = Desk::start(&[Says::Rejected(reason.clone())], &[]);
        let (id, told) = if mark == AnswerMark::Withheld {
            let (id, waiting) = desk.withhold(1).await;
            (id, Some(waiting.await.unwrap()))
        } else {
            let id = desk.capture(1, mark).await;
            desk.settler.kick();
            (id, None)
        };
        desk.until_state(id, state).await;
        if let Some(told) = told {
            assert_eq!(told, Settled::Rejected { reason: reason.to_string() });
        }
        assert_eq!(desk.facilitator.settles().len(), 1);
        assert_eq!(desk.ledger.next_due_now().await, None);
    }
}

/// A key that was rotated, a network taken out: whoever was served owes it all the same.
#[tokio::test]
async fn what_is_not_configured_now_waits_until_it_is_or_the_authorisation_ends() {
    let missing = || Says::NotServed(Reason::UptoFacilitatorMismatch);
    let served_again = [missing(), missing(), missing(), Says::Lands];
    let desk = Desk::start(&served_again, &[]);
    let id = desk.capture(1, AnswerMark::Sent).await;
    desk.settler.kick();
    for tries in 1..=3 {
        desk.until_asked(id, "captured", tries).await;
        desk.advance_to_due().await;
    }
    desk.until_state(id, "settled").await;

    // Never again: lost, once no chain takes it any more.
    let desk = Desk::start(&[missing()], &[]);
    let id = desk.capture(1, AnswerMark::Sent).await;
    desk.settler.kick();
    desk.until_asked(id, "captured", 1).await;
    desk.clock.advance_to(START.plus(SETTLE_BY).plus(Duration::from_mins(1)));
    desk.until_asked(id, "captured", 2).await;
    desk.clock.advance(Duration::from_mins(2));
    desk.until_state(id, "lost").await;
    assert_eq!(desk.facilitator.settles().len(), 3);

    // What may have been sent may have landed, which whoever is asked cannot tell now.
    let desk = Desk::start(&[Says::Unknown, missing(), Says::Lands], &[Sees::CannotTell]);
    let id = desk.capture(1, AnswerMark::Sent).await;
    desk.settler.kick();
    desk.until_asked(id, "unknown", 1).await;
    desk.clock.advance_to(START.plus(SETTLE_BY).plus(Duration::from_mins(3)));
    desk.until_asked(id, "captured", 3).await;
    desk.advance_to_due().await;
    desk.until_state(id, "settled").await;
}

/// The client was sent away and nothing was sent: charging now would be charging for nothing.
#[tokio::test]
async fn a_withheld_answer_that_nobody_waits_for_is_given_back_instead_of_sent() {
    let desk = Desk::start(&[Says::NotSent, Says::Lands], &[]);
    let (id, waiting) = desk.withhold(1).await;
    desk.until_asked(id, "captured", 1).await;
    // While the request waits, it is tried again …
    assert_eq!(desk.facilitator.settles().len(), 1);
    desk.clock.advance_to(START.plus(WAIT));
    let told = waiting.await.unwrap();
    // … and the last try may have come in time.
    match told {
        Settled::Landed { .. } => assert_eq!(desk.payment(id).await.state.name(), "settled"),
        Settled::Pending => {
            desk.until_state(id, "released").await;
            assert_eq!(desk.facilitator.settles().len(), 1);
        }
        Settled::Rejected { .. } => panic!("{told:?}"),
    }
}

#[tokio::test]
async fn a_withheld_answer_that_is_not_sent_while_its_request_waits_is_tried_again_for_it() {
    let desk = Desk::start(&[Says::NotSent, Says::NotSent, Says::Lands], &[]);
    let (id, waiting) = desk.withhold(1).await;
    for tries in 1..=2 {
        desk.until_asked(id, "captured", tries).await;
        desk.advance_to_due().await;
    }
    assert_eq!(waiting.await.unwrap(), landed(1));
    assert_eq!(desk.payment(id).await.refund_owed, None);
}

/// Whoever leases a payment right after its capture must know that a request waits for it.
#[tokio::test]
async fn the_worker_may_be_faster_than_the_request_that_waits() {
    let desk = Desk::start(&[Says::Lands], &[]);
    let expected = desk.settler.expect(PaymentId::from_bytes(desk::id_of(1)));
    let id = desk.capture(1, AnswerMark::Withheld).await;
    desk.settler.kick();
    desk.until_state(id, "settled").await;
    assert_eq!(expected.settle(WAIT).await, landed(1));
    assert_eq!(desk.payment(id).await.refund_owed, None);
    assert_eq!(desk.facilitator.settles().len(), 1);
}

/// A facilitator that cannot look is asked again only when asking cannot move money any more.
#[tokio::test]
async fn without_a_look_at_the_chain_a_withheld_answer_waits_for_its_authorisation_to_end() {
    let reason = Reason::InvalidExactEvmPayloadAuthorizationValidBefore;
    let desk = Desk::start(&[Says::Unknown, Says::Rejected(reason)], &[Sees::CannotTell]);
    let (id, waiting) = desk.withhold(1).await;
    desk.until_asked(id, "unknown", 1).await;
    desk.clock.advance_to(START.plus(WAIT));
    assert_eq!(waiting.await.unwrap(), Settled::Pending);
    for asked in 2.. {
        desk.until("looked up", async || {
            desk.facilitator.lookups() + 1 == asked || desk.facilitator.settles().len() == 2
        })
        .await;
        if desk.facilitator.settles().len() == 2 {
            break;
        }
        desk.until_asked(id, "unknown", asked).await;
        desk.advance_to_due().await;
    }
    desk.until_state(id, "released").await;
    let ends = START.plus(SETTLE_BY);
    assert!(
        desk.facilitator.settles().iter().skip(1).all(|it| ends < *it),
        "{:?}",
        desk.facilitator
    );
}

/// "Used" is what a facilitator says of an authorisation that it settled itself: no refusal.
#[tokio::test]
async fn a07_a_nonce_that_our_own_first_try_may_have_used_is_no_refusal() {
    for reason in [Reason::InvalidExactEvmNonceAlreadyUsed, Reason::Permit2InvalidNonce] {
        let says = [Says::Unknown, Says::Rejected(reason), Says::Lands];
        let desk = Desk::start(&says, &[Sees::CannotTell]);
        let id = desk.capture(1, AnswerMark::Sent).await;
        desk.settler.kick();
        desk.until_asked(id, "unknown", 1).await;
        desk.advance_to_due().await;
        desk.until_asked(id, "unknown", 3).await;
        desk.advance_to_due().await;
        desk.until_state(id, "settled").await;
    }
}

#[tokio::test]
async fn a_backlog_drains_with_a_bounded_number_under_way() {
    const BACKLOG: u64 = 500;
    let gate = Arc::new(Gate::default());
    let desk = Desk::start(&[Says::Waits(Arc::clone(&gate))], &[]);
    let ids = join_all((0..BACKLOG).map(|it| desk.capture(it, AnswerMark::Sent))).await;
    desk.settler.kick();
    // All of them, or the peak would be wherever the gate opened.
    gate.reached_by(256).await;
    gate.open();
    let is_drained = async || {
        desk.clock.advance(Duration::from_millis(10));
        desk.ledger.next_due_now().await.is_none() && desk.facilitator.settles().len() == ids.len()
    };
    desk.until("drained", is_drained).await;
    for id in ids {
        desk.until_state(id, "settled").await;
    }
    assert_eq!(desk.facilitator.peak(), 256);
    assert!(desk.facilitator.settles_by_payment().values().all(|it| *it == 1));
}

/// Nor does a request stand in the queue of what nobody waits for.
#[tokio::test]
async fn a_request_does_not_wait_behind_the_backlog() {
    let gate = Arc::new(Gate::default());
    let desk = Desk::start(&[Says::Waits(Arc::clone(&gate))], &[]);
    join_all((0..300).map(|it| desk.capture(it, AnswerMark::Sent))).await;
    desk.settler.kick();
    gate.reached_by(256).await;
    let (_id, waiting) = desk.withhold(1_000).await;
    gate.reached_by(257).await;
    gate.open();
    assert_eq!(waiting.await.unwrap(), landed(1_000));
}

#[tokio::test]
async fn two_settlers_never_settle_the_same_payment() {
    const PAYMENTS: u64 = 200;
    let desk = Desk::start(&[Says::Lands], &[]);
    let stop = CancellationToken::new();
    let other = desk.another(&stop);
    let captures = (0..PAYMENTS).map(|number| {
        let (desk, other) = (&desk, &other);
        async move {
            let id = desk.capture(number, AnswerMark::Leaving).await;
            desk.settler.kick();
            other.kick();
            id
        }
    });
    for id in join_all(captures).await {
        let settled = async || {
            desk.clock.advance(Duration::from_millis(10));
            desk.payment(id).await.state.name() == "settled"
        };
        desk.until("settled", settled).await;
    }
    let counts = desk.facilitator.settles_by_payment();
    assert_eq!(counts.len(), 200);
    assert!(counts.values().all(|it| *it == 1), "{counts:?}");
    stop.cancel();
}

/// A process that ends in the middle of a settlement leaves it to the next one to look.
#[tokio::test]
async fn a_settlement_cut_off_by_the_end_is_looked_up_by_the_next_process() {
    let gate = Arc::new(Gate::default());
    let desk = Desk::start(&[Says::Waits(Arc::clone(&gate))], &[]);
    let served = desk.capture(1, AnswerMark::Sent).await;
    let (withheld, _waiting) = desk.withhold(2).await;
    desk.settler.kick();
    gate.reached_by(2).await;
    let desk = desk.restart(&[Says::Rejected(Reason::InvalidPayload)], &[Sees::Landed]).await;
    desk.settler.kick();
    for id in [served, withheld] {
        desk.until_state(id, "settled").await;
    }
    assert_eq!(desk.payment(served).await.refund_owed, None);
    let owed = desk.payment(withheld).await.refund_owed;
    assert_eq!(owed.as_deref(), Some("settled_unanswered"));
    assert!(desk.facilitator.settles().is_empty());
    assert!(desk.ledger.check().await.unwrap().is_sound());
}

impl Desk {
    /// As after a crash: everything but the file and the clock is new.
    async fn restart(self, says: &[Says], sees: &[Sees]) -> Self {
        let (files, clock) = self.end().await;
        let desk = Self::on(files, clock, says, sees);
        let recovered = desk.recover().await;
        assert_eq!(recovered.to_reconcile, 2);
        desk
    }
}

/// What is due next, for assertions.
trait NextDue {
    async fn next_due_now(&self) -> Option<Timestamp>;
}

impl NextDue for farebox_store::SqliteLedger {
    async fn next_due_now(&self) -> Option<Timestamp> {
        farebox_store::Ledger::next_due(self).await.unwrap()
    }
}
