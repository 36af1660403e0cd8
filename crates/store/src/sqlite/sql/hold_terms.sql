INSERT INTO terms (seq, route, scheme, pay_to, price_version, settle_by, payload, requirements)
VALUES (:seq, :route, :scheme, :pay_to, :price_version, :settle_by, :payload, :requirements)
ON CONFLICT (seq) DO UPDATE
   -- The route and the payee name its accounts, and stay.
   SET scheme = excluded.scheme,
       price_version = excluded.price_version,
       settle_by = excluded.settle_by,
       payload = excluded.payload,
       requirements = excluded.requirements
