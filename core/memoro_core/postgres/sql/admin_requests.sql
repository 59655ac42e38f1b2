-- Which requests of operators were done, and what each of them made.

-- name: record_admin_request
-- Remembers what a request id of an operator did. Returns no row when the id is known.
INSERT INTO idempotency_records (tenant_id, request_id, fingerprint, answer, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, request_id) DO NOTHING
RETURNING request_id;

-- name: find_admin_request
SELECT fingerprint, answer
FROM idempotency_records
WHERE tenant_id = $1 AND request_id = $2;
