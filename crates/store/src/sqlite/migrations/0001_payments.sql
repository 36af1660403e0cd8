-- The first schema: payments, their terms, their settlements, the journal and secrets.
--
-- Amounts are 16 bytes, big endian, so that memcmp orders them as numbers; times are milliseconds
-- since the Unix epoch. The CHECKs repeat the rules of the code on purpose: they are what stands
-- when the code is wrong.

CREATE TABLE payments (
    seq           INTEGER PRIMARY KEY,             -- the order of admission
    id            BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
    fingerprint   BLOB NOT NULL CHECK (length(fingerprint) = 32),
    generation    INTEGER NOT NULL CHECK (1 <= generation),  -- how often it was held
    network       TEXT NOT NULL,
    asset         TEXT NOT NULL,
    payer         TEXT NOT NULL,
    limit_units   BLOB NOT NULL CHECK (length(limit_units) = 16),
    settle        TEXT NOT NULL CHECK (settle IN ('after', 'before', 'background')),
    state         TEXT NOT NULL CHECK (state IN ('held', 'serving', 'captured', 'settling',
                                                 'unknown', 'settled', 'released', 'lost')),
    delivered     BLOB CHECK (length(delivered) = 16 AND delivered <= limit_units),
    charge        BLOB CHECK (length(charge) = 16 AND charge <= limit_units),
    "transaction" TEXT,
    reason        TEXT,
    answer        TEXT NOT NULL CHECK (answer IN ('withheld', 'leaving', 'sent')),
    -- Whether the answer was captured before it left: 'for_settlement' while a request waits with
    -- it, 'in_vain' once that request is known to be gone.
    answer_waits  TEXT NOT NULL CHECK (answer_waits IN ('no', 'for_settlement', 'in_vain')),
    refund_owed   TEXT,
    admitted_at   INTEGER NOT NULL CHECK (0 <= admitted_at),
    changed_at    INTEGER NOT NULL CHECK (0 <= changed_at),
    -- What counts against the payer's exposure limit; none once it is paid or given back. A plain
    -- column and no generated one, so that the index below answers alone; the CHECK keeps it true.
    exposed_units BLOB,
    CHECK (exposed_units IS
        CASE WHEN state IN ('held', 'serving') THEN limit_units
             WHEN state IN ('captured', 'settling', 'unknown', 'lost') THEN charge END),
    CHECK ((delivered IS NOT NULL) = (state = 'serving')),
    CHECK ((charge IS NOT NULL)
        = (state IN ('captured', 'settling', 'unknown', 'settled', 'lost'))),
    CHECK ("transaction" IS NOT NULL OR state <> 'settled'),
    CHECK ("transaction" IS NULL OR state IN ('unknown', 'settled')),
    CHECK ((reason IS NOT NULL) = (state IN ('released', 'lost'))),
    CHECK (state <> 'released'
        OR reason IN ('upstream_failed', 'settlement_rejected', 'crashed', 'shutdown',
                      'nothing_owed')),
    CHECK (answer = 'withheld' OR charge IS NOT NULL),
    CHECK (state <> 'lost' OR answer <> 'withheld'),
    CHECK (answer_waits = 'no' OR charge IS NOT NULL),
    CHECK (refund_owed IS NULL OR state = 'settled')
) STRICT;

-- The exposure of a payer: a scan of what is open or lost, whatever number of payments is closed.
CREATE INDEX payments_exposed ON payments (payer, network, asset, exposed_units)
    WHERE exposed_units IS NOT NULL;

-- What recovery looks at among the rest.
CREATE INDEX payments_open ON payments (state)
    WHERE state IN ('held', 'serving', 'captured', 'settling', 'unknown');

-- What recovery looks at among the settled ones.
CREATE INDEX payments_waiting ON payments (state) WHERE answer_waits <> 'no';

CREATE TRIGGER payments_keep_their_name BEFORE UPDATE OF seq, id, fingerprint ON payments
    WHEN NEW.seq IS NOT OLD.seq OR NEW.id IS NOT OLD.id OR NEW.fingerprint IS NOT OLD.fingerprint
BEGIN SELECT RAISE(ABORT, 'a payment keeps its id and its fingerprint'); END;

CREATE TRIGGER payments_are_for_ever BEFORE DELETE ON payments
BEGIN SELECT RAISE(ABORT, 'a payment is never forgotten'); END;

-- What else a payment was admitted with. Beside `payments` and not in it: this is the bulk, written
-- once, and a step of the life cycle must not rewrite it.
CREATE TABLE terms (
    seq           INTEGER PRIMARY KEY REFERENCES payments (seq),
    route         TEXT NOT NULL,
    scheme        TEXT NOT NULL,
    pay_to        TEXT NOT NULL,
    price_version TEXT NOT NULL,
    settle_by     INTEGER NOT NULL CHECK (0 <= settle_by),
    payload       TEXT NOT NULL,
    requirements  TEXT NOT NULL
) STRICT;

CREATE TRIGGER terms_are_for_ever BEFORE DELETE ON terms
BEGIN SELECT RAISE(ABORT, 'a payment is never forgotten'); END;

-- One row for each settlement that was ever owed; written in the commit of the capture.
CREATE TABLE outbox (
    payment            BLOB NOT NULL REFERENCES payments (id),
    generation         INTEGER NOT NULL,
    status             TEXT NOT NULL CHECK (status IN ('queued', 'leased', 'done')),
    due_at             INTEGER NOT NULL CHECK (0 <= due_at),
    attempts           INTEGER NOT NULL CHECK (0 <= attempts),
    may_have_been_sent INTEGER NOT NULL CHECK (may_have_been_sent IN (0, 1)),
    "transaction"      TEXT,                       -- the last name heard of it
    outcome            TEXT,                       -- how it ended: a transaction or a reason
    created_at         INTEGER NOT NULL,
    PRIMARY KEY (payment, generation),
    CHECK ("transaction" IS NULL OR may_have_been_sent = 1)
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_due ON outbox (due_at) WHERE status = 'queued';

CREATE TRIGGER outbox_is_for_ever BEFORE DELETE ON outbox
BEGIN SELECT RAISE(ABORT, 'a settlement is never forgotten'); END;

-- Everything that ever happened, in order and without gaps: `seq` is dense because rows are never
-- removed. A chain of hashes over ranges of `seq` can be laid beside it without touching a row.
CREATE TABLE journal (
    seq     INTEGER PRIMARY KEY,
    payment BLOB NOT NULL REFERENCES payments (id),
    at      INTEGER NOT NULL CHECK (0 <= at),
    event   TEXT NOT NULL CHECK (event IN (
                'admitted', 'serve_began', 'delivered', 'priced', 'settlement_began', 'not_sent',
                'unanswered', 'confirmed', 'rejected', 'abandoned', 'answer_leaving',
                'answer_sent', 'refund_owed')),
    amount  BLOB CHECK (length(amount) = 16),
    detail  TEXT,
    CHECK ((amount IS NOT NULL) = (event IN ('admitted', 'delivered', 'priced')))
) STRICT;

CREATE TRIGGER journal_is_not_rewritten BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_is_for_ever BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL CHECK (length(value) = 32)
) STRICT, WITHOUT ROWID;
