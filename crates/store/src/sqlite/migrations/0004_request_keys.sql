-- What payers call their requests, so that asking again is not paying again: each name belongs to one
-- payment, written in the commit of its hold.

CREATE TABLE request_keys (
    name    BLOB PRIMARY KEY CHECK (length(name) = 32),     -- of the payer and what it says
    payment BLOB NOT NULL REFERENCES payments (id),
    request BLOB NOT NULL CHECK (length(request) = 32)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER request_keys_name_one_request BEFORE UPDATE ON request_keys
    WHEN NEW.name IS NOT OLD.name OR NEW.request IS NOT OLD.request
BEGIN SELECT RAISE(ABORT, 'a request key names one request'); END;

-- Asked before the new payment's hold is known to be good: whatever the code believes, a payment that
-- may have cost something keeps its names.
CREATE TRIGGER request_keys_are_kept BEFORE UPDATE ON request_keys
    WHEN NEW.payment IS NOT OLD.payment
     AND (SELECT state FROM payments WHERE id = OLD.payment) IS NOT 'released'
BEGIN SELECT RAISE(ABORT, 'a payment that was not given back keeps its request keys'); END;

CREATE TRIGGER request_keys_are_for_ever BEFORE DELETE ON request_keys
BEGIN SELECT RAISE(ABORT, 'a request key is never forgotten'); END;
