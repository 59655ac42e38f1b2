-- Workers and queues as operators see them, and what they do to the jobs that wait.

-- name: workers
-- Workers that gave a sign of life since $1, by their start. Runs across tenants.
SELECT worker_id, host, process_id, version, concurrency, stopping, started_at, seen_at
FROM workers
WHERE seen_at >= $1
ORDER BY started_at, worker_id
LIMIT $2;

-- name: running
-- The longest-running jobs of each of these workers, $2 of each at most, with the number of all that the worker runs. Runs across
-- tenants.
SELECT worker_id, jobs, tenant_id, job_id, kind, attempt, started_at
FROM (SELECT worker_id, tenant_id, job_id, kind, attempt, started_at,
             count(*) OVER (PARTITION BY worker_id) AS jobs,
             row_number() OVER (PARTITION BY worker_id ORDER BY started_at, job_id) AS place
      FROM jobs
      WHERE state = 'RUNNING' AND worker_id = ANY ($1::text[])) AS run
WHERE place <= $2
ORDER BY started_at, job_id;

-- name: queues
-- How the jobs of each tier stand at $1; today is from $2 on, lately from $3 on. Each arm reads an index of what it counts. Runs
-- across tenants.
WITH figures (tenant_id, waiting, oldest, active, deferred, succeeded, failed, lately) AS (
    SELECT tenant_id, count(*), min(run_at) FILTER (WHERE run_at <= $1), 0, 0, 0, 0, 0
    FROM jobs
    WHERE waiting
    GROUP BY tenant_id
    UNION ALL
    SELECT tenant_id, count(*), min(run_at) FILTER (WHERE run_at <= $1), 0, 0, 0, 0, 0
    FROM jobs
    WHERE state = 'QUEUED' AND hinted_at IS NOT NULL
    GROUP BY tenant_id
    UNION ALL
    SELECT tenant_id, 0, NULL, count(*), 0, 0, 0, 0
    FROM jobs
    WHERE state = 'RUNNING'
    GROUP BY tenant_id
    UNION ALL
    SELECT tenant_id, 0, NULL, 0, count(*), 0, 0, 0
    FROM jobs
    WHERE state = 'DEFERRED'
    GROUP BY tenant_id
    UNION ALL
    SELECT tenant_id, 0, NULL, 0, 0,
           count(*) FILTER (WHERE state = 'SUCCEEDED' AND ended_at >= $2),
           count(*) FILTER (WHERE state = 'FAILED' AND ended_at >= $2),
           count(*) FILTER (WHERE ended_at >= $3)
    FROM jobs
    WHERE ended_at >= LEAST($2::timestamptz, $3::timestamptz)
    GROUP BY tenant_id
)
SELECT tiers.tier, tiers.queue_paused_at,
       COALESCE(sum(waiting), 0)::bigint AS waiting, min(oldest) AS oldest,
       COALESCE(sum(active), 0)::bigint AS active, COALESCE(sum(deferred), 0)::bigint AS deferred,
       COALESCE(sum(succeeded), 0)::bigint AS succeeded, COALESCE(sum(failed), 0)::bigint AS failed,
       COALESCE(sum(lately), 0)::bigint AS lately
FROM tiers
LEFT JOIN (figures JOIN tenants USING (tenant_id)) USING (tier)
GROUP BY tiers.tier
ORDER BY tiers.weight, tiers.tier;

-- name: has_queue
SELECT EXISTS (SELECT FROM tiers WHERE tier = $1);

-- name: pause
-- Pauses the queue of tier $1, or all for NULL. Returns those that were not. Runs across tenants.
UPDATE tiers
SET queue_paused_at = $2
WHERE ($1::text IS NULL OR tier = $1) AND queue_paused_at IS NULL
RETURNING tier;

-- name: resume
-- Lets the queue of tier $1 run again, or all for NULL. Returns those that were paused. Runs across tenants.
UPDATE tiers
SET queue_paused_at = NULL
WHERE ($1::text IS NULL OR tier = $1) AND queue_paused_at IS NOT NULL
RETURNING tier;

-- name: waiting
-- Jobs that wait, or are put off if $4 says so, and fit; the oldest first. A NULL or empty condition fits all. Each arm reads an
-- index of what it looks for. Runs across tenants.
SELECT waiting.tenant_id, waiting.job_id, waiting.memories
FROM (SELECT tenant_id, job_id, kind, cardinality(memory_ids) AS memories
      FROM jobs
      WHERE waiting
      UNION ALL
      SELECT tenant_id, job_id, kind, cardinality(memory_ids)
      FROM jobs
      WHERE state = 'QUEUED' AND hinted_at IS NOT NULL
      UNION ALL
      SELECT tenant_id, job_id, kind, cardinality(memory_ids)
      FROM jobs
      WHERE state = 'DEFERRED' AND $4::boolean) AS waiting
JOIN tenants USING (tenant_id)
WHERE ($1::text IS NULL OR tenants.tier = $1)
  AND ($2::uuid IS NULL OR waiting.tenant_id = $2)
  AND (cardinality($3::text[]) = 0 OR waiting.kind = ANY ($3))
ORDER BY waiting.job_id
LIMIT $5;

-- name: lock_waiting
-- Holds those of these jobs of a tenant that still are in one of the states $3, until the transaction ends. Always in one order, so
-- that two such statements never wait for each other.
SELECT {job_columns}
FROM jobs
WHERE tenant_id = $1 AND job_id = ANY ($2::uuid[]) AND state = ANY ($3::text[])
ORDER BY job_id
FOR UPDATE;
