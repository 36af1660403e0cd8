INSERT INTO outbox (payment, generation, status, due_at, attempts, may_have_been_sent, transaction,
                    outcome, created_at, watch_at)
SELECT *
  FROM unnest($1::bytea[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[], $7::text[],
              $8::text[], $9::bigint[], $10::bigint[])
ON CONFLICT (payment, generation) DO UPDATE
   SET status = excluded.status,
       due_at = excluded.due_at,
       attempts = excluded.attempts,
       may_have_been_sent = excluded.may_have_been_sent,
       transaction = excluded.transaction,
       outcome = excluded.outcome,
       watch_at = excluded.watch_at
