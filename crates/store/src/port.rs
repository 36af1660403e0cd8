//! The port: what a ledger can do, and the evidence that it was done.

use std::fmt;

use async_trait::async_trait;
use farebox_billing::{Payment, Release};
use farebox_protocol::{Amount, Asset, Digest, PaymentId, Timestamp};

/// The ledger. Operations of one payment are linearised; `Ok` means durable.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug + 'static {
    /// Holds `terms.limit` for a payment that was never seen before, or was seen with the same
    /// fingerprint and released. The one place where a payment id is taken, for ever, and in the same
    /// commit the request keys that came with it. If the caller stops waiting, or is told that the
    /// outcome is unknown, the hold is given back by itself.
    async fn admit(&self, admit: Admit) -> Result<Admitted, StoreError>;

    /// Marks the last point of free refusal: from here on the hold is never taken back under
    /// whoever serves it.
    async fn begin_serve(&self, hold: &Hold, now: Timestamp) -> Result<(), StoreError>;

    /// Records durably, before it leaves, what is owed for what is about to leave. Never falls.
    async fn meter(&self, hold: &Hold, delivered: Amount, now: Timestamp)
    -> Result<(), StoreError>;

    /// Charges what the work cost and queues its settlement, in one commit. On error the hold comes
    /// back: it must still be captured or released. Asked again with the same hold and charge, it
    /// answers the same. Before `begin_serve` only [`SettleMode::Before`] can be captured. What was
    /// metered counts as [`AnswerMark::Leaving`] at least.
    async fn capture(
        &self,
        hold: Hold,
        charge: Amount,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<Captured, CaptureFailed>;

    /// Gives the hold back without a charge. Refused if something was recorded as delivered. Asked
    /// again for the same reason, it answers the same.
    async fn release(&self, hold: &Hold, why: Release, now: Timestamp) -> Result<(), StoreError>;

    /// For whoever gives up on a `meter` or a `capture` whose outcome it does not know, before a byte
    /// left: takes back what was recorded, if anything was. Where no settlement can land, the hold
    /// is given back. Where one may, the answer counts as [`AnswerMark::Withheld`] again: if it
    /// lands, or has landed, it is owed back; if not, the payment is released. Refused for what was
    /// recorded as [`AnswerMark::Sent`]. Asked again, it answers the same.
    async fn withdraw(
        &self,
        hold: &Hold,
        why: Release,
        now: Timestamp,
    ) -> Result<Payment, StoreError>;

    /// Records that an answer is about to leave, or has left in full, for a payment already
    /// captured. Fenced if it is not captured or was given back: then nothing may leave. A payment
    /// captured as [`AnswerMark::Withheld`] and settled is owed back by `recover` unless it was
    /// marked [`AnswerMark::Sent`].
    async fn mark_answer(
        &self,
        id: PaymentId,
        mark: AnswerMark,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Records that a settled payment is owed back to its payer, and why; the first reason stands.
    /// Fenced if it is not settled.
    async fn owe_refund(&self, id: PaymentId, why: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Takes due settlements out of the queue: each is moved to `Settling` durably and is given to
    /// nobody else until it is resolved. `only` restricts to one payment (the caller waits for it);
    /// its first try is due whatever `now` is. If the caller stops waiting, or is told that the
    /// outcome is unknown, they are queued again by themselves.
    async fn lease_jobs(
        &self,
        only: Option<PaymentId>,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError>;

    /// Records what became of a leased settlement. Asked again with the same, it answers the same.
    /// If whoever waited with the answer was lost in a crash, a success is booked as owed back.
    async fn resolve_job(
        &self,
        id: PaymentId,
        resolution: Resolution,
        now: Timestamp,
    ) -> Result<Payment, StoreError>;

    /// A payment that is settled, or about to be, is not final: at `look_at` it has to be looked whether
    /// its chain still has it. `None`: it is final. Fenced if it is neither.
    async fn watch(&self, id: PaymentId, look_at: Option<Timestamp>) -> Result<(), StoreError>;

    /// Settled payments that have to be looked at, at most `max`. They stay so until [`Ledger::watch`]
    /// or [`Ledger::reopen`] says otherwise.
    async fn due_watches(&self, max: usize, now: Timestamp) -> Result<Vec<Watch>, StoreError>;

    /// The chain has taken back the transaction by which a payment was settled: it is owed again and
    /// queued, to be looked up. What was owed back for it is so no longer. A payment that is not
    /// settled by this transaction stays as it is. Answers where it stands then.
    async fn reopen(
        &self,
        id: PaymentId,
        transaction: &str,
        now: Timestamp,
    ) -> Result<Payment, StoreError>;

    /// When the next queued settlement is due, or the next watched one has to be looked at.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// What is known of a payment.
    async fn lookup(&self, id: PaymentId) -> Result<Option<StoredPayment>, StoreError>;

    /// All payments in the order of their admission, oldest first, at most `max` after `after`.
    async fn list(
        &self,
        after: Option<PaymentId>,
        max: usize,
    ) -> Result<Vec<StoredPayment>, StoreError>;

    /// Puts in order what a crash left behind; run once, before serving. Holds without a durable
    /// checkpoint are released; holds with one are captured at it; captured payments of which no
    /// byte left and no settlement began are released; the rest is queued to be reconciled.
    /// Running it again changes nothing.
    async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError>;

    /// A secret of this ledger, made at random on first use and the same ever after.
    async fn secret(&self, name: &str) -> Result<[u8; 32], StoreError>;

    /// Whether new payments are taken, as far as is known by now. Asked for every request, so it
    /// waits for nothing. If they are not, [`Ledger::admit`] is unavailable.
    fn intake(&self) -> Intake {
        Intake::Open
    }

    /// Waits until everything accepted so far is durable, then closes. Later calls fail.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Whether new payments are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// They are.
    Open,
    /// There is no room for more; what is held can still be captured, released and settled. Ends by
    /// itself when there is room again.
    Full,
    /// Nobody knows which payments were taken before. Ends when a person has accepted that.
    Quarantined(Quarantine),
}

impl fmt::Display for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("new payments are taken"),
            Self::Full => f.write_str("there is no room for new payments"),
            Self::Quarantined(it) => write!(f, "the ledger is in quarantine: {}", it.reason),
        }
    }
}

/// A ledger that may have forgotten payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// How that is known.
    pub reason: QuarantineReason,
    /// When the backup was made, if it is one that says so.
    pub copied_at: Option<Timestamp>,
    /// From when on no forgotten payment can be presented again; known once a gateway runs on it.
    pub safe_from: Option<Timestamp>,
}

/// How it is known that a ledger may have forgotten payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineReason {
    /// It is a backup.
    Backup,
    /// Its journal ends before what it is known to have reached.
    Behind,
    /// It stands in the place of another ledger.
    Stranger,
    /// What it is known to have reached is lost.
    Unmarked,
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "it is a backup that was restored",
            Self::Behind => "it knows less than the ledger that was in its place",
            Self::Stranger => "it is not the ledger that was in its place",
            Self::Unmarked => {
                "the mark beside it is missing, so nobody knows whether it is the last one"
            }
        })
    }
}

/// When the money moves, seen from the answer. Per route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleMode {
    /// Settle, then answer; streams settle when they end.
    After,
    /// Settle before the upstream is called.
    Before,
    /// Answer as soon as the capture is durable; settle when there is time.
    Background,
}

impl SettleMode {
    /// The word in the configuration and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Before => "before",
            Self::Background => "background",
        }
    }

    /// The mode of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::After, Self::Before, Self::Background].into_iter().find(|it| it.as_str() == text)
    }
}

/// What of an answer may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerMark {
    /// Nothing; whatever there is, is withheld until the settlement.
    Withheld,
    /// It is about to leave, or a part has.
    Leaving,
    /// All of it was handed to the connection, or the client had gone.
    Sent,
}

/// What a payment is for and how it is paid; fixed when it is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its name, for ever.
    pub id: PaymentId,
    /// Binds the id to one request: method, target, body, price version, payTo, asset, payer.
    pub fingerprint: Digest,
    /// The route's name.
    pub route: String,
    /// `exact`, …
    pub scheme: String,
    /// In which token on which network.
    pub asset: Asset,
    /// Who pays.
    pub payer: String,
    /// Who is paid.
    pub pay_to: String,
    /// The most that can be charged.
    pub limit: Amount,
    /// When the money moves.
    pub settle: SettleMode,
    /// The price book that the quote was made with.
    pub price_version: String,
    /// The settlement must have been sent by then: the authorisation's deadline less a margin.
    pub settle_by: Timestamp,
    /// The client's payment payload, as it came.
    pub payload: String,
    /// Our requirements, as the facilitator gets them.
    pub requirements: String,
}

/// A name that a payer gave to a request, so that asking again is not paying again. It belongs to the
/// first payment that came with it, for ever; while that one is released, the same request may bring
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Of the payer and what it calls the request: two payers never share one.
    pub name: Digest,
    /// Of the request, whatever it is paid with: method, target, body.
    pub request: Digest,
}

/// A request for a hold.
#[derive(Clone, Debug)]
pub struct Admit {
    /// Of what.
    pub terms: Terms,
    /// What its request is called; refused where one of them belongs to another payment.
    pub keys: Vec<RequestKey>,
    /// Σ open of this payer in this asset, this hold included, may not exceed it.
    pub exposure_limit: Option<Amount>,
    /// When.
    pub now: Timestamp,
}

/// What became of a request for a hold.
#[derive(Debug)]
pub enum Admitted {
    /// The amount is held.
    New(Hold),
    /// It is not, and nothing changed.
    Refused(Refusal),
}

/// Why a hold was not given.
#[derive(Debug)]
pub enum Refusal {
    /// The same payment for the same request is being worked on.
    InProgress,
    /// The payment was used: for this very request (its receipt may be shown to whoever proves to
    /// be the payer), or for another one.
    AlreadyUsed {
        /// Whether the fingerprints are equal.
        same_request: bool,
        /// What is known of it.
        payment: Box<StoredPayment>,
    },
    /// The payer has paid for a request of this name by another payment. This one was not taken.
    KeyUsed {
        /// Whether it was this very request; else the name is used for two.
        same_request: bool,
        /// What is known of that payment.
        payment: Box<StoredPayment>,
    },
    /// The payer has too much open already.
    ExposureExceeded {
        /// What is open in this asset.
        open: Amount,
        /// What may be.
        limit: Amount,
    },
}

/// Proof that an amount is reserved, durably. Only a ledger makes it; captured or released once.
#[derive(Debug)]
#[must_use]
pub struct Hold {
    id: PaymentId,
    limit: Amount,
    generation: u64,
}

impl Hold {
    /// For engines: evidence of a committed row.
    pub(crate) fn new(id: PaymentId, limit: Amount, generation: u64) -> Self {
        Self { id, limit, generation }
    }

    /// Of which payment.
    pub fn id(&self) -> PaymentId {
        self.id
    }

    /// The most that can be charged.
    pub fn limit(&self) -> Amount {
        self.limit
    }

    /// Counts the holds of one payment (a released one may be held again) across restarts: an
    /// operation with a stale hold is refused.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Proof that a charge is owed and its settlement queued, durably.
#[derive(Debug)]
#[must_use]
pub struct Captured {
    id: PaymentId,
    charge: Amount,
}

impl Captured {
    /// For engines: evidence of a committed row.
    pub(crate) fn new(id: PaymentId, charge: Amount) -> Self {
        Self { id, charge }
    }

    /// Of which payment.
    pub fn id(&self) -> PaymentId {
        self.id
    }

    /// How much.
    pub fn charge(&self) -> Amount {
        self.charge
    }
}

/// The capture did not happen, or nobody knows whether it did. The hold is still held.
#[derive(Debug, thiserror::Error)]
#[error("capture failed")]
pub struct CaptureFailed {
    /// Still to be captured or released.
    pub hold: Hold,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// A settlement that is due.
#[derive(Clone, Debug)]
pub struct Job {
    /// What the payment is.
    pub terms: Terms,
    /// What to settle.
    pub charge: Amount,
    /// How often it was tried before.
    pub attempts: u32,
    /// Whether an earlier try may have reached the chain: look before sending.
    pub may_have_been_sent: bool,
    /// The last transaction that an earlier try is known to have sent: where to look first.
    pub transaction: Option<String>,
    /// What of the answer may have left.
    pub answer: AnswerMark,
}

/// A settled payment that its chain can still take back.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What the payment is.
    pub terms: Terms,
    /// What was settled.
    pub charge: Amount,
    /// By which transaction.
    pub transaction: String,
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The expected transfer was seen.
    Settled {
        /// In this transaction.
        transaction: String,
    },
    /// It never will be. Becomes `Lost` if a byte may have left, `Released` if none did.
    Rejected {
        /// The specified `errorReason`.
        reason: String,
    },
    /// Nothing was sent; queued again.
    NotSent {
        /// Not before.
        retry_at: Timestamp,
    },
    /// It may have been sent; queued to be reconciled.
    Unknown {
        /// Its name, if known.
        transaction: Option<String>,
        /// Not before.
        retry_at: Timestamp,
    },
}

/// A payment as the ledger has it.
#[derive(Clone, Debug)]
pub struct StoredPayment {
    /// What it is.
    pub terms: Terms,
    /// Where it stands.
    pub state: Payment,
    /// What of the answer may have left.
    pub answer: AnswerMark,
    /// Why it is owed back, if it is.
    pub refund_owed: Option<String>,
    /// When it was admitted.
    pub admitted_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}

/// What recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Holds of which nothing had left.
    pub released: u64,
    /// Holds of which something had left.
    pub captured: u64,
    /// Settlements whose outcome has to be looked up.
    pub to_reconcile: u64,
    /// Settled payments whose answer never left: owed back.
    pub refunds_owed: u64,
}

/// Why an operation has no result, by what the caller must do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Certainly not applied: answer 503, try again later.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Perhaps applied: look the payment up before anything else.
    #[error("the outcome of a ledger operation is unknown: {0}")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The hold is not current any more: somebody else has resolved it.
    #[error("the hold on {0} is no longer current")]
    Fenced(PaymentId),
    /// The payment cannot take this step where it stands.
    #[error(transparent)]
    Illegal(#[from] farebox_billing::Illegal),
    /// The ledger contradicts itself: stop, and let a person look.
    #[error("the ledger is corrupt: {0}")]
    Corrupt(String),
}
