SELECT exposed_units
  FROM payments
 WHERE payer = ?1 AND network = ?2 AND asset = ?3 AND exposed_units IS NOT NULL
