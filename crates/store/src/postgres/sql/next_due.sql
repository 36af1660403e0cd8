-- The next settlement, or the next look at one.
SELECT min(due_at) AS due_at
  FROM ((SELECT o.due_at
           FROM outbox AS o
           JOIN payments AS p ON p.id = o.payment AND p.generation = o.generation
          WHERE o.status = 'queued'
            AND (p.answer_waits <> 'for_settlement' OR p.node = $1)
          ORDER BY o.due_at
          LIMIT 1)
        UNION ALL
        (SELECT watch_at FROM outbox WHERE watch_at IS NOT NULL ORDER BY watch_at LIMIT 1)) AS next
