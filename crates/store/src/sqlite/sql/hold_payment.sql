INSERT INTO payments (
    id, fingerprint, generation, route, scheme, network, asset, payer, pay_to, limit_units, settle,
    price_version, settle_by, payload, requirements, state, answer, answer_waits, admitted_at,
    changed_at)
VALUES (
    :id, :fingerprint, :generation, :route, :scheme, :network, :asset, :payer, :pay_to,
    :limit_units, :settle, :price_version, :settle_by, :payload, :requirements, :state, :answer,
    :answer_waits, :admitted_at, :changed_at)
-- Only a released payment can be held again, and only by the request it is bound to.
ON CONFLICT (id) DO UPDATE
   SET generation = excluded.generation,
       route = excluded.route,
       scheme = excluded.scheme,
       network = excluded.network,
       asset = excluded.asset,
       payer = excluded.payer,
       pay_to = excluded.pay_to,
       limit_units = excluded.limit_units,
       settle = excluded.settle,
       price_version = excluded.price_version,
       settle_by = excluded.settle_by,
       payload = excluded.payload,
       requirements = excluded.requirements,
       state = excluded.state,
       delivered = NULL,
       charge = NULL,
       "transaction" = NULL,
       reason = NULL,
       answer = excluded.answer,
       answer_waits = excluded.answer_waits,
       refund_owed = NULL,
       changed_at = excluded.changed_at
 WHERE payments.state = 'released'
   AND payments.fingerprint = excluded.fingerprint
   AND payments.generation + 1 = excluded.generation
