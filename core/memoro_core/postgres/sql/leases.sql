-- Leases: how running jobs stay with their workers, and how workers show that they live. Runs across tenants.

-- name: extend
-- Heartbeat of many runs; none is kept beyond its deadline. Returns those that still hold their job, and whether their lease was
-- extended: that of a job which a transaction of the run itself holds is not, and one that hangs must not keep the others from
-- theirs. Arrays are parallel.
WITH held AS (
    SELECT jobs.tenant_id, jobs.job_id, run.lease
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS run (tenant_id, job_id, lease)
    JOIN jobs USING (tenant_id, job_id)
    WHERE jobs.state = 'RUNNING' AND jobs.run_lease = run.lease
), free AS (
    SELECT jobs.tenant_id, jobs.job_id, held.lease
    FROM held
    JOIN jobs USING (tenant_id, job_id)
    FOR UPDATE OF jobs SKIP LOCKED
), extended AS (
    UPDATE jobs
    SET lease_expires_at = LEAST($4, run_deadline)
    FROM free
    WHERE jobs.tenant_id = free.tenant_id AND jobs.job_id = free.job_id AND jobs.state = 'RUNNING' AND jobs.run_lease = free.lease
    RETURNING jobs.tenant_id, jobs.job_id
)
SELECT held.tenant_id, held.job_id, extended.job_id IS NOT NULL AS extended
FROM held
LEFT JOIN extended USING (tenant_id, job_id);

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
