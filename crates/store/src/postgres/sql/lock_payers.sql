SELECT a.*
  FROM unnest($1::text[], $2::text[], $3::text[]) AS it (network, asset, name)
  JOIN accounts AS a USING (network, asset, name)
 WHERE a.node = ''
 ORDER BY a.network, a.asset, a.name
   FOR UPDATE OF a
