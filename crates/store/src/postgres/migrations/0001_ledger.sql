-- The first schema. It is the one of the SQLite engine, with three differences: rows belong to nodes,
-- because several gateways work on one database; amounts are numbers, because operators ask this
-- database questions; and what a payment's steps change is kept apart from indexes, so that PostgreSQL
-- can write it in place.
--
-- Times are milliseconds since the Unix epoch. The CHECKs repeat the rules of the code on purpose: they
-- are what stands when the code is wrong.

-- Atomic units of an asset: every unsigned number of 128 bits.
CREATE DOMAIN units AS numeric(39, 0)
    CHECK (VALUE BETWEEN 0 AND 340282366920938463463374607431768211455);

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_ARGV[0]; END $$;

-- The gateways. Whoever claims a name raises its epoch; from then on no transaction of an earlier claim
-- can commit, because each one begins with locking this row and comparing.
CREATE TABLE nodes (
    node        text COLLATE "C" PRIMARY KEY CHECK (node <> ''),
    epoch       bigint NOT NULL CHECK (1 <= epoch),
    batch       bigint NOT NULL CHECK (0 <= batch),       -- the last one that is committed
    journal_seq bigint NOT NULL CHECK (0 <= journal_seq), -- the last line of its journal
    claimed_at  timestamptz NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE payments (
    seq           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,  -- the order of admission
    id            bytea PRIMARY KEY CHECK (length(id) = 32),
    fingerprint   bytea NOT NULL CHECK (length(fingerprint) = 32),
    generation    bigint NOT NULL CHECK (1 <= generation),     -- how often it was held
    node          text COLLATE "C" NOT NULL,                   -- whose business it is
    network       text COLLATE "C" NOT NULL,
    asset         text COLLATE "C" NOT NULL,
    payer         text COLLATE "C" NOT NULL,
    pay_to        text COLLATE "C" NOT NULL,
    route         text COLLATE "C" NOT NULL,
    limit_units   units NOT NULL,
    settle        text COLLATE "C" NOT NULL CHECK (settle IN ('after', 'before', 'background')),
    state         text COLLATE "C" NOT NULL
        CHECK (state IN ('held', 'serving', 'captured', 'settling', 'unknown', 'settled', 'released',
                         'lost')),
    delivered     units CHECK (delivered <= limit_units),
    charge        units CHECK (charge <= limit_units),
    transaction   text,
    reason        text,
    answer        text COLLATE "C" NOT NULL CHECK (answer IN ('withheld', 'leaving', 'sent')),
    -- Whether the answer was captured before it left: 'for_settlement' while a request of `node` waits
    -- with it, 'in_vain' once that request is known to be gone.
    answer_waits  text COLLATE "C" NOT NULL
        CHECK (answer_waits IN ('no', 'for_settlement', 'in_vain')),
    refund_owed   text,
    -- How often a reorganisation of the chain has reopened the settlement of the current hold.
    reopened      bigint NOT NULL CHECK (0 <= reopened),
    admitted_at   bigint NOT NULL CHECK (0 <= admitted_at),
    changed_at    bigint NOT NULL CHECK (0 <= changed_at),
    -- What recovery looks at. A column of its own: it changes once in a life, and the state, which
    -- changes with every step, is in no index.
    unfinished    boolean NOT NULL,
    CHECK (unfinished = (state IN ('held', 'serving', 'captured', 'settling', 'unknown')
                         OR state = 'settled' AND answer_waits <> 'no')),
    CHECK ((delivered IS NOT NULL) = (state = 'serving')),
    CHECK ((charge IS NOT NULL)
        = (state IN ('captured', 'settling', 'unknown', 'settled', 'lost'))),
    CHECK (transaction IS NOT NULL OR state <> 'settled'),
    CHECK (transaction IS NULL OR state IN ('unknown', 'settled')),
    CHECK ((reason IS NOT NULL) = (state IN ('released', 'lost'))),
    CHECK (state <> 'released'
        OR reason IN ('upstream_failed', 'settlement_rejected', 'crashed', 'shutdown',
                      'nothing_owed')),
    CHECK (answer = 'withheld' OR charge IS NOT NULL),
    CHECK (state <> 'lost' OR answer <> 'withheld'),
    CHECK (answer_waits = 'no' OR charge IS NOT NULL),
    CHECK (refund_owed IS NULL OR state = 'settled')
) WITH (fillfactor = 50);

CREATE INDEX payments_unfinished ON payments (node) WHERE unfinished;

CREATE TRIGGER payments_keep_their_name BEFORE UPDATE ON payments FOR EACH ROW
    WHEN (NEW.seq <> OLD.seq OR NEW.id <> OLD.id OR NEW.fingerprint <> OLD.fingerprint
          OR NEW.network <> OLD.network OR NEW.asset <> OLD.asset OR NEW.payer <> OLD.payer
          OR NEW.pay_to <> OLD.pay_to OR NEW.route <> OLD.route)
    EXECUTE FUNCTION refuse('a payment keeps its id, its fingerprint and its parties');
CREATE TRIGGER payments_are_for_ever BEFORE DELETE OR TRUNCATE ON payments
    EXECUTE FUNCTION refuse('a payment is never forgotten');

-- What else a payment was admitted with: the bulk, written once.
CREATE TABLE terms (
    seq           bigint PRIMARY KEY,
    scheme        text NOT NULL,
    price_version text NOT NULL,
    settle_by     bigint NOT NULL CHECK (0 <= settle_by),
    payload       text NOT NULL,
    requirements  text NOT NULL
);

CREATE TRIGGER terms_are_for_ever BEFORE DELETE OR TRUNCATE ON terms
    EXECUTE FUNCTION refuse('a payment is never forgotten');

-- One row for each settlement that was ever owed; written in the commit of the capture. Whoever wants
-- to change one locks its payment first.
CREATE TABLE outbox (
    payment            bytea NOT NULL,
    generation         bigint NOT NULL,
    status             text COLLATE "C" NOT NULL CHECK (status IN ('queued', 'leased', 'done')),
    due_at             bigint NOT NULL CHECK (0 <= due_at),
    attempts           bigint NOT NULL CHECK (0 <= attempts),
    may_have_been_sent boolean NOT NULL,
    transaction        text,                       -- the last name heard of it
    outcome            text,                       -- how it ended: a transaction or a reason
    created_at         bigint NOT NULL,
    PRIMARY KEY (payment, generation),
    CHECK (transaction IS NULL OR may_have_been_sent)
);

CREATE INDEX outbox_due ON outbox (due_at) WHERE status = 'queued';

CREATE TRIGGER outbox_is_for_ever BEFORE DELETE OR TRUNCATE ON outbox
    EXECUTE FUNCTION refuse('a settlement is never forgotten');

-- Everything that ever happened, in order and without gaps for each node that wrote it.
CREATE TABLE journal (
    -- What happened to one payment is in this order: whoever writes a line has locked the payment.
    place   bigint GENERATED ALWAYS AS IDENTITY,
    node    text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL CHECK (1 <= seq),
    payment bytea NOT NULL,
    at      bigint NOT NULL CHECK (0 <= at),
    event   text COLLATE "C" NOT NULL CHECK (event IN (
                'admitted', 'serve_began', 'delivered', 'priced', 'settlement_began', 'not_sent',
                'unanswered', 'confirmed', 'rejected', 'abandoned', 'withdrawn',
                'answer_withheld', 'answer_leaving', 'answer_sent', 'refund_owed')),
    amount  units,
    detail  text,
    PRIMARY KEY (node, seq),
    CHECK ((amount IS NOT NULL) = (event IN ('admitted', 'delivered', 'priced')))
);

CREATE TRIGGER journal_is_for_ever BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    EXECUTE FUNCTION refuse('the journal is append-only');

-- Double entry. The accounts of a payer are one row each, and the `payer:` row is the lock on all of
-- them. Those that every payment touches have a row for each node, which only that node writes; what
-- stands on such an account is the sum of its rows.
CREATE TABLE accounts (
    network         text COLLATE "C" NOT NULL,
    asset           text COLLATE "C" NOT NULL,
    name            text COLLATE "C" NOT NULL,     -- kind:name, as `payer:0x…`
    node            text COLLATE "C" NOT NULL,     -- empty where the row is everybody's
    debits_pending  units NOT NULL DEFAULT 0,
    debits_posted   units NOT NULL DEFAULT 0,
    credits_pending units NOT NULL DEFAULT 0,
    credits_posted  units NOT NULL DEFAULT 0,
    PRIMARY KEY (network, asset, name, node)
) WITH (fillfactor = 50);

CREATE TRIGGER accounts_only_grow BEFORE UPDATE ON accounts FOR EACH ROW
    WHEN (NEW.debits_posted < OLD.debits_posted OR NEW.credits_posted < OLD.credits_posted)
    EXECUTE FUNCTION refuse('what was posted stays posted');
CREATE TRIGGER accounts_are_for_ever BEFORE DELETE OR TRUNCATE ON accounts
    EXECUTE FUNCTION refuse('an account is never closed');

-- What payers call their requests, so that asking again is not paying again: each name belongs to one
-- payment, written in the commit of its hold.
CREATE TABLE request_keys (
    name    bytea PRIMARY KEY CHECK (length(name) = 32),      -- of the payer and what it says
    payment bytea NOT NULL,
    request bytea NOT NULL CHECK (length(request) = 32)
);

CREATE FUNCTION keep_request_keys() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF (SELECT state FROM payments WHERE id = OLD.payment) IS DISTINCT FROM 'released' THEN
        RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation',
            MESSAGE = 'a payment that was not given back keeps its request keys';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER request_keys_name_one_request BEFORE UPDATE ON request_keys FOR EACH ROW
    WHEN (NEW.name <> OLD.name OR NEW.request <> OLD.request)
    EXECUTE FUNCTION refuse('a request key names one request');
CREATE TRIGGER request_keys_are_kept BEFORE UPDATE ON request_keys FOR EACH ROW
    WHEN (NEW.payment <> OLD.payment)
    EXECUTE FUNCTION keep_request_keys();
CREATE TRIGGER request_keys_are_for_ever BEFORE DELETE OR TRUNCATE ON request_keys
    EXECUTE FUNCTION refuse('a request key is never forgotten');

-- Signed transactions, each kept before it is sent for the first time, so that a retry sends the same
-- bytes. The bytes go when nobody needs them any more; that there was such a transaction stays.
CREATE TABLE transactions (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- the order of recording
    hash     bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    node     text COLLATE "C" NOT NULL,                        -- who sends it
    network  text COLLATE "C" NOT NULL,
    sender   bytea NOT NULL CHECK (length(sender) = 20),
    nonce    bigint NOT NULL CHECK (0 <= nonce),
    raw      bytea,
    payments bytea NOT NULL CHECK (length(payments) % 32 = 0), -- ids, one after the other
    depth    bigint NOT NULL CHECK (0 <= depth),
    ended    text COLLATE "C" CHECK (ended IN ('mined', 'superseded', 'not_sent')),
    CHECK ((raw IS NULL) = (ended IS NOT NULL))
);

CREATE INDEX transactions_open ON transactions (node, network, seq) WHERE ended IS NULL;

CREATE TRIGGER transactions_keep_what_was_signed BEFORE UPDATE ON transactions FOR EACH ROW
    WHEN (NEW.hash <> OLD.hash OR NEW.network <> OLD.network OR NEW.sender <> OLD.sender
          OR NEW.nonce <> OLD.nonce OR NEW.payments <> OLD.payments
          OR NEW.raw IS NOT NULL AND NEW.raw IS DISTINCT FROM OLD.raw)
    EXECUTE FUNCTION refuse('a signed transaction does not change');
CREATE TRIGGER transactions_are_for_ever BEFORE DELETE OR TRUNCATE ON transactions
    EXECUTE FUNCTION refuse('a signed transaction is never forgotten');

CREATE TABLE secrets (
    name  text PRIMARY KEY,
    value bytea NOT NULL CHECK (length(value) = 32)
);
