-- What another node's request waits with is that node's to settle: only it can tell the request.
SELECT p.*, t.*, o.status, o.due_at, o.attempts, o.may_have_been_sent,
       o.transaction AS outbox_transaction, o.outcome, o.created_at, o.watch_at
  FROM outbox AS o
  JOIN payments AS p ON p.id = o.payment AND p.generation = o.generation
  JOIN terms AS t USING (seq)
 WHERE o.status = 'queued'
   AND (o.due_at <= $1 OR $2 < o.due_at)
   AND (p.answer_waits <> 'for_settlement' OR p.node = $4)
 ORDER BY o.due_at
 LIMIT $3
   FOR UPDATE OF o, p SKIP LOCKED
