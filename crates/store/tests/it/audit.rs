//! The journal's seals, and everything that somebody could do to a journal behind our back.

use std::fs;

use farebox_billing::Release;
use farebox_billing::audit::{Batch, Head, Line, Seal, SigningKey, Tip, Trust, Verified, Wrong};
use farebox_protocol::{Amount, PaymentId};
use farebox_store::{
    AnswerMark, AuditError, Ledger, LedgerFile, Resolution, SettleMode, SqliteLedger,
};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use crate::sqlite::all_of;
use crate::support::{Place, at, serving, units};

/// A ledger in which every kind of line was written, in batches of all sizes; a raw connection that
/// nothing stops; and the head that somebody was given halfway.
struct Victim {
    place: Place,
    ledger: SqliteLedger,
    raw: Connection,
    file: LedgerFile,
    early: Head,
    head: Head,
}

async fn live(ledger: &SqliteLedger, number: u64) {
    let hold = serving(ledger, number, SettleMode::After).await;
    let id = hold.id();
    if number.is_multiple_of(5) {
        ledger.release(&hold, Release::UpstreamFailed, at(1_002)).await.unwrap();
        return;
    }
    ledger.meter(&hold, units(3), at(1_002)).await.unwrap();
    drop(ledger.capture(hold, units(40), AnswerMark::Leaving, at(1_003)).await.unwrap());
    ledger.mark_answer(id, AnswerMark::Sent, at(1_004)).await.unwrap();
    assert_eq!(ledger.lease_jobs(Some(id), 1, at(1_005)).await.unwrap().len(), 1);
    let resolution = match number % 5 {
        1 => Resolution::Settled { transaction: format!("0x{number:064x}") },
        2 => Resolution::Rejected { reason: "insufficient_funds".to_owned() },
        3 => Resolution::NotSent { retry_at: at(2_000) },
        _ => Resolution::Unknown { transaction: Some("0xee".to_owned()), retry_at: at(2_000) },
    };
    drop(ledger.resolve_job(id, resolution, at(1_006)).await.unwrap());
    if number % 5 == 1 {
        ledger.owe_refund(id, "the answer was cut", at(1_007)).await.unwrap();
    }
}

impl Victim {
    async fn new() -> Self {
        let place = Place::new();
        let ledger = place.open();
        for number in 0..10 {
            live(&ledger, number).await;
        }
        let early = ledger.head().await.unwrap().unwrap();
        // Those that come together share seals.
        let crowd = (10..20).map(|number| live(&ledger, number));
        all_of(crowd).await;
        let head = ledger.head().await.unwrap().unwrap();
        let raw = Connection::open(place.file()).unwrap();
        let file = LedgerFile::open(place.file()).unwrap();
        raw.execute_batch(
            "PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
             DROP TRIGGER journal_is_not_rewritten; DROP TRIGGER journal_is_for_ever;
             DROP TRIGGER seals_are_not_rewritten; DROP TRIGGER seals_are_for_ever;",
        )
        .unwrap();
        Self { place, ledger, raw, file, early, head }
    }

    /// What everybody knows who was given the key of the ledger.
    fn trust(&self) -> Trust {
        Trust { keys: vec![self.head.key], heads: Vec::new() }
    }

    /// With the head from halfway, too.
    fn trust_early(&self) -> Trust {
        Trust { heads: vec![self.early], ..self.trust() }
    }

    /// From outside, as an auditor does.
    fn audit(&self, trust: Trust) -> Result<Verified, Wrong> {
        match self.file.audit(trust) {
            Ok(verified) => Ok(verified),
            Err(AuditError::Wrong(wrong)) => Err(wrong),
            Err(AuditError::Store(error)) => panic!("{error}"),
        }
    }

    fn lines(&self) -> Vec<Stored> {
        let sql = "SELECT seq, payment, at, event, amount, detail FROM journal ORDER BY seq";
        let mut statement = self.raw.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            let cells = (0..6).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>()?;
            Ok(Stored(cells))
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn remove(&self, seq: i64) {
        self.raw.execute("DELETE FROM journal WHERE seq = ?1", [seq]).unwrap();
    }

    fn insert(&self, line: &Stored) -> rusqlite::Result<usize> {
        // Bytes that are no text are written as if they were.
        let sql = "INSERT INTO journal (seq, payment, at, event, amount, detail)
                   VALUES (?1, ?2, ?3, CAST(?4 AS TEXT), ?5, CAST(?6 AS TEXT))";
        self.raw.prepare_cached(sql)?.execute(params_from_iter(&line.0))
    }
}

/// A line as cells: seq, payment, at, event, amount, detail.
#[derive(Clone, Debug, PartialEq)]
struct Stored(Vec<Value>);

impl Stored {
    fn seq(&self) -> i64 {
        match self.0[0] {
            Value::Integer(seq) => seq,
            _ => panic!("{self:?}"),
        }
    }

    /// One bit of one cell turned over; none where that cell has no bits.
    fn flipped(&self, cell: usize, bit: u64) -> Option<Self> {
        let mut flipped = self.clone();
        let turn = |bytes: &mut Vec<u8>| {
            let at = usize::try_from(bit / 8).unwrap() % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
        };
        match &mut flipped.0[cell] {
            Value::Integer(number) => *number ^= 1 << (bit % 64),
            Value::Blob(bytes) => turn(bytes),
            Value::Text(text) => {
                let mut bytes = std::mem::take(text).into_bytes();
                turn(&mut bytes);
                flipped.0[cell] = Value::Blob(bytes);
            }
            Value::Null | Value::Real(_) => return None,
        }
        Some(flipped)
    }

    fn text(&self, cell: usize) -> Option<&str> {
        match &self.0[cell] {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn line(&self) -> Line<'_> {
        let number = |it: &Value| match it {
            Value::Integer(number) => u64::try_from(*number).unwrap(),
            _ => panic!("{self:?}"),
        };
        let Value::Blob(payment) = &self.0[1] else { panic!("{self:?}") };
        let amount = match &self.0[4] {
            Value::Blob(bytes) => Some(Amount::from_be_bytes(bytes[..].try_into().unwrap())),
            _ => None,
        };
        Line {
            seq: number(&self.0[0]),
            payment: PaymentId::from_bytes(payment[..].try_into().unwrap()),
            at: at(number(&self.0[2])),
            event: self.text(3).unwrap(),
            amount,
            detail: self.text(5),
        }
    }
}

#[tokio::test]
async fn every_commit_is_sealed_and_every_line_is_in_a_seal() {
    let victim = Victim::new().await;
    let lines = u64::try_from(victim.lines().len()).unwrap();
    let verified = victim.audit(victim.trust_early()).unwrap();
    assert_eq!((verified.lines, verified.heads), (lines, 1));
    assert_eq!(verified.head, Some(victim.head));
    assert!(verified.seals < lines, "{verified:?}");
    assert!(victim.head.is_genuine() && victim.head.last_seq == lines);
    let report = victim.ledger.check().await.unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    // The chain goes on behind a restart, with the same key.
    let Victim { place, ledger, head, .. } = victim;
    ledger.close().await.unwrap();
    drop(ledger);
    let ledger = place.open();
    live(&ledger, 77).await;
    let trust = Trust { keys: vec![head.key], heads: vec![head] };
    let verified = ledger.audit(trust).await.unwrap();
    assert!(lines < verified.lines);
    // It signs with another key if that one is lost, and says so.
    ledger.close().await.unwrap();
    drop(ledger);
    fs::remove_file(place.directory.path().join("farebox.db.audit-key")).unwrap();
    let ledger = place.open();
    live(&ledger, 78).await;
    let other = ledger.head().await.unwrap().unwrap().key;
    let foreign = ledger.audit(Trust { keys: vec![head.key], heads: Vec::new() }).await;
    assert!(
        matches!(foreign, Err(AuditError::Wrong(Wrong::ForeignKey { key, .. })) if key == other)
    );
    let both = Trust { keys: vec![head.key, other], heads: vec![head] };
    assert_eq!(ledger.audit(both).await.unwrap().keys.len(), 2);
}

#[tokio::test]
async fn a_thousand_flips_of_one_bit_are_found() {
    let victim = Victim::new().await;
    let lines = victim.lines();
    let mut random = 0x5eed_u64;
    let mut draw = |below: usize| {
        // Knuth's MMIX generator; its high bits are good.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((random >> 33) % u64::try_from(below).unwrap()).unwrap()
    };
    let mut flips = 0;
    let mut of_cell = [0; 6];
    while flips < 1_000 {
        let (line, cell) = (&lines[draw(lines.len())], draw(6));
        let bit = u64::try_from(draw(4096)).unwrap();
        let Some(flipped) = line.flipped(cell, bit) else { continue };
        victim.remove(line.seq());
        if victim.insert(&flipped).is_err() {
            // There is another line of that number.
            victim.insert(line).unwrap();
            continue;
        }
        let seq = u64::try_from(line.seq()).unwrap();
        let found = victim.audit(victim.trust());
        let named = match found {
            Err(Wrong::Changed { first, last }) => (first..=last).contains(&seq),
            Err(Wrong::LineUnreadable { seq: named }) => named == seq,
            // A line under another number is missing under its own, or stands before the first.
            Err(Wrong::LineMissing { seq: named }) => cell == 0 && (named == seq || named == 1),
            Ok(_) | Err(_) => false,
        };
        // A number that is none (negative) stands before all others.
        let named = named || cell == 0 && found == Err(Wrong::LineUnreadable { seq: 1 });
        assert!(named, "{found:?} for bit {bit} of cell {cell} in {line:?}");
        victim.remove(flipped.seq());
        victim.insert(line).unwrap();
        flips += 1;
        of_cell[cell] += 1;
    }
    assert!(of_cell.iter().all(|it| 20 < *it), "{of_cell:?}");
    assert!(victim.audit(victim.trust()).is_ok());
    assert_eq!(victim.lines(), lines);
}

#[tokio::test]
async fn a_cut_is_found() {
    let victim = Victim::new().await;
    let all = victim.lines().len();
    let middle = all / 2;
    // A line in the middle, the last one, all of them.
    for seq in [1, middle, all] {
        let seq = i64::try_from(seq).unwrap();
        let line = victim.lines()[usize::try_from(seq - 1).unwrap()].clone();
        victim.remove(seq);
        let missing = Wrong::LineMissing { seq: u64::try_from(seq).unwrap() };
        assert_eq!(victim.audit(victim.trust()), Err(missing));
        victim.insert(&line).unwrap();
    }
    // The tail with its seals: consistent in itself, and shorter than what was seen of it.
    let cut = i64::try_from(victim.early.last_seq).unwrap();
    let remove = |table: &str, column: &str, after: i64| {
        let sql = format!("DELETE FROM {table} WHERE ?1 < {column}");
        victim.raw.execute(&sql, [after]).unwrap()
    };
    assert!(0 < remove("seals", "last_seq", cut));
    assert_eq!(
        victim.audit(victim.trust()),
        Err(Wrong::Unsealed { seq: victim.early.last_seq + 1 })
    );
    assert!(0 < remove("journal", "seq", cut));
    assert!(victim.audit(victim.trust_early()).is_ok());
    let told = Trust { heads: vec![victim.early, victim.head], ..victim.trust() };
    let truncated = Wrong::Truncated { seq: victim.head.last_seq, last: victim.early.last_seq };
    assert_eq!(victim.audit(told), Err(truncated));
}

/// Another history, with every hash as it should be.
fn rewrite(victim: &Victim, key: &SigningKey) {
    let mut lines = victim.lines();
    // The first payment was of one unit only.
    lines[0].0[4] = Value::Blob(vec![0; 16]);
    victim.raw.execute_batch("DELETE FROM journal; DELETE FROM seals;").unwrap();
    let mut tip = Tip::origin();
    for some in lines.chunks(4) {
        let mut batch = Batch::after(&tip);
        for line in some {
            victim.insert(line).unwrap();
            batch.add(&line.line()).unwrap();
        }
        let seal = batch.seal(key, at(1_006)).unwrap();
        keep(&victim.raw, &seal);
        tip = Tip::after(&seal);
    }
}

fn keep(raw: &Connection, seal: &Seal) {
    let number = |it: u64| i64::try_from(it).unwrap();
    raw.execute(
        "INSERT INTO seals (last_seq, first_seq, at, hash, key, signature)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            number(seal.last_seq),
            number(seal.first_seq),
            number(seal.at.millis()),
            seal.hash.as_bytes(),
            seal.key.as_bytes(),
            seal.signature.as_bytes(),
        ],
    )
    .unwrap();
}

#[tokio::test]
async fn a_history_that_was_written_anew_is_found() {
    let victim = Victim::new().await;
    let thief = SigningKey::from_secret(&[9; 32]).unwrap();
    rewrite(&victim, &thief);
    let foreign = Wrong::ForeignKey { seq: 4, key: thief.public() };
    assert_eq!(victim.audit(victim.trust()), Err(foreign));
    // By somebody who has the key as well.
    let text = fs::read_to_string(victim.place.directory.path().join("farebox.db.audit-key"));
    let mut secret = [0; 32];
    hex::decode_to_slice(text.unwrap().trim_end(), &mut secret).unwrap();
    let stolen = SigningKey::from_secret(&secret).unwrap();
    rewrite(&victim, &stolen);
    assert!(victim.audit(victim.trust()).is_ok());
    let rewritten = Wrong::Rewritten { seq: victim.early.last_seq };
    assert_eq!(victim.audit(victim.trust_early()), Err(rewritten));
}
