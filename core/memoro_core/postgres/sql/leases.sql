-- Leases: how running jobs stay with their workers, and how workers show that they live. Runs across tenants.

-- name: extend
-- Heartbeat of many runs; none is kept beyond its deadline. Returns those that still hold their job. Arrays are parallel.
WITH held AS (
    SELECT jobs.tenant_id, jobs.job_id
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS run (tenant_id, job_id, lease)
    JOIN jobs USING (tenant_id, job_id)
    WHERE jobs.state = 'RUNNING' AND jobs.run_lease = run.lease
    -- Always in one order, so that two such statements never wait for each other.
    ORDER BY jobs.tenant_id, jobs.job_id
    FOR UPDATE OF jobs
)
UPDATE jobs
SET lease_expires_at = LEAST($4, run_deadline)
FROM held
WHERE jobs.tenant_id = held.tenant_id AND jobs.job_id = held.job_id
RETURNING jobs.tenant_id, jobs.job_id;

-- name: cancel_requests
-- Which of these runs are asked to cancel. Arrays are parallel.
SELECT jobs.tenant_id, jobs.job_id
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS run (tenant_id, job_id, lease)
JOIN jobs USING (tenant_id, job_id)
WHERE jobs.state = 'RUNNING' AND jobs.run_lease = run.lease AND jobs.cancel_requested;

-- name: worker_seen
-- A worker's sign of life.
INSERT INTO workers (worker_id, host, process_id, version, concurrency, stopping, started_at, seen_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (worker_id) DO UPDATE SET stopping = EXCLUDED.stopping, seen_at = EXCLUDED.seen_at;

-- name: worker_gone
-- A worker that stopped.
DELETE FROM workers WHERE worker_id = $1;
