-- Request ids that are old enough to be forgotten. Runs across tenants.

-- name: forget_requests
-- Forgets at most $2 of the requests made before $1, but none that moved money.
WITH old AS (
    SELECT tenant_id, request_id
    FROM idempotency_records
    WHERE created_at < $1 AND NOT kept
    ORDER BY created_at
    LIMIT $2
)
DELETE FROM idempotency_records AS record
USING old
WHERE record.tenant_id = old.tenant_id AND record.request_id = old.request_id;
