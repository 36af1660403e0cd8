SELECT p.*, t.*
  FROM outbox AS o
  JOIN payments AS p ON p.id = o.payment AND p.generation = o.generation
  JOIN terms AS t USING (seq)
 WHERE o.watch_at IS NOT NULL
   AND (o.watch_at <= $1 OR $2 < o.watch_at)
   AND p.state = 'settled'
 ORDER BY o.watch_at
 LIMIT $3
