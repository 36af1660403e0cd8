INSERT INTO journal (node, seq, payment, at, event, amount, detail)
SELECT $1, $2::bigint + it.number, it.payment, it.at, it.event, it.amount, it.detail
  FROM unnest($3::bytea[], $4::bigint[], $5::text[], $6::numeric[], $7::text[])
       WITH ORDINALITY AS it (payment, at, event, amount, detail, number)
