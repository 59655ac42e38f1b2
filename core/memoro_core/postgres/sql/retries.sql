-- New jobs that do the work of ended ones again.

-- name: lock_jobs
-- Holds these jobs of a tenant until the transaction ends, so that each is retried once. Always in one order, so that two such
-- statements never wait for each other.
SELECT job_id, state, kind
FROM jobs
WHERE tenant_id = $1 AND job_id = ANY ($2::uuid[])
ORDER BY job_id
FOR UPDATE;

-- name: retried_by
-- The job that does a job's work again.
SELECT job_id FROM jobs WHERE tenant_id = $1 AND retry_of = $2;

-- name: lock_work
-- What `retry` of these jobs will be about: the memories of each that has no retry yet, with its user, held until the transaction
-- ends. What was only to be related is READY, and stays so. Always in one order, so that two such statements never wait for each other.
SELECT work.*
FROM (
    SELECT DISTINCT unnest(old.memory_ids) AS memory_id, CASE kind WHEN 'memory.relate' THEN 'READY' ELSE 'FAILED' END AS undone
    FROM jobs AS old
    WHERE old.tenant_id = $1 AND old.job_id = ANY ($2::uuid[]) AND old.state IN ('FAILED', 'CANCELLED')
      AND NOT EXISTS (SELECT FROM jobs AS other WHERE other.tenant_id = $1 AND other.retry_of = old.job_id)
    ORDER BY memory_id
) AS named
-- One by one: all at once, the planner would go through all memories of a tenant that it thinks small.
CROSS JOIN LATERAL (
    SELECT memory_id, user_id, kind, text, metadata, status, conversation_id, position, role, speaker, occurred_at, job_id,
           version, created_at, updated_at
    FROM memories
    WHERE tenant_id = $1 AND memory_id = named.memory_id AND job_id = ANY ($2::uuid[]) AND status = named.undone
    FOR UPDATE
) AS work;

-- name: retry
-- Makes a job of each of these ended jobs that has none yet, for those of its memories that it left FAILED (READY, if they were
-- only to be related) and that are still its own; they become the new job's. The caller holds the jobs and those memories. Arrays are parallel: the jobs, the ids of the
-- new ones, what those may cost, why and until when they are put off (NULL: they are not), and their first events. Returns a row per job that was
-- not retried before, its new job all NULL when no work is left. Runs within one tenant's transaction.
WITH old AS (
    SELECT jobs.job_id, item.retry_id, item.cost_bound, item.deferral_reason, item.deferred_until, item.event, jobs.kind,
           jobs.priority, jobs.user_id, jobs.memory_ids, jobs.stages, jobs.trace_parent
    FROM unnest($2::uuid[], $3::uuid[], $6::bigint[], $7::text[], $8::timestamptz[], $9::jsonb[])
        AS item (job_id, retry_id, cost_bound, deferral_reason, deferred_until, event)
    CROSS JOIN LATERAL (
        SELECT job_id, kind, state, priority, user_id, memory_ids, stages, trace_parent
        FROM jobs
        WHERE tenant_id = $1 AND job_id = item.job_id
        LIMIT 1
    ) AS jobs
    WHERE jobs.state IN ('FAILED', 'CANCELLED')
      AND NOT EXISTS (SELECT FROM jobs AS other WHERE other.tenant_id = $1 AND other.retry_of = item.job_id)
), unready AS (
    -- By their places, which the locks keep: by id, the planner may go through all memories of a tenant that it thinks small.
    UPDATE memories
    SET status = CASE WHEN status = 'FAILED' THEN 'PENDING' ELSE status END, updated_at = $4,
        job_id = ((SELECT jsonb_object_agg(old.job_id, old.retry_id) FROM old) ->> memories.job_id::text)::uuid
    WHERE memories.ctid = ANY (ARRAY(
        SELECT work.place
        FROM (SELECT DISTINCT unnest(old.memory_ids) AS memory_id, CASE kind WHEN 'memory.relate' THEN 'READY' ELSE 'FAILED' END AS undone
              FROM old) AS named
        CROSS JOIN LATERAL (
            SELECT ctid AS place
            FROM memories AS left_over
            WHERE left_over.tenant_id = $1 AND left_over.memory_id = named.memory_id
              AND left_over.job_id = ANY (ARRAY(SELECT old.job_id FROM old)) AND left_over.status = named.undone
            LIMIT 1) AS work))
    RETURNING memories.memory_id, memories.job_id AS retry_id
), work AS (
    SELECT retry_id, array_agg(memory_id) AS memory_ids FROM unready GROUP BY retry_id
), made AS (
    INSERT INTO jobs (tenant_id, job_id, retry_of, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
                      last_seq, created_at, trace_parent, cost_bound, deferral_reason, deferred_at)
    SELECT $1, retry_id, old.job_id, old.kind, CASE WHEN old.deferral_reason IS NULL THEN 'QUEUED' ELSE 'DEFERRED' END,
           old.priority, old.user_id,
           ARRAY(SELECT item.memory_id
                 FROM unnest(old.memory_ids) WITH ORDINALITY AS item (memory_id, place)
                 WHERE item.memory_id = ANY (work.memory_ids)
                 ORDER BY item.place),
           COALESCE(
               (SELECT jsonb_agg(stage.value || '{"status": "PENDING", "completed": 0, "total": 0}' ORDER BY stage.place)
                FROM jsonb_array_elements(old.stages) WITH ORDINALITY AS stage (value, place)), '[]'),
           $5, coalesce(old.deferred_until, $4), 1, $4, old.trace_parent, old.cost_bound, old.deferral_reason,
           CASE WHEN old.deferral_reason IS NOT NULL THEN $4 END
    FROM old
    JOIN work USING (retry_id)
    RETURNING {job_columns}
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT $1, made.job_id, made.last_seq, old.event, $4 FROM made JOIN old ON old.job_id = made.retry_of
)
SELECT made.*
FROM old
LEFT JOIN made ON made.retry_of = old.job_id;

-- name: not_retried
-- Ended jobs that fit and have no retry, by their end, from after a given one on ($7 to $9). A NULL or empty condition fits all.
-- Runs across tenants.
SELECT tenant_id, job_id, cardinality(memory_ids) AS memories, ended_at
FROM jobs
WHERE ended_at IS NOT NULL
  AND state = ANY ($1::text[])
  AND ($2::uuid IS NULL OR tenant_id = $2)
  AND (cardinality($3::text[]) = 0 OR kind = ANY ($3))
  AND ($4::text IS NULL OR error ->> 'reason' = $4)
  AND ($5::timestamptz IS NULL OR ended_at >= $5)
  AND ($6::timestamptz IS NULL OR ended_at < $6)
  AND ($7::timestamptz IS NULL OR (ended_at, tenant_id, job_id) > ($7, $8::uuid, $9::uuid))
  AND NOT EXISTS (SELECT FROM jobs AS other WHERE other.tenant_id = jobs.tenant_id AND other.retry_of = jobs.job_id)
ORDER BY ended_at, tenant_id, job_id
LIMIT $10;
