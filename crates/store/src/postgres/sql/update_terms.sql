UPDATE terms AS t
   SET scheme = it.scheme,
       price_version = it.price_version,
       settle_by = it.settle_by,
       payload = it.payload,
       requirements = it.requirements
  FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[])
    AS it (id, scheme, price_version, settle_by, payload, requirements)
  JOIN payments AS p ON p.id = it.id
 WHERE t.seq = p.seq
