INSERT INTO transactions (node, hash, network, sender, nonce, raw, payments, depth)
SELECT $1, hash, network, sender, nonce, raw, payments, depth
  FROM unnest($2::bytea[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bigint[])
       WITH ORDINALITY AS it (hash, network, sender, nonce, raw, payments, depth, number)
 ORDER BY number
ON CONFLICT (hash) DO NOTHING
