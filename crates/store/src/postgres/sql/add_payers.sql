INSERT INTO accounts (network, asset, name, node)
SELECT network, asset, name, ''
  FROM unnest($1::text[], $2::text[], $3::text[]) AS it (network, asset, name)
 ORDER BY network, asset, name
ON CONFLICT DO NOTHING
