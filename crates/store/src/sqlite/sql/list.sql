SELECT *
  FROM payments JOIN terms USING (seq)
 WHERE ?1 < seq
 ORDER BY seq
 LIMIT ?2
