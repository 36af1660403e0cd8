UPDATE request_keys AS k
   SET payment = it.payment
  FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS it (name, payment, was)
 WHERE k.name = it.name AND k.payment = it.was
