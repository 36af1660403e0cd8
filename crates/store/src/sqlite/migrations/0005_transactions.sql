-- Signed transactions, each kept before it is sent for the first time, so that a retry sends the same
-- bytes. The bytes go when nobody needs them any more; that there was such a transaction stays.

CREATE TABLE transactions (
    seq      INTEGER PRIMARY KEY,                  -- the order of recording
    hash     BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    network  TEXT NOT NULL,
    sender   BLOB NOT NULL CHECK (length(sender) = 20),
    nonce    INTEGER NOT NULL CHECK (0 <= nonce),
    raw      BLOB,
    payments BLOB NOT NULL CHECK (length(payments) % 32 = 0),  -- ids, one after the other
    depth    INTEGER NOT NULL CHECK (0 <= depth),
    ended    TEXT CHECK (ended IN ('mined', 'superseded', 'not_sent')),
    CHECK ((raw IS NULL) = (ended IS NOT NULL))
) STRICT;

CREATE INDEX transactions_open ON transactions (network, seq) WHERE ended IS NULL;

CREATE TRIGGER transactions_keep_what_was_signed
    BEFORE UPDATE OF hash, network, sender, nonce, raw, payments ON transactions
    WHEN NEW.hash IS NOT OLD.hash OR NEW.network IS NOT OLD.network
        OR NEW.sender IS NOT OLD.sender OR NEW.nonce IS NOT OLD.nonce
        OR NEW.payments IS NOT OLD.payments OR (NEW.raw IS NOT NULL AND NEW.raw IS NOT OLD.raw)
BEGIN SELECT RAISE(ABORT, 'a signed transaction does not change'); END;

CREATE TRIGGER transactions_are_for_ever BEFORE DELETE ON transactions
BEGIN SELECT RAISE(ABORT, 'a signed transaction is never forgotten'); END;
