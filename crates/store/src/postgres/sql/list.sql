-- A payment that is not there is nobody's predecessor.
SELECT *
  FROM payments JOIN terms USING (seq)
 WHERE CASE WHEN $1::bytea IS NULL THEN 0 ELSE (SELECT seq FROM payments WHERE id = $1) END < seq
 ORDER BY seq
 LIMIT $2
