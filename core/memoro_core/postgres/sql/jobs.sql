-- Jobs as callers see them: reading, listing and cancelling.
--
-- Every statement that changes a job's row raises `last_seq` by one and inserts the event of that number, so that events are
-- numbered without gaps. Events come in as JSON without number and attempt, which the statement adds. Every write of a run is
-- fenced: it names the lease of its claim and touches nothing when the row has another one or is not RUNNING.

-- name: get_job
-- One job of a tenant.
SELECT {job_columns}
FROM jobs
WHERE tenant_id = $1 AND job_id = $2;

-- name: list_jobs
-- Newest first, from before a given id on. A NULL or empty condition fits all.
SELECT {job_columns}
FROM jobs
WHERE tenant_id = $1
  AND (cardinality($2::text[]) = 0 OR state = ANY ($2))
  AND (cardinality($3::text[]) = 0 OR kind = ANY ($3))
  AND ($4::text IS NULL OR user_id = $4)
  AND ($5::timestamptz IS NULL OR created_at >= $5)
  AND ($6::timestamptz IS NULL OR created_at < $6)
  AND ($7::uuid IS NULL OR job_id < $7)
ORDER BY job_id DESC
LIMIT $8;

-- name: events_after
-- A job's events that come after a number, in order.
SELECT event
FROM job_events
WHERE tenant_id = $1 AND job_id = $2 AND seq > $3
ORDER BY seq
LIMIT $4;

-- name: sequences
-- The number of the latest event of each of these jobs. Arrays are parallel. Runs across tenants.
SELECT jobs.tenant_id, jobs.job_id, jobs.last_seq
FROM unnest($1::uuid[], $2::uuid[]) AS ref (tenant_id, job_id)
JOIN jobs USING (tenant_id, job_id);

-- name: lock_job
-- One job of a tenant, held against other writers until the transaction ends.
SELECT {job_columns}
FROM jobs
WHERE tenant_id = $1 AND job_id = $2
FOR UPDATE;

-- name: request_cancel
-- Marks a running job, which its worker sees at the next safe point.
UPDATE jobs SET cancel_requested = true WHERE tenant_id = $1 AND job_id = $2;

-- name: cancel_waiting
-- Ends jobs that wait; the caller holds them locked, so that their states stay what they are, and knows the numbers of their
-- events. Arrays are parallel. Runs within one tenant's transaction.
WITH item AS (
    SELECT * FROM unnest($2::uuid[], $4::jsonb[]) AS item (job_id, event)
), ended AS (
    UPDATE jobs
    SET state = 'CANCELLED', cancel_requested = true, error = NULL, ended_at = $3, last_seq = last_seq + 1
    FROM item
    -- By id alone: drawn to an index of states, the planner would read all that waits for each of them.
    WHERE jobs.tenant_id = $1 AND jobs.job_id = ANY ($2::uuid[]) AND jobs.job_id = item.job_id
    RETURNING jobs.job_id, jobs.last_seq, item.event
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, job_id, last_seq, event, $3 FROM ended;

-- name: fail_pending_memories
-- What jobs that were cancelled leave unready. A memory that got another job since is that job's.
UPDATE memories
SET status = 'FAILED', updated_at = $4
WHERE tenant_id = $1 AND memory_id = ANY ($3::uuid[]) AND job_id = ANY ($2::uuid[]) AND status = 'PENDING';
