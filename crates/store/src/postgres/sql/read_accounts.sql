SELECT a.*
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS it (network, asset, name, node)
  JOIN accounts AS a USING (network, asset, name, node)
