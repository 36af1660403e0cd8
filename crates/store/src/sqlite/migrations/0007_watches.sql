-- A settled payment is looked at again until it is as deep in its chain as its value takes. The journal
-- learns a word for one that the chain takes back; a CHECK cannot be changed in place, so it is copied.

-- When to look next; none where it is final, or not settled.
ALTER TABLE outbox ADD COLUMN watch_at INTEGER CHECK (0 <= watch_at);

CREATE INDEX outbox_watched ON outbox (watch_at) WHERE watch_at IS NOT NULL;

CREATE TABLE journal_2 (
    seq     INTEGER PRIMARY KEY,
    payment BLOB NOT NULL REFERENCES payments (id),
    at      INTEGER NOT NULL CHECK (0 <= at),
    event   TEXT NOT NULL CHECK (event IN (
                'admitted', 'serve_began', 'delivered', 'priced', 'settlement_began', 'not_sent',
                'unanswered', 'confirmed', 'rejected', 'abandoned', 'withdrawn', 'reopened',
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
