UPDATE payments
   SET state = :state,
       delivered = :delivered,
       charge = :charge,
       "transaction" = :transaction,
       reason = :reason,
       answer = :answer,
       answer_waits = :answer_waits,
       refund_owed = :refund_owed,
       reopened = :reopened,
       exposed_units = :exposed_units,
       changed_at = :changed_at
 WHERE id = :id AND generation = :generation
