-- Jobs: their life from the claim to the end, and how they are read.
--
-- Every statement that changes a job's row raises `last_seq` by one and inserts the event of that number, so that events are
-- numbered without gaps. Events come in as JSON without number and attempt, which the statement adds. Every write of a run is
-- fenced: it names the lease of its claim and touches nothing when the row has another one or is not RUNNING.

-- name: get_job
-- One job of a tenant.
SELECT job_id, kind, state, priority, user_id, memory_ids, stages, partial, attempt, max_attempts, run_at, cancel_requested,
       last_seq, input_tokens, output_tokens, error, result, created_at, started_at, ended_at
FROM jobs
WHERE tenant_id = $1 AND job_id = $2;

-- name: list_jobs
-- Newest first, from before a given id on. A NULL or empty condition fits all.
SELECT job_id, kind, state, priority, user_id, memory_ids, stages, partial, attempt, max_attempts, run_at, cancel_requested,
       last_seq, input_tokens, output_tokens, error, result, created_at, started_at, ended_at
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

-- name: claim
-- Takes those of these jobs that wait, are due and are not asked to cancel. Arrays are parallel; a job that another
-- transaction holds is left out: it is being claimed or cancelled there. Runs across tenants.
WITH waiting AS (
    SELECT jobs.tenant_id, jobs.job_id
    FROM unnest($1::uuid[], $2::uuid[]) AS ref (tenant_id, job_id)
    JOIN jobs USING (tenant_id, job_id)
    WHERE jobs.state = 'QUEUED' AND jobs.run_at <= $3 AND NOT jobs.cancel_requested AND jobs.attempt < jobs.max_attempts
    FOR UPDATE OF jobs SKIP LOCKED
), claimed AS (
    UPDATE jobs
    SET state = 'RUNNING', run_lease = run_lease + 1, attempt = attempt + 1, last_seq = last_seq + 1,
        lease_expires_at = $6, worker_id = $5, started_at = $4,
        -- A new attempt begins with its first stage.
        stages = CASE WHEN attempt = 0 THEN stages ELSE (
            SELECT jsonb_agg(stage.value || '{"status": "PENDING", "completed": 0, "total": 0}' ORDER BY stage.place)
            FROM jsonb_array_elements(stages) WITH ORDINALITY AS stage (value, place)) END
    FROM waiting
    WHERE jobs.tenant_id = waiting.tenant_id AND jobs.job_id = waiting.job_id
    RETURNING jobs.tenant_id, jobs.job_id, kind, state, priority, user_id, memory_ids, stages, partial, attempt, max_attempts,
              run_at, run_lease, cancel_requested, last_seq, input_tokens, output_tokens, error, result, created_at,
              started_at, ended_at, trace_parent
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT tenant_id, job_id, last_seq, $7::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $4
    FROM claimed
    RETURNING tenant_id, job_id, event
)
SELECT claimed.*, told.event FROM claimed JOIN told USING (tenant_id, job_id);

-- name: extend
-- Heartbeat of many runs. Returns those that still hold their job. Arrays are parallel. Runs across tenants.
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
SET lease_expires_at = $4
FROM held
WHERE jobs.tenant_id = held.tenant_id AND jobs.job_id = held.job_id
RETURNING jobs.tenant_id, jobs.job_id, jobs.cancel_requested;

-- name: report
-- Progress of many runs: [{tenant_id, job_id, lease, stages, event}]. Returns those that still hold their job. Runs across
-- tenants.
WITH progress AS (
    SELECT * FROM jsonb_to_recordset($1) AS run (tenant_id uuid, job_id uuid, lease bigint, stages jsonb, event jsonb)
), held AS (
    SELECT jobs.tenant_id, jobs.job_id, progress.stages, progress.event
    FROM progress
    JOIN jobs USING (tenant_id, job_id)
    WHERE jobs.state = 'RUNNING' AND jobs.run_lease = progress.lease
    -- Always in one order, so that two such statements never wait for each other.
    ORDER BY jobs.tenant_id, jobs.job_id
    FOR UPDATE OF jobs
), moved AS (
    UPDATE jobs
    SET stages = held.stages, last_seq = last_seq + 1
    FROM held
    WHERE jobs.tenant_id = held.tenant_id AND jobs.job_id = held.job_id
    RETURNING jobs.tenant_id, jobs.job_id, jobs.last_seq, jobs.attempt, jobs.cancel_requested, held.event
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT tenant_id, job_id, last_seq, event || jsonb_build_object('seq', last_seq, 'attempt', attempt), $2 FROM moved
)
SELECT tenant_id, job_id, last_seq, cancel_requested FROM moved;

-- name: finish
-- Ends a run for good: state $4 is SUCCEEDED, FAILED or CANCELLED. Returns the number of its event, or no row when the run
-- has lost its job. Webhook endpoints that want to know of it get the event $13 of type $14 with the body $15, until $16. Runs
-- within one tenant's transaction.
WITH ended AS (
    UPDATE jobs
    SET state = $4, stages = $5, partial = $6, result = $7, error = $8, input_tokens = $9, output_tokens = $10,
        last_seq = last_seq + 1, ended_at = $11, lease_expires_at = NULL
    WHERE tenant_id = $1 AND job_id = $2 AND state = 'RUNNING' AND run_lease = $3
    RETURNING last_seq, attempt
), announced AS (
    INSERT INTO webhook_deliveries (tenant_id, event_id, endpoint_id, event_type, payload, next_attempt_at, give_up_at, created_at)
    SELECT $1, $13, endpoint_id, $14, $15, $11, $16, $11
    FROM ended
    JOIN webhook_endpoints ON webhook_endpoints.tenant_id = $1
    WHERE webhook_endpoints.state = 'ENABLED' AND (event_types = '{}' OR $14 = ANY (event_types))
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, $2, last_seq, $12::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $11 FROM ended
RETURNING seq;

-- name: retry
-- Ends a run so that another may follow at $4. Returns the number of its event, or no row when the run has lost its job or the
-- job is asked to cancel. Runs within one tenant's transaction.
WITH queued AS (
    UPDATE jobs
    SET state = 'QUEUED', run_at = $4, hinted_at = NULL, stages = $5, error = $6, input_tokens = $7, output_tokens = $8,
        last_seq = last_seq + 1, lease_expires_at = NULL
    WHERE tenant_id = $1 AND job_id = $2 AND state = 'RUNNING' AND run_lease = $3 AND NOT cancel_requested
    RETURNING last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, $2, last_seq, $9::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $10 FROM queued
RETURNING seq;

-- name: release
-- Gives jobs back that a stopping worker has not ended: they wait again, at once, and the attempt does not count. Arrays are
-- parallel. A job that is asked to cancel stays with its lease, for the reaper to end. Runs across tenants.
WITH held AS (
    SELECT jobs.tenant_id, jobs.job_id
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS run (tenant_id, job_id, lease)
    JOIN jobs USING (tenant_id, job_id)
    WHERE jobs.state = 'RUNNING' AND jobs.run_lease = run.lease AND NOT jobs.cancel_requested
    ORDER BY jobs.tenant_id, jobs.job_id
    FOR UPDATE OF jobs
), queued AS (
    UPDATE jobs
    SET state = 'QUEUED', attempt = attempt - 1, run_at = $4, hinted_at = NULL, lease_expires_at = NULL,
        last_seq = last_seq + 1
    FROM held
    WHERE jobs.tenant_id = held.tenant_id AND jobs.job_id = held.job_id
    RETURNING jobs.tenant_id, jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT tenant_id, job_id, last_seq, $5::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $4 FROM queued
RETURNING tenant_id, job_id, event;

-- name: fail_pending_memories
-- What a job that ended without success leaves unready. A memory that got another job since is that job's.
UPDATE memories
SET status = 'FAILED', updated_at = $4
WHERE tenant_id = $1 AND memory_id = ANY ($3::uuid[]) AND job_id = $2 AND status = 'PENDING';

-- name: lock_job
-- One job of a tenant, held against other writers until the transaction ends.
SELECT job_id, kind, state, priority, user_id, memory_ids, stages, partial, attempt, max_attempts, run_at, cancel_requested,
       last_seq, input_tokens, output_tokens, error, result, created_at, started_at, ended_at
FROM jobs
WHERE tenant_id = $1 AND job_id = $2
FOR UPDATE;

-- name: request_cancel
-- Marks a running job, which its worker sees at the next safe point.
UPDATE jobs SET cancel_requested = true WHERE tenant_id = $1 AND job_id = $2;

-- name: cancel_waiting
-- Ends a job that waits; the caller holds it locked and knows the event's number. Webhook endpoints that want to know of it get
-- the event $5 of type $6 with the body $7, until $8.
WITH ended AS (
    UPDATE jobs
    SET state = 'CANCELLED', cancel_requested = true, ended_at = $3, last_seq = last_seq + 1
    WHERE tenant_id = $1 AND job_id = $2 AND state IN ('QUEUED', 'DEFERRED')
    RETURNING last_seq
), announced AS (
    INSERT INTO webhook_deliveries (tenant_id, event_id, endpoint_id, event_type, payload, next_attempt_at, give_up_at, created_at)
    SELECT $1, $5, endpoint_id, $6, $7, $3, $8, $3
    FROM ended
    JOIN webhook_endpoints ON webhook_endpoints.tenant_id = $1
    WHERE webhook_endpoints.state = 'ENABLED' AND (event_types = '{}' OR $6 = ANY (event_types))
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, $2, last_seq, $4::jsonb, $3 FROM ended;

-- name: due
-- Jobs that wait, are due and have no fresh hint, the most urgent first; marks them hinted. Runs across tenants.
WITH waiting AS (
    SELECT jobs.tenant_id, jobs.job_id
    FROM jobs
    WHERE state = 'QUEUED' AND run_at <= $1 AND (hinted_at IS NULL OR hinted_at < $2)
    ORDER BY priority DESC, run_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), hinted AS (
    UPDATE jobs
    SET hinted_at = $1
    FROM waiting
    WHERE jobs.tenant_id = waiting.tenant_id AND jobs.job_id = waiting.job_id
    RETURNING jobs.tenant_id, jobs.job_id, jobs.priority, jobs.run_at
)
SELECT hinted.tenant_id, hinted.job_id, tenants.tier
FROM hinted
JOIN tenants USING (tenant_id)
ORDER BY hinted.priority DESC, hinted.run_at;

-- name: requeue_expired
-- Takes jobs with attempts left from workers that no longer renew their lease. Returns their events. Runs across tenants.
WITH lost AS (
    SELECT tenant_id, job_id
    FROM jobs
    WHERE state = 'RUNNING' AND lease_expires_at < $1 AND attempt < max_attempts AND NOT cancel_requested
    ORDER BY lease_expires_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), queued AS (
    UPDATE jobs
    SET state = 'QUEUED', run_at = $1, hinted_at = NULL, lease_expires_at = NULL, error = $3, last_seq = last_seq + 1
    FROM lost
    WHERE jobs.tenant_id = lost.tenant_id AND jobs.job_id = lost.job_id
    RETURNING jobs.tenant_id, jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT tenant_id, job_id, last_seq, $4::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $1 FROM queued
RETURNING tenant_id, job_id, event;

-- name: expired_for_good
-- Jobs that can't be tried again, because their workers lost them at the last attempt or after a caller had asked to cancel
-- them. Runs across tenants.
SELECT tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, partial, attempt, max_attempts, run_at, run_lease,
       cancel_requested, last_seq, input_tokens, output_tokens, error, result, created_at, started_at, ended_at
FROM jobs
WHERE state = 'RUNNING' AND lease_expires_at < $1 AND (attempt >= max_attempts OR cancel_requested)
ORDER BY lease_expires_at
LIMIT $2;

-- name: hold_expired
-- Makes sure that a run is still without its lease, and holds its job until the transaction ends.
SELECT job_id
FROM jobs
WHERE tenant_id = $1 AND job_id = $2 AND state = 'RUNNING' AND run_lease = $3 AND lease_expires_at < $4
FOR UPDATE;
