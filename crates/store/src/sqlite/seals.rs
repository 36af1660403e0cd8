//! The journal's seals: every commit that adds lines seals them, and anybody can verify them later.

use farebox_billing::audit::{
    Batch, Head, Line, PublicKey, Seal, Signature, SigningKey, Tip, Trust, Verified, Verifier,
    Wrong,
};
use farebox_protocol::{Digest, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::sqlite::fault::{Done, Fault};
use crate::sqlite::rows::{amount, bad, count, id, millis, time, unsigned};

/// What is hashed of a line.
const LINES: &str =
    "SELECT seq, payment, at, event, amount, detail FROM journal WHERE ?1 < seq ORDER BY seq";

/// Seals what each commit adds to the journal.
#[derive(Debug)]
pub(super) struct Sealer {
    key: SigningKey,
    /// Where the chain ends in the file; none where that has to be read there.
    tip: Option<Tip>,
}

impl Sealer {
    /// With this key, behind what is sealed; and the head of that. Lines that are not sealed are of a
    /// file from before there were seals, and are sealed now; where there are seals, no ledger has
    /// written them, and nothing goes on.
    pub(super) fn begin(
        key: SigningKey,
        connection: &mut Connection,
    ) -> Done<Result<(Self, Option<Head>), Wrong>> {
        let transaction = connection.transaction()?;
        let head = head(&transaction)?;
        let sql = "SELECT coalesce(max(seq), 0) AS last FROM journal";
        let last = transaction.query_row(sql, [], |it| unsigned(it, "last"))?;
        let sealed = head.map_or(0, |it| it.last_seq);
        if last < sealed {
            return Ok(Err(Wrong::LineMissing { seq: last.saturating_add(1) }));
        }
        if head.is_some() && sealed < last {
            return Ok(Err(Wrong::Unsealed { seq: sealed.saturating_add(1) }));
        }
        let mut sealer = Self { key, tip: None };
        sealer.tip = Some(sealer.seal(&transaction)?);
        transaction.commit()?;
        Ok(Ok((sealer, head)))
    }

    #[cfg(test)]
    pub(super) fn of_tests() -> Self {
        Self { key: SigningKey::from_secret(&[7; 32]).unwrap(), tip: None }
    }

    /// Seals what is not sealed yet, inside the transaction that has added it. The tip is to be kept
    /// once that has committed.
    pub(super) fn seal(&self, connection: &Connection) -> Done<Tip> {
        let tip = match self.tip {
            Some(tip) => tip,
            None => last_seal(connection)?.as_ref().map_or_else(Tip::origin, Tip::after),
        };
        let mut batch = Batch::after(&tip);
        let mut at = Timestamp::default();
        let mut statement = connection.prepare_cached(LINES)?;
        let mut rows = statement.query([count(tip.last_seq())])?;
        while let Some(row) = rows.next()? {
            let line = read_line(row)?;
            at = line.at;
            batch.add(&line).map_err(|error| Fault::corrupt(error.to_string()))?;
        }
        // There is no clock here; a batch is as old as its last line.
        let Some(seal) = batch.seal(&self.key, at) else { return Ok(tip) };
        keep(connection, &seal)?;
        Ok(Tip::after(&seal))
    }

    /// That transaction has committed.
    pub(super) fn went_on(&mut self, tip: Tip) {
        self.tip = Some(tip);
    }

    /// Nobody knows what the file has.
    pub(super) fn forget(&mut self) {
        self.tip = None;
    }
}

fn keep(connection: &Connection, seal: &Seal) -> Done<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO seals (last_seq, first_seq, at, hash, key, signature)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    statement.execute(params![
        count(seal.last_seq),
        count(seal.first_seq),
        millis(seal.at),
        seal.hash.as_bytes(),
        seal.key.as_bytes(),
        seal.signature.as_bytes(),
    ])?;
    Ok(())
}

/// The head of the journal, if anything of it is sealed.
pub(super) fn head(connection: &Connection) -> Done<Option<Head>> {
    Ok(last_seal(connection)?.as_ref().map(Seal::head))
}

fn last_seal(connection: &Connection) -> Done<Option<Seal>> {
    let sql = "SELECT * FROM seals ORDER BY last_seq DESC LIMIT 1";
    Ok(connection.prepare_cached(sql)?.query_row([], read_seal).optional()?)
}

fn read_seal(row: &Row<'_>) -> rusqlite::Result<Seal> {
    Ok(Seal {
        first_seq: unsigned(row, "first_seq")?,
        last_seq: unsigned(row, "last_seq")?,
        at: time(row, "at")?,
        hash: Digest::from_bytes(row.get("hash")?),
        key: PublicKey::from_bytes(row.get("key")?),
        signature: Signature::from_bytes(row.get("signature")?),
    })
}

fn read_line<'a>(row: &'a Row<'_>) -> rusqlite::Result<Line<'a>> {
    let text = |column| -> rusqlite::Result<Option<&'a str>> {
        row.get_ref(column)?.as_str_or_null().map_err(|_| bad(column))
    };
    Ok(Line {
        seq: unsigned(row, "seq")?,
        payment: id(row, "payment")?,
        at: time(row, "at")?,
        event: text("event")?.ok_or_else(|| bad("event"))?,
        amount: amount(row, "amount")?,
        detail: text("detail")?,
    })
}

/// Verifies the journal from its first line, as of one moment: what was found, or the first thing that is
/// wrong.
pub(super) fn verify(connection: &Connection, trust: Trust) -> Done<Result<Verified, Wrong>> {
    let transaction = connection.unchecked_transaction()?;
    let verified = verify_snapshot(&transaction, trust)?;
    transaction.commit()?;
    Ok(verified)
}

/// The same in a transaction of the caller's.
pub(super) fn verify_snapshot(
    connection: &Connection,
    trust: Trust,
) -> Done<Result<Verified, Wrong>> {
    let mut verifier = Verifier::new(trust);
    let mut seals = connection.prepare("SELECT * FROM seals ORDER BY last_seq")?;
    let mut lines = connection.prepare(LINES)?;
    let mut seals = seals.query([])?;
    // From the smallest number there is: line 0 and less were never written by a ledger.
    let mut lines = lines.query([i64::MIN])?;
    let (mut sealed, mut next) = (0, 1);
    let mut seal = next_seal(seals.next()?, sealed);
    while let Some(row) = lines.next()? {
        // What cannot be read is where the next line should be.
        let Ok(line) = read_line(row) else {
            return Ok(Err(Wrong::LineUnreadable { seq: next }));
        };
        while let Ok(Some(due)) = &seal
            && due.last_seq < line.seq
        {
            if let Err(wrong) = verifier.seal(due) {
                return Ok(Err(wrong));
            }
            sealed = due.last_seq;
            seal = next_seal(seals.next()?, sealed);
        }
        if let Err(wrong) = verifier.line(&line) {
            return Ok(Err(wrong));
        }
        next = line.seq.saturating_add(1);
    }
    loop {
        match seal {
            Err(wrong) => return Ok(Err(wrong)),
            Ok(None) => return Ok(verifier.finish()),
            Ok(Some(due)) => {
                if let Err(wrong) = verifier.seal(&due) {
                    return Ok(Err(wrong));
                }
                sealed = due.last_seq;
                seal = next_seal(seals.next()?, sealed);
            }
        }
    }
}

/// The seal of a row, if there is one, or that there is none that can be read.
fn next_seal(row: Option<&Row<'_>>, sealed: u64) -> Result<Option<Seal>, Wrong> {
    row.map(read_seal).transpose().map_err(|_| Wrong::SealUnreadable { seq: sealed })
}
