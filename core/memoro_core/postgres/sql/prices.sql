-- What operations of models cost, and from when on. Runs across tenants: prices are the deployment's.

-- name: load_prices
-- Of each operation of a model, the price in force at $1 and all later ones.
SELECT provider, model, operation, valid_from, input_price, output_price, fee
FROM prices
WHERE NOT EXISTS (
    SELECT
    FROM prices AS later
    WHERE (later.provider, later.model, later.operation) = (prices.provider, prices.model, prices.operation)
      AND later.valid_from > prices.valid_from AND later.valid_from <= $1);

-- name: list_prices
-- By provider, model and operation, the latest first, from after a given one on ($5 to $8; NULL: from the first). An empty
-- condition fits all. Without $3, those in force at $4.
SELECT provider, model, operation, valid_from, input_price, output_price, fee
FROM prices
WHERE ($1 = '' OR provider = $1)
  AND ($2 = '' OR model = $2)
  AND ($3::boolean OR (valid_from <= $4 AND NOT EXISTS (
      SELECT
      FROM prices AS later
      WHERE (later.provider, later.model, later.operation) = (prices.provider, prices.model, prices.operation)
        AND later.valid_from > prices.valid_from AND later.valid_from <= $4)))
  AND ($5::text IS NULL OR (provider, model, operation) > ($5, $6, $7)
       OR ((provider, model, operation) = ($5, $6, $7) AND valid_from < $8))
ORDER BY provider, model, operation, valid_from DESC
LIMIT $9;

-- name: set_price
-- Returns no row when there is a price from that very moment on.
INSERT INTO prices (provider, model, operation, valid_from, input_price, output_price, fee)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
RETURNING provider;
