-- What a file knows of itself: which ledger it is, and that it may have forgotten payments.

-- Drawn at random once; copies have it, too. The mark beside the file names it.
CREATE TABLE identity (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    ledger BLOB NOT NULL CHECK (length(ledger) = 16)
) STRICT;

CREATE TRIGGER identity_is_kept BEFORE UPDATE ON identity
BEGIN SELECT RAISE(ABORT, 'a ledger keeps its identity'); END;

-- The file was, or is, older than what was promised on its behalf. While a row has no end, no payment
-- is taken.
CREATE TABLE quarantines (
    seq       INTEGER PRIMARY KEY,
    reason    TEXT NOT NULL CHECK (reason IN ('backup', 'behind', 'stranger', 'unmarked')),
    copied_at INTEGER CHECK (0 <= copied_at),      -- when the backup was made, if it is one
    began_at  INTEGER CHECK (0 <= began_at),       -- when a gateway first ran on it
    ended_at  INTEGER CHECK (0 <= ended_at)        -- when somebody accepted it
) STRICT;

CREATE UNIQUE INDEX quarantines_open ON quarantines (ended_at IS NULL) WHERE ended_at IS NULL;

CREATE TRIGGER quarantines_are_for_ever BEFORE DELETE ON quarantines
BEGIN SELECT RAISE(ABORT, 'a quarantine is ended and not forgotten'); END;
