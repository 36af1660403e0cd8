//! The statements of a connection that writes, prepared once.

use futures_util::future::try_join_all;
use tokio_postgres::{Client, Statement};

use crate::postgres::fault::Trouble;

/// Prepared on one connection.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    pub(super) lock_node: Statement,
    pub(super) keep_node: Statement,
    pub(super) lock_payments: Statement,
    pub(super) read_outbox: Statement,
    pub(super) read_terms: Statement,
    pub(super) read_keys: Statement,
    pub(super) due: Statement,
    pub(super) unfinished: Statement,
    pub(super) add_payers: Statement,
    pub(super) lock_payers: Statement,
    pub(super) read_accounts: Statement,
    pub(super) insert_payments: Statement,
    pub(super) update_payments: Statement,
    pub(super) update_terms: Statement,
    pub(super) insert_keys: Statement,
    pub(super) move_keys: Statement,
    pub(super) keep_outbox: Statement,
    pub(super) record_transactions: Statement,
    pub(super) end_transactions: Statement,
    pub(super) append_journal: Statement,
    pub(super) keep_accounts: Statement,
}

/// In the order of the fields.
const SQL: [&str; 21] = [
    "SELECT epoch, batch, journal_seq FROM nodes WHERE node = $1 FOR UPDATE",
    "UPDATE nodes SET batch = $2, journal_seq = $3 WHERE node = $1",
    "SELECT * FROM payments WHERE id = ANY($1) ORDER BY id FOR UPDATE",
    "SELECT * FROM outbox WHERE payment = ANY($1)",
    "SELECT * FROM payments JOIN terms USING (seq) WHERE id = ANY($1)",
    "SELECT * FROM request_keys WHERE name = ANY($1)",
    include_str!("sql/due.sql"),
    "SELECT * FROM payments WHERE node = $1 AND unfinished ORDER BY id FOR UPDATE",
    include_str!("sql/add_payers.sql"),
    include_str!("sql/lock_payers.sql"),
    include_str!("sql/read_accounts.sql"),
    include_str!("sql/insert_payments.sql"),
    include_str!("sql/update_payments.sql"),
    include_str!("sql/update_terms.sql"),
    include_str!("sql/insert_keys.sql"),
    include_str!("sql/move_keys.sql"),
    include_str!("sql/keep_outbox.sql"),
    include_str!("sql/record_transactions.sql"),
    include_str!("sql/end_transactions.sql"),
    include_str!("sql/append_journal.sql"),
    include_str!("sql/keep_accounts.sql"),
];

impl Statements {
    /// Prepares all of them.
    pub(super) async fn prepare(client: &Client) -> Result<Self, Trouble> {
        let prepared = try_join_all(SQL.map(|it| client.prepare(it))).await?;
        let mut next = prepared.into_iter();
        let mut next = || {
            let missing = || Trouble::Unfit("a statement was not prepared".to_owned());
            next.next().ok_or_else(missing)
        };
        Ok(Self {
            lock_node: next()?,
            keep_node: next()?,
            lock_payments: next()?,
            read_outbox: next()?,
            read_terms: next()?,
            read_keys: next()?,
            due: next()?,
            unfinished: next()?,
            add_payers: next()?,
            lock_payers: next()?,
            read_accounts: next()?,
            insert_payments: next()?,
            update_payments: next()?,
            update_terms: next()?,
            insert_keys: next()?,
            move_keys: next()?,
            keep_outbox: next()?,
            record_transactions: next()?,
            end_transactions: next()?,
            append_journal: next()?,
            keep_accounts: next()?,
        })
    }
}
