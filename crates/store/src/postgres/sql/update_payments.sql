UPDATE payments AS p
   SET generation = it.generation,
       node = it.node,
       limit_units = it.limit_units,
       settle = it.settle,
       state = it.state,
       delivered = it.delivered,
       charge = it.charge,
       transaction = it.transaction,
       reason = it.reason,
       answer = it.answer,
       answer_waits = it.answer_waits,
       refund_owed = it.refund_owed,
       reopened = it.reopened,
       changed_at = it.changed_at,
       unfinished = it.unfinished
  FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::numeric[], $6::text[], $7::text[],
              $8::numeric[], $9::numeric[], $10::text[], $11::text[], $12::text[], $13::text[],
              $14::text[], $15::bigint[], $16::bigint[], $17::boolean[])
    AS it (id, was, generation, node, limit_units, settle, state, delivered, charge, transaction, reason,
           answer, answer_waits, refund_owed, reopened, changed_at, unfinished)
 WHERE p.id = it.id AND p.generation = it.was
