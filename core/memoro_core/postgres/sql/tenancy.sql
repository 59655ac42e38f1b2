-- Tenants and their keys. They cross tenants by nature, so all of it runs as memoro_system.

-- name: create_tenant
-- Returns no row when the name is taken.
INSERT INTO tenants (tenant_id, name, display_name, tier, state, is_operator, created_at, updated_at)
VALUES ($1, $2, $3, $4, 'ACTIVE', $5, $6, $6)
ON CONFLICT DO NOTHING
RETURNING tenant_id, name, display_name, tier, state, is_operator, limits, version, created_at, updated_at;

-- name: get_tenant
SELECT tenant_id, name, display_name, tier, state, is_operator, limits, version, created_at, updated_at
FROM tenants
WHERE tenant_id = $1;

-- name: tenant_usage
-- What a tenant has stored. Never below nothing, whatever was done by hand.
SELECT greatest(coalesce(sum(memories), 0), 0)::bigint AS memories, greatest(coalesce(sum(bytes), 0), 0)::bigint AS bytes
FROM tenant_usage
WHERE tenant_id = $1;

-- name: find_tenant
-- By name.
SELECT tenant_id, name, display_name, tier, state, is_operator, limits, version, created_at, updated_at
FROM tenants
WHERE name = $1;

-- name: list_tenants
-- By name, after a given one.
SELECT tenant_id, name, display_name, tier, state, is_operator, limits, version, created_at, updated_at
FROM tenants
WHERE $1::text IS NULL OR name > $1
ORDER BY name
LIMIT $2;

-- name: update_tenant
-- NULL leaves a field as it is. Returns no row when the tenant is gone or its version is another than $5.
UPDATE tenants
SET display_name = COALESCE($2, display_name), tier = COALESCE($3, tier), state = COALESCE($4, state),
    limits = COALESCE($7, limits), version = version + 1, updated_at = $6
WHERE tenant_id = $1 AND ($5::bigint IS NULL OR version = $5)
RETURNING tenant_id, name, display_name, tier, state, is_operator, limits, version, created_at, updated_at;

-- name: create_api_key
INSERT INTO api_keys (tenant_id, api_key_id, display_name, prefix, secret_hash, scopes, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING tenant_id, api_key_id, display_name, prefix, scopes, created_at, expires_at, revoked_at;

-- name: end_api_key
-- Lets a key end at $3 if it does not sooner. Returns no row for one that is not there or has ended by $4.
UPDATE api_keys
SET expires_at = LEAST(expires_at, $3)
WHERE tenant_id = $1 AND api_key_id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)
RETURNING tenant_id, api_key_id, display_name, prefix, scopes, created_at, expires_at, revoked_at;

-- name: get_api_key
SELECT tenant_id, api_key_id, display_name, prefix, scopes, created_at, expires_at, revoked_at
FROM api_keys
WHERE tenant_id = $1 AND api_key_id = $2;

-- name: list_api_keys
-- A tenant's, newest first, older than a given one.
SELECT tenant_id, api_key_id, display_name, prefix, scopes, created_at, expires_at, revoked_at
FROM api_keys
WHERE tenant_id = $1 AND ($2::uuid IS NULL OR api_key_id < $2)
ORDER BY api_key_id DESC
LIMIT $3;

-- name: revoke_api_key
-- The first time counts. Returns no row when there is no such key.
UPDATE api_keys
SET revoked_at = COALESCE(revoked_at, $3)
WHERE tenant_id = $1 AND api_key_id = $2
RETURNING tenant_id, api_key_id, display_name, prefix, scopes, created_at, expires_at, revoked_at;

-- name: find_credentials
-- What authentication needs to know of the keys with these prefixes; of those that there are.
SELECT k.prefix, k.tenant_id, k.api_key_id, k.secret_hash, k.scopes, k.expires_at, k.revoked_at, t.tier, t.state, t.is_operator,
       tiers.limits || t.limits AS limits, format('%s.%s.%s', tier, tiers.version, t.version) AS limits_version, tiers.shadow,
       LEAST(tiers.kept_succeeded, tiers.kept_failed) AS jobs_kept
FROM api_keys AS k
JOIN tenants AS t USING (tenant_id)
JOIN tiers USING (tier)
WHERE k.prefix = ANY ($1::text[]);

-- name: find_standing
-- What authentication needs to know of the tenant with the id $1 or the name $2, one of which is NULL.
SELECT t.tenant_id, t.tier, t.state, t.is_operator,
       tiers.limits || t.limits AS limits, format('%s.%s.%s', tier, tiers.version, t.version) AS limits_version, tiers.shadow,
       LEAST(tiers.kept_succeeded, tiers.kept_failed) AS jobs_kept
FROM tenants AS t
JOIN tiers USING (tier)
WHERE t.tenant_id = $1 OR t.name = $2;
