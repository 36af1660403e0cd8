INSERT INTO accounts (network, asset, name, node, debits_pending, debits_posted, credits_pending,
                      credits_posted)
SELECT *
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::numeric[], $6::numeric[],
              $7::numeric[], $8::numeric[])
ON CONFLICT (network, asset, name, node) DO UPDATE
   SET debits_pending = excluded.debits_pending,
       debits_posted = excluded.debits_posted,
       credits_pending = excluded.credits_pending,
       credits_posted = excluded.credits_posted
