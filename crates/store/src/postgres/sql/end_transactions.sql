UPDATE transactions AS t
   SET ended = it.fate, raw = NULL
  FROM unnest($1::bytea[], $2::text[]) AS it (hash, fate)
 WHERE t.hash = it.hash AND t.ended IS NULL
