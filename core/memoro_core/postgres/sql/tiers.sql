-- Tiers. They are the deployment's, so all of it runs as memoro_system.

-- name: list_tiers
-- By their weight, as queues are.
SELECT tier, limits, shadow, weight, tenant_in_flight, user_in_flight, kept_succeeded, kept_failed, version, updated_at
FROM tiers
ORDER BY weight, tier;

-- name: get_tier
SELECT tier, limits, shadow, weight, tenant_in_flight, user_in_flight, kept_succeeded, kept_failed, version, updated_at
FROM tiers
WHERE tier = $1;

-- name: lock_tiers
-- Lets no other write tiers until the transaction ends, so that they stay as many as were counted. Who reads goes on.
LOCK TABLE tiers IN SHARE ROW EXCLUSIVE MODE;

-- name: tier_versions
SELECT tier, version
FROM tiers;

-- name: put_tier
-- Makes a tier, or replaces all of it but whether its queue is paused.
INSERT INTO tiers (tier, limits, shadow, weight, tenant_in_flight, user_in_flight, kept_succeeded, kept_failed, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (tier) DO UPDATE
SET limits = EXCLUDED.limits, shadow = EXCLUDED.shadow, weight = EXCLUDED.weight, tenant_in_flight = EXCLUDED.tenant_in_flight,
    user_in_flight = EXCLUDED.user_in_flight, kept_succeeded = EXCLUDED.kept_succeeded, kept_failed = EXCLUDED.kept_failed,
    version = tiers.version + 1, updated_at = EXCLUDED.updated_at
RETURNING tier, limits, shadow, weight, tenant_in_flight, user_in_flight, kept_succeeded, kept_failed, version, updated_at;
