WITH fresh AS (
    SELECT *
      FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
                  $9::text[], $10::numeric[], $11::text[], $12::text[], $13::numeric[], $14::numeric[],
                  $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::bigint[],
                  $21::bigint[], $22::bigint[], $23::boolean[], $24::text[], $25::text[],
                  $26::bigint[], $27::text[], $28::text[])
        AS it (id, fingerprint, generation, network, asset, payer, pay_to, route, limit_units, settle,
               state, delivered, charge, transaction, reason, answer, answer_waits, refund_owed,
               reopened, admitted_at, changed_at, unfinished, scheme, price_version, settle_by, payload,
               requirements)
), added AS (
    INSERT INTO payments (
        id, fingerprint, generation, node, network, asset, payer, pay_to, route, limit_units, settle,
        state, delivered, charge, transaction, reason, answer, answer_waits, refund_owed, reopened,
        admitted_at, changed_at, unfinished)
    SELECT id, fingerprint, generation, $1, network, asset, payer, pay_to, route, limit_units, settle,
           state, delivered, charge, transaction, reason, answer, answer_waits, refund_owed, reopened,
           admitted_at, changed_at, unfinished
      FROM fresh
    -- Another node may have taken the same id since it was looked for: then the count tells.
    ON CONFLICT (id) DO NOTHING
    RETURNING seq, id
)
INSERT INTO terms (seq, scheme, price_version, settle_by, payload, requirements)
SELECT added.seq, scheme, price_version, settle_by, payload, requirements
  FROM added JOIN fresh USING (id)
