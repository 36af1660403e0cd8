//! The accounts as rows: read when they are first touched, written once in each commit that changes
//! them, however many payments of that commit touch them.

use farebox_billing::ledger::{Account, AccountKey, AccountName, Books};
use rusqlite::{Connection, OptionalExtension, params};

use crate::sqlite::fault::Done;
use crate::sqlite::rows::{amount, asset, bad};

/// An account as it is in the file; zero if nothing was ever booked on it.
pub(super) fn find(connection: &Connection, key: &AccountKey) -> Done<Account> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM accounts WHERE network = ?1 AND asset = ?2 AND name = ?3")?;
    let name = key.name.to_string();
    let place = params![key.asset.network().as_str(), key.asset.address(), name];
    Ok(statement.query_row(place, read).optional()?.unwrap_or(Account::ZERO))
}

/// All accounts, by asset and name.
pub(super) fn all(connection: &Connection) -> Done<Vec<(AccountKey, Account)>> {
    let mut statement = connection.prepare("SELECT * FROM accounts")?;
    let read = |row: &rusqlite::Row<'_>| {
        let name: String = row.get("name")?;
        let name: AccountName = name.parse().map_err(|_| bad("name"))?;
        Ok((AccountKey { asset: asset(row)?, name }, read(row)?))
    };
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes what has changed in the books.
pub(super) fn keep(connection: &Connection, books: &mut Books) -> rusqlite::Result<()> {
    write(connection, &books.take_changes().accounts)
}

/// Writes all that is in the books.
pub(super) fn keep_all(connection: &Connection, books: &Books) -> rusqlite::Result<()> {
    write(connection, books.accounts())
}

fn write<'a>(
    connection: &Connection,
    accounts: impl IntoIterator<Item = (&'a AccountKey, &'a Account)>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO accounts (network, asset, name, debits_pending, debits_posted,
                               credits_pending, credits_posted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE
            SET debits_pending = excluded.debits_pending,
                debits_posted = excluded.debits_posted,
                credits_pending = excluded.credits_pending,
                credits_posted = excluded.credits_posted",
    )?;
    for (key, account) in accounts {
        statement.execute(params![
            key.asset.network().as_str(),
            key.asset.address(),
            key.name.to_string(),
            account.debits_pending.to_be_bytes(),
            account.debits_posted.to_be_bytes(),
            account.credits_pending.to_be_bytes(),
            account.credits_posted.to_be_bytes(),
        ])?;
    }
    Ok(())
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Account> {
    let side = |column| amount(row, column)?.ok_or_else(|| bad(column));
    Ok(Account {
        debits_pending: side("debits_pending")?,
        debits_posted: side("debits_posted")?,
        credits_pending: side("credits_pending")?,
        credits_posted: side("credits_posted")?,
    })
}
