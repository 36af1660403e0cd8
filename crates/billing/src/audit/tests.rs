//! Journals that were tampered with, in every way we could think of.

use farebox_protocol::{Amount, PaymentId, Timestamp};
use proptest::prelude::*;

use crate::audit::{
    BadText, Batch, Head, Line, PublicKey, Seal, Signature, SigningKey, Tip, Trust, Verified,
    Verifier, Wrong,
};

/// A line that can be changed.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    seq: u64,
    payment: [u8; 32],
    at: u64,
    event: String,
    amount: Option<u128>,
    detail: Option<String>,
}

impl Kept {
    fn new(seq: u64) -> Self {
        let payment = [u8::try_from(seq % 5).unwrap(); 32];
        let at = 1_700_000_000_000 + seq;
        let plain = Self { seq, payment, at, event: String::new(), amount: None, detail: None };
        match seq % 3 {
            0 => Self { event: "admitted".to_owned(), amount: Some(10_000), ..plain },
            1 => Self { event: "serve_began".to_owned(), ..plain },
            _ => Self { event: "confirmed".to_owned(), detail: Some("0x1f".to_owned()), ..plain },
        }
    }

    fn line(&self) -> Line<'_> {
        Line {
            seq: self.seq,
            payment: PaymentId::from_bytes(self.payment),
            at: Timestamp::from_millis(self.at),
            event: &self.event,
            amount: self.amount.map(Amount::from_units),
            detail: self.detail.as_deref(),
        }
    }
}

/// A journal with its seals.
#[derive(Clone, Debug, PartialEq)]
struct Book {
    lines: Vec<Kept>,
    seals: Vec<Seal>,
}

fn key(of: u8) -> SigningKey {
    SigningKey::from_secret(&[of; 32]).unwrap()
}

/// Seals lines in batches of 1, 2, 3, 1, …
fn sealed(lines: Vec<Kept>, key: &SigningKey) -> Book {
    let mut seals = Vec::new();
    let mut tip = Tip::origin();
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at((seals.len() % 3 + 1).min(rest.len()));
        let mut batch = Batch::after(&tip);
        now.iter().try_for_each(|it| batch.add(&it.line())).unwrap();
        let at = Timestamp::from_millis(1_700_000_001_000 + batch.last_seq());
        let seal = batch.seal(key, at).unwrap();
        tip = Tip::after(&seal);
        seals.push(seal);
        rest = later;
    }
    Book { lines, seals }
}

/// Twenty lines in ten seals: 1, 2–3, 4–6, 7, 8–9, 10–12, 13, 14–15, 16–18, 19, 20.
fn book() -> Book {
    sealed((1..=20).map(Kept::new).collect(), &key(1))
}

fn verify(book: &Book, trust: Trust) -> Result<Verified, Wrong> {
    let mut verifier = Verifier::new(trust);
    let mut lines = book.lines.iter().peekable();
    for seal in &book.seals {
        while let Some(line) = lines.next_if(|it| it.seq <= seal.last_seq) {
            verifier.line(&line.line())?;
        }
        verifier.seal(seal)?;
    }
    for line in lines {
        verifier.line(&line.line())?;
    }
    verifier.finish()
}

fn trusted() -> Trust {
    Trust { keys: vec![key(1).public()], heads: Vec::new() }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Book), expected: Wrong) {
    let mut book = book();
    change(&mut book);
    assert_eq!(verify(&book, trusted()), Err(expected));
}

#[test]
fn what_nobody_touched_is_verified() {
    let book = book();
    let verified = verify(&book, trusted()).unwrap();
    assert_eq!((verified.lines, verified.seals), (20, 11));
    assert_eq!(verified.keys, [(key(1).public(), 1)]);
    let head = verified.head.unwrap();
    assert_eq!((head.last_seq, head.is_genuine()), (20, true));
    assert_eq!(verify(&book, Trust::default()), verify(&book, trusted()));
    let empty = Book { lines: Vec::new(), seals: Vec::new() };
    assert_eq!(verify(&empty, trusted()), Ok(Verified::default()));
    assert!(Batch::after(&Tip::origin()).seal(&key(1), Timestamp::default()).is_none());
}

#[test]
fn the_first_thing_that_is_wrong_has_a_name() {
    let middle = Wrong::Changed { first: 4, last: 6 };
    check(|it| it.lines[4].at += 1, middle);
    check(|it| it.lines[4].payment[31] ^= 1, middle);
    check(|it| it.lines[4].event.push('x'), middle);
    check(|it| it.lines[5].amount = None, middle);
    check(|it| it.lines[5].amount = Some(10_001), middle);
    check(|it| it.lines[4].detail = None, middle);
    check(|it| it.lines[5].detail = Some(String::new()), middle);
    check(|it| it.lines[5].seq = 7, Wrong::LineMissing { seq: 6 });
    check(|it| drop(it.lines.remove(4)), Wrong::LineMissing { seq: 5 });
    check(|it| drop(it.lines.pop()), Wrong::LineMissing { seq: 20 });
    check(|it| it.lines.push(Kept::new(21)), Wrong::Unsealed { seq: 21 });
    check(|it| it.lines.push(Kept::new(22)), Wrong::LineMissing { seq: 21 });
    check(|it| it.seals.truncate(9), Wrong::Unsealed { seq: 19 });
    check(
        |it| {
            it.seals.remove(2);
        },
        Wrong::SealMissing { seq: 4 },
    );
    check(|it| it.seals[2].at = Timestamp::from_millis(0), middle);
    // A seal that is changed as a whole breaks the next one.
    let next = Wrong::Changed { first: 7, last: 7 };
    check(|it| it.seals[2].signature = Signature::from_bytes([7; 64]), next);
    check(
        |it| it.seals[10].signature = Signature::from_bytes([7; 64]),
        Wrong::BadSignature { seq: 20 },
    );
    let key = key(2).public();
    check(|it| it.seals[2].key = key, Wrong::ForeignKey { seq: 6, key });
    check(|it| it.seals[10].last_seq = 19, Wrong::SealMissing { seq: 20 });
    check(|it| it.seals[2].last_seq = 5, Wrong::Changed { first: 4, last: 5 });
}

#[test]
fn a_chain_that_was_written_anew_is_of_another_key_or_another_head() {
    let before = book();
    let head = before.seals[6].head();
    let mut lines = before.lines.clone();
    lines[2].amount = Some(1);
    let forged = sealed(lines.clone(), &key(2));
    let key_2 = key(2).public();
    assert_eq!(verify(&forged, trusted()), Err(Wrong::ForeignKey { seq: 1, key: key_2 }));
    // Nobody who knows nothing of it from elsewhere can tell.
    assert!(verify(&forged, Trust::default()).is_ok());
    // With the stolen key: only a head tells.
    let forged = sealed(lines, &key(1));
    assert!(verify(&forged, trusted()).is_ok());
    let told = Trust { heads: vec![head], ..trusted() };
    assert_eq!(verify(&forged, told.clone()), Err(Wrong::Rewritten { seq: 13 }));
    assert_eq!(verify(&before, told).map(|it| it.heads), Ok(1));
    // Somebody else's name under the old seals.
    let mut renamed = sealed(before.lines.clone(), &key(2));
    for seal in &mut renamed.seals {
        seal.key = key(1).public();
    }
    assert_eq!(verify(&renamed, trusted()), Err(Wrong::Changed { first: 1, last: 1 }));
}

#[test]
fn a_cut_is_found_by_any_later_head() {
    let whole = book();
    for kept in 0..11 {
        let mut cut = whole.clone();
        cut.seals.truncate(kept);
        let last = cut.seals.last().map_or(0, |it| it.last_seq);
        cut.lines.retain(|it| it.seq <= last);
        assert!(verify(&cut, trusted()).is_ok(), "{kept}");
        for seal in &whole.seals {
            let trust = Trust { heads: vec![whole.seals[0].head(), seal.head()], ..trusted() };
            let found = verify(&cut, trust);
            let first = if last == 0 { 1 } else { seal.last_seq };
            if seal.last_seq <= last {
                assert!(found.is_ok(), "{kept} {}", seal.last_seq);
            } else {
                assert_eq!(found, Err(Wrong::Truncated { seq: first, last }), "{kept}");
            }
        }
    }
}

#[test]
fn an_empty_journal_was_cut_if_there_ever_was_a_head() {
    let empty = Book { lines: Vec::new(), seals: Vec::new() };
    let heads = vec![book().seals[3].head()];
    let cut = Err(Wrong::Truncated { seq: 7, last: 0 });
    assert_eq!(verify(&empty, Trust { heads: heads.clone(), ..trusted() }), cut);
    assert_eq!(verify(&empty, Trust { heads, ..Trust::default() }), cut);
}

#[test]
fn a_head_must_be_signed_by_who_is_trusted() {
    let mut head = book().seals[3].head();
    head.last_seq = 8;
    let trust = Trust { heads: vec![head], ..trusted() };
    assert_eq!(verify(&book(), trust), Err(Wrong::BadHead { seq: 8 }));
    let other = sealed((1..=20).map(Kept::new).collect(), &key(2)).seals[3].head();
    let trust = Trust { heads: vec![other], ..trusted() };
    assert_eq!(verify(&book(), trust), Err(Wrong::BadHead { seq: 7 }));
    // One of another ledger whose key is trusted as well.
    let keys = vec![key(1).public(), key(2).public()];
    let trust = Trust { keys, heads: vec![other] };
    assert_eq!(verify(&book(), trust), Err(Wrong::Rewritten { seq: 7 }));
}

#[test]
fn a_new_key_goes_on_where_the_old_one_ended() {
    let mut book = book();
    let mut batch = Batch::after(&Tip::after(&book.seals[10]));
    book.lines.push(Kept::new(21));
    batch.add(&book.lines[20].line()).unwrap();
    book.seals.push(batch.seal(&key(2), Timestamp::from_millis(5)).unwrap());
    let foreign = Wrong::ForeignKey { seq: 21, key: key(2).public() };
    assert_eq!(verify(&book, trusted()), Err(foreign));
    // Who knows nothing of keys is told both.
    assert_eq!(verify(&book, Trust::default()).map(|it| it.keys.len()), Ok(2));
    let keys = vec![key(1).public(), key(2).public()];
    let both = Trust { keys: keys.clone(), heads: Vec::new() };
    let verified = verify(&book, both.clone()).unwrap();
    assert_eq!(verified.keys, [(keys[0], 1), (keys[1], 21)]);
    // What the old key has signed last is looked at, too.
    let mut forged = sealed(book.lines[..20].to_vec(), &key(2));
    let last = forged.seals.len() - 1;
    for seal in &mut forged.seals[..last] {
        seal.key = key(1).public();
    }
    let mut tip = Tip::origin();
    let mut lines = forged.lines.iter();
    for seal in &mut forged.seals {
        let mut batch = Batch::after(&tip);
        let inside =
            lines.by_ref().take(usize::try_from(seal.last_seq - seal.first_seq + 1).unwrap());
        inside.for_each(|it| batch.add(&it.line()).unwrap());
        seal.hash = batch.hash(seal.at, seal.key.as_bytes());
        tip = Tip::after(seal);
    }
    assert_eq!(verify(&forged, both), Err(Wrong::BadSignature { seq: 19 }));
}

#[test]
fn a_head_and_a_key_are_one_line_of_text() {
    let head = book().seals[4].head();
    let text = head.to_string();
    assert_eq!(text.parse(), Ok(head));
    assert_eq!(format!(" {text}\n").parse(), Ok(head));
    assert_eq!(key(1).public().to_string().parse(), Ok(key(1).public()));
    for bad in [
        "",
        "farebox-head-1",
        text.trim_start_matches('f'),
        &format!("{text} 1"),
        &text.replace(' ', ""),
    ] {
        assert_eq!(bad.parse::<Head>(), Err(BadText::Head), "{bad}");
    }
    assert_eq!("0x00".parse::<PublicKey>(), Err(BadText::Key));
    assert!(!format!("{:?}", key(1)).contains("0101"));
}

/// The format is for ever: what was sealed once must be verified by every later version.
#[test]
fn the_encoding_is_as_it_was() {
    let head = book().seals[10].head();
    insta::assert_snapshot!(head);
}

proptest! {
    /// Any one bit of any field of any line.
    #[test]
    fn any_flip_is_found(at in any::<prop::sample::Index>(), field in 0..6, bit in 0..128_u32) {
        let mut book = book();
        let line = at.index(20);
        let before = book.lines[line].clone();
        let kept = &mut book.lines[line];
        let flip = |text: &mut String| {
            let mut bytes = std::mem::take(text).into_bytes();
            let place = usize::try_from(bit / 7).unwrap() % bytes.len();
            bytes[place] ^= 1 << (bit % 7);
            *text = String::from_utf8(bytes).unwrap();
        };
        match field {
            0 => kept.seq ^= 1 << (bit % 64),
            1 => kept.payment[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8),
            2 => kept.at ^= 1 << (bit % 64),
            3 => flip(&mut kept.event),
            4 => kept.amount = kept.amount.map(|it| it ^ 1 << bit),
            _ => kept.detail.iter_mut().for_each(flip),
        }
        prop_assert_eq!(verify(&book, trusted()).is_ok(), book.lines[line] == before);
    }
}
