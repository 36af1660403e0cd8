SELECT p.*, t.*, o.attempts
  FROM payments AS p
  JOIN terms AS t USING (seq)
  LEFT JOIN outbox AS o ON o.payment = p.id AND o.generation = p.generation
 WHERE (:start IS NULL OR :start < seq)
   AND (:state IS NULL OR state = :state)
   AND (:payer IS NULL OR payer = :payer COLLATE NOCASE)
   AND (:route IS NULL OR route = :route)
   AND (:since IS NULL OR :since <= admitted_at)
   AND (:until IS NULL OR admitted_at < :until)
 ORDER BY seq
 LIMIT :max
