//! Where the ledger survives.
//!
//! [`Ledger`] is a port of operations, not of tables. `Ok` means durable: the bytes were forced to
//! stable storage before it was returned. Every change of a payment goes through
//! [`farebox_billing::Payment::on`].

mod book;
mod memory;
mod port;
mod postgres;
mod sqlite;
mod transactions;
mod unsure;
mod view;
mod waiting;

pub use crate::book::audit::{CheckReport, Problem, Total};
pub use crate::memory::weather::{Fair, Mishap, Operation, Weather};
pub use crate::memory::{MemoryDisk, MemoryLedger};
pub use crate::port::{
    Admit, Admitted, AnswerMark, CaptureFailed, Captured, Hold, Intake, Job, Ledger, Quarantine,
    QuarantineReason, Recovered, Refusal, RequestKey, Resolution, SettleMode, StoreError,
    StoredPayment, Terms, Watch,
};
pub use crate::postgres::PostgresLedger;
pub use crate::postgres::open::PostgresOpenError;
pub use crate::postgres::options::{Claim, PostgresOptions, Replication};
pub use crate::sqlite::copy::{Backup, BackupError};
pub use crate::sqlite::file::LedgerFile;
pub use crate::sqlite::open::OpenError;
pub use crate::sqlite::quarantine::{AcceptError, Accepted, Forgotten, accept_restored};
pub use crate::sqlite::{AuditError, SqliteLedger, SqliteOptions, Synchronous, WriterCounts};
pub use crate::transactions::{KeptTransaction, TransactionFate, Transactions};
pub use crate::unsure::Unsure;
pub use crate::view::{JournalLine, Listed, Order, SettlementView, Story, Which};
