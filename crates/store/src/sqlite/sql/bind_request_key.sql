INSERT INTO request_keys (name, payment, request)
VALUES (:name, :payment, :request)
-- Triggers see to it that only a released payment loses its key, and only to the same request.
ON CONFLICT (name) DO UPDATE
   SET payment = excluded.payment,
       request = excluded.request
