-- A settled payment is looked at again until it is as deep in its chain as its value takes; the journal
-- learns a word for one that the chain takes back.

-- When to look next; none where it is final, or not settled.
ALTER TABLE outbox ADD COLUMN watch_at bigint CHECK (0 <= watch_at);

CREATE INDEX outbox_watched ON outbox (watch_at) WHERE watch_at IS NOT NULL;

ALTER TABLE journal DROP CONSTRAINT journal_event_check;
ALTER TABLE journal ADD CONSTRAINT journal_event_check CHECK (event IN (
    'admitted', 'serve_began', 'delivered', 'priced', 'settlement_began', 'not_sent', 'unanswered',
    'confirmed', 'rejected', 'abandoned', 'withdrawn', 'reopened', 'answer_withheld',
    'answer_leaving', 'answer_sent', 'refund_owed'));
