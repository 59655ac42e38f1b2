-- What requests were answered, so that a repeated one gets the same answer. Runs within a tenant's transaction, or across
-- tenants for operators.

-- name: record_answer
-- With $6 it is never forgotten. Returns no row when the request id is known.
INSERT INTO idempotency_records (tenant_id, request_id, fingerprint, answer, created_at, kept)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, request_id) DO NOTHING
RETURNING request_id;

-- name: answer
-- Of a request that is remembered.
UPDATE idempotency_records SET answer = $3 WHERE tenant_id = $1 AND request_id = $2;

-- name: find_answer
SELECT fingerprint, answer
FROM idempotency_records
WHERE tenant_id = $1 AND request_id = $2;
