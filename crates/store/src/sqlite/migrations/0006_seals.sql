-- The seals of the journal (ADR 0017): one for each commit that added to it, with the hash of all up to
-- there. Lines from before there were seals go into the first one.
CREATE TABLE seals (
    last_seq  INTEGER PRIMARY KEY CHECK (1 <= last_seq),
    first_seq INTEGER NOT NULL CHECK (1 <= first_seq AND first_seq <= last_seq),
    at        INTEGER NOT NULL CHECK (0 <= at),
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    key       BLOB NOT NULL CHECK (length(key) = 32),            -- whose signature: Ed25519
    signature BLOB NOT NULL CHECK (length(signature) = 64)
) STRICT;

CREATE TRIGGER seals_are_not_rewritten BEFORE UPDATE ON seals
BEGIN SELECT RAISE(ABORT, 'a seal does not change'); END;

CREATE TRIGGER seals_are_for_ever BEFORE DELETE ON seals
BEGIN SELECT RAISE(ABORT, 'a seal is never removed'); END;
