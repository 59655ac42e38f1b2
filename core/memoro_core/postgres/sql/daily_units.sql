-- The weight of each tenant's calls by day. Runs across tenants.

-- name: add_units
-- Adds $3 to the units of tenants $1 on days $2; their totals. In one order, so that no two servers wait for each other.
INSERT INTO daily_units AS known (tenant_id, day, units)
SELECT tenant_id, day, units
FROM unnest($1::uuid[], $2::date[], $3::bigint[]) AS added (tenant_id, day, units)
ORDER BY tenant_id, day
ON CONFLICT (tenant_id, day) DO UPDATE SET units = known.units + excluded.units
RETURNING tenant_id, day, units;

-- name: give_back_units
-- Takes $3 from the units of tenant $1 on day $2; their total.
UPDATE daily_units SET units = greatest(units - $3::bigint, 0) WHERE tenant_id = $1 AND day = $2 RETURNING units;

-- name: take_units
-- Adds as many as $3 to the units of tenant $1 on day $2, if there is room for $4 within $5: the total, and how many.
WITH known AS (
    SELECT units FROM daily_units WHERE tenant_id = $1 AND day = $2 FOR UPDATE
)
UPDATE daily_units
SET units = known.units + least($3::bigint, $5::bigint - known.units)
FROM known
WHERE tenant_id = $1 AND day = $2 AND known.units + $4::bigint <= $5::bigint
RETURNING daily_units.units AS total, daily_units.units - known.units AS taken;
