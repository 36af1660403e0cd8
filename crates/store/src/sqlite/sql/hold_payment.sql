INSERT INTO payments (
    id, fingerprint, generation, network, asset, payer, limit_units, settle, state, answer,
    answer_waits, admitted_at, changed_at, exposed_units)
VALUES (
    :id, :fingerprint, :generation, :network, :asset, :payer, :limit_units, :settle, :state,
    :answer, :answer_waits, :admitted_at, :changed_at, :limit_units)
-- Only a released payment can be held again, and only by the request it is bound to.
ON CONFLICT (id) DO UPDATE
   SET generation = excluded.generation,
       network = excluded.network,
       asset = excluded.asset,
       payer = excluded.payer,
       limit_units = excluded.limit_units,
       settle = excluded.settle,
       state = excluded.state,
       delivered = NULL,
       charge = NULL,
       "transaction" = NULL,
       reason = NULL,
       answer = excluded.answer,
       answer_waits = excluded.answer_waits,
       refund_owed = NULL,
       reopened = 0,
       changed_at = excluded.changed_at,
       exposed_units = excluded.exposed_units
 WHERE payments.state = 'released'
   AND payments.fingerprint = excluded.fingerprint
   AND payments.generation + 1 = excluded.generation
RETURNING seq
