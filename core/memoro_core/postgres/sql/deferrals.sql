-- Jobs that are put off and let go, and what else moves a waiting job in time. Every statement raises `last_seq` of what it
-- changes by one and inserts the event of that number (see jobs.sql); events come in as JSON without number and attempt.

-- name: defer
-- Puts off those of these jobs that are QUEUED, until $4. Runs within one tenant's transaction.
WITH waiting AS (
    SELECT job_id
    FROM jobs
    WHERE tenant_id = $1 AND job_id = ANY ($2::uuid[]) AND state = 'QUEUED'
    -- Always in one order, so that two such statements never wait for each other.
    ORDER BY job_id
    FOR UPDATE
), deferred AS (
    UPDATE jobs
    SET state = 'DEFERRED', run_at = $4, deferred_at = $3, hinted_at = NULL, last_seq = last_seq + 1
    FROM waiting
    WHERE jobs.tenant_id = $1 AND jobs.job_id = waiting.job_id
    RETURNING jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, job_id, last_seq, $5::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $3 FROM deferred
RETURNING tenant_id, job_id, event;

-- name: release
-- Lets jobs go that are put off until $2 or before, the earliest first; of tenant $3, or of all for NULL. Runs across tenants.
WITH waiting AS (
    SELECT tenant_id, job_id
    FROM jobs
    WHERE state = 'DEFERRED' AND run_at <= $2 AND ($3::uuid IS NULL OR tenant_id = $3)
    ORDER BY run_at
    LIMIT $4
    FOR UPDATE SKIP LOCKED
), queued AS (
    UPDATE jobs
    SET state = 'QUEUED', run_at = $1, hinted_at = NULL, last_seq = last_seq + 1
    FROM waiting
    WHERE jobs.tenant_id = waiting.tenant_id AND jobs.job_id = waiting.job_id
    RETURNING jobs.tenant_id, jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT tenant_id, job_id, last_seq, $5::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $1 FROM queued
RETURNING tenant_id, job_id, event;

-- name: hasten
-- Makes jobs due that would be later; of tenant $2, or of all for NULL. Workers are told of a job when it is due, so none of
-- these is hinted. Runs across tenants.
WITH waiting AS (
    SELECT tenant_id, job_id
    FROM jobs
    WHERE state = 'QUEUED' AND hinted_at IS NULL AND run_at > $1 AND ($2::uuid IS NULL OR tenant_id = $2)
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), due AS (
    UPDATE jobs
    SET run_at = $1, last_seq = last_seq + 1
    FROM waiting
    WHERE jobs.tenant_id = waiting.tenant_id AND jobs.job_id = waiting.job_id
    RETURNING jobs.tenant_id, jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT tenant_id, job_id, last_seq, $4::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $1 FROM due
RETURNING tenant_id, job_id, event;
