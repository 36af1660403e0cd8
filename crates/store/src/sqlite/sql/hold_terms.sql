INSERT INTO terms (seq, route, scheme, pay_to, price_version, settle_by, payload, requirements)
VALUES (:seq, :route, :scheme, :pay_to, :price_version, :settle_by, :payload, :requirements)
ON CONFLICT (seq) DO UPDATE
   SET route = excluded.route,
       scheme = excluded.scheme,
       pay_to = excluded.pay_to,
       price_version = excluded.price_version,
       settle_by = excluded.settle_by,
       payload = excluded.payload,
       requirements = excluded.requirements
