INSERT INTO request_keys (name, payment, request)
SELECT name, payment, request
  FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS it (name, payment, request)
 ORDER BY name
-- Another node may have bound the same name since it was looked for: then the count tells.
ON CONFLICT DO NOTHING
