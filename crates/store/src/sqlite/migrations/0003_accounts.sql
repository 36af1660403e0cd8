-- Double entry: the accounts, one row each. Which there are is in ADR 0015; what was booked on them can
-- be recomputed from the journal, and is, for a file that had none, by the code that runs this.
CREATE TABLE accounts (
    network         TEXT NOT NULL,
    asset           TEXT NOT NULL,
    name            TEXT NOT NULL,                 -- kind:name, as `payer:0x…`
    debits_pending  BLOB NOT NULL CHECK (length(debits_pending) = 16),
    debits_posted   BLOB NOT NULL CHECK (length(debits_posted) = 16),
    credits_pending BLOB NOT NULL CHECK (length(credits_pending) = 16),
    credits_posted  BLOB NOT NULL CHECK (length(credits_posted) = 16),
    PRIMARY KEY (network, asset, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER accounts_are_for_ever BEFORE DELETE ON accounts
BEGIN SELECT RAISE(ABORT, 'an account is never closed'); END;

-- What is posted never falls; what is pending falls when it is posted or voided.
CREATE TRIGGER accounts_only_grow BEFORE UPDATE ON accounts
    WHEN NEW.debits_posted < OLD.debits_posted OR NEW.credits_posted < OLD.credits_posted
BEGIN SELECT RAISE(ABORT, 'what was posted stays posted'); END;

-- How often a reorganisation of the chain has reopened the settlement of the current hold.
ALTER TABLE payments ADD COLUMN reopened INTEGER NOT NULL DEFAULT 0 CHECK (0 <= reopened);

-- The exposure of a payer is the sum of two accounts now.
DROP INDEX payments_exposed;
