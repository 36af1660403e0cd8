-- The journal learns two words: a payment is withdrawn, and an answer that was announced turns out to
-- be withheld. A CHECK cannot be changed in place, so the journal is copied as it is.

CREATE TABLE journal_2 (
    seq     INTEGER PRIMARY KEY,
    payment BLOB NOT NULL REFERENCES payments (id),
    at      INTEGER NOT NULL CHECK (0 <= at),
    event   TEXT NOT NULL CHECK (event IN (
                'admitted', 'serve_began', 'delivered', 'priced', 'settlement_began', 'not_sent',
                'unanswered', 'confirmed', 'rejected', 'abandoned', 'withdrawn',
                'answer_withheld', 'answer_leaving', 'answer_sent', 'refund_owed')),
    amount  BLOB CHECK (length(amount) = 16),
    detail  TEXT,
    CHECK ((amount IS NOT NULL) = (event IN ('admitted', 'delivered', 'priced')))
) STRICT;

INSERT INTO journal_2 SELECT seq, payment, at, event, amount, detail FROM journal ORDER BY seq;

-- Its triggers go with it.
DROP TABLE journal;
ALTER TABLE journal_2 RENAME TO journal;

CREATE TRIGGER journal_is_not_rewritten BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_is_for_ever BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
