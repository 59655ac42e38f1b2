-- Jobs that are put off and let go, and what else moves a waiting job in time. Every statement that moves a job to another state, or
-- one that is QUEUED to another time, raises its `last_seq` by one and inserts the event of that number (see jobs.sql); events come
-- in as JSON without number and attempt. A job that may cost something is let go in a transaction of its tenant, with its hold.

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
    SET state = 'DEFERRED', run_at = $4, deferred_at = $3, deferral_reason = NULL, hinted_at = NULL, last_seq = last_seq + 1
    FROM waiting
    WHERE jobs.tenant_id = $1 AND jobs.job_id = waiting.job_id
    RETURNING jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, job_id, last_seq, $5::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $3 FROM deferred
RETURNING tenant_id, job_id, event;

-- name: release
-- Lets jobs go that cost nothing and are put off until $2 or before, the earliest first; of tenant $3, or of all for NULL. Runs
-- across tenants.
WITH waiting AS (
    SELECT tenant_id, job_id
    FROM jobs
    WHERE state = 'DEFERRED' AND cost_bound = 0 AND run_at <= $2 AND ($3::uuid IS NULL OR tenant_id = $3)
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

-- name: tenants_with_candidates
-- Tenants with jobs that may cost something and could be let go at $1, on day $2: jobs whose time has come, jobs that wait for a
-- budget that lets some through again or was taken away, and jobs that there are credits for now. At most $3, the one whose job is
-- the oldest first. A tenant is found by one look into an index, however many jobs it has. Runs across tenants.
WITH RECURSIVE budget AS MATERIALIZED (
    SELECT day.tenant_id, day.scope, day.user_id, COALESCE(daily_limit + raised, 9000000000000000000) AS ceiling
    FROM budget_days AS day
    LEFT JOIN budgets USING (tenant_id, scope)
    WHERE day.day = $2 AND state <> 'CLOSED' AND (state = 'HALF_OPEN' OR needed > daily_limit + raised)
), due AS (
    (SELECT tenant_id, run_at, job_id FROM jobs WHERE state = 'DEFERRED' AND cost_bound > 0 ORDER BY tenant_id, run_at, job_id LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.run_at, following.job_id
    FROM due
    CROSS JOIN LATERAL (
        SELECT jobs.tenant_id, jobs.run_at, jobs.job_id
        FROM jobs
        WHERE jobs.tenant_id > due.tenant_id AND state = 'DEFERRED' AND cost_bound > 0
        ORDER BY jobs.tenant_id, jobs.run_at, jobs.job_id
        LIMIT 1) AS following
), over_deployment AS (
    (SELECT jobs.tenant_id, job_id
     FROM jobs
     WHERE state = 'DEFERRED' AND deferral_reason = 'DEPLOYMENT' AND EXISTS (SELECT FROM budget WHERE scope = 'DEPLOYMENT')
     ORDER BY jobs.tenant_id, run_at, job_id
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.job_id
    FROM over_deployment
    CROSS JOIN LATERAL (
        SELECT jobs.tenant_id, jobs.job_id
        FROM jobs
        WHERE jobs.tenant_id > over_deployment.tenant_id AND state = 'DEFERRED' AND deferral_reason = 'DEPLOYMENT'
        ORDER BY jobs.tenant_id, run_at, jobs.job_id
        LIMIT 1) AS following
), unpaid AS (
    (SELECT tenant_id, cost_bound, job_id
     FROM jobs
     WHERE state = 'DEFERRED' AND deferral_reason = 'CREDITS'
     ORDER BY tenant_id, cost_bound
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.cost_bound, following.job_id
    FROM unpaid
    CROSS JOIN LATERAL (
        SELECT jobs.tenant_id, jobs.cost_bound, jobs.job_id
        FROM jobs
        WHERE jobs.tenant_id > unpaid.tenant_id AND state = 'DEFERRED' AND deferral_reason = 'CREDITS'
        ORDER BY jobs.tenant_id, jobs.cost_bound
        LIMIT 1) AS following
), candidate AS (
    SELECT tenant_id, job_id FROM due WHERE run_at <= $1
    UNION ALL
    SELECT over_deployment.tenant_id, first.job_id
    FROM over_deployment
    CROSS JOIN budget
    CROSS JOIN LATERAL (
        SELECT job_id
        FROM jobs
        WHERE jobs.tenant_id = over_deployment.tenant_id AND state = 'DEFERRED' AND deferral_reason = 'DEPLOYMENT'
          AND cost_bound <= ceiling
        ORDER BY run_at, job_id
        LIMIT 1) AS first
    WHERE budget.scope = 'DEPLOYMENT'
    UNION ALL
    SELECT budget.tenant_id, first.job_id
    FROM budget
    CROSS JOIN LATERAL (
        SELECT job_id
        FROM jobs
        WHERE jobs.tenant_id = budget.tenant_id AND state = 'DEFERRED' AND deferral_reason = 'TENANT' AND cost_bound <= ceiling
        ORDER BY run_at, job_id
        LIMIT 1) AS first
    WHERE budget.scope = 'TENANT'
    UNION ALL
    SELECT budget.tenant_id, first.job_id
    FROM budget
    CROSS JOIN LATERAL (
        SELECT job_id
        FROM jobs
        WHERE jobs.tenant_id = budget.tenant_id AND jobs.user_id = budget.user_id AND state = 'DEFERRED'
          AND deferral_reason = 'USER' AND cost_bound <= ceiling
        ORDER BY run_at, job_id
        LIMIT 1) AS first
    WHERE budget.scope = 'USER'
    UNION ALL
    SELECT unpaid.tenant_id, unpaid.job_id
    FROM unpaid
    JOIN credit_accounts USING (tenant_id)
    WHERE available >= cost_bound
)
SELECT tenant_id
FROM (SELECT DISTINCT ON (tenant_id) tenant_id, job_id FROM candidate ORDER BY tenant_id, job_id) AS oldest
ORDER BY job_id
LIMIT $3;

-- name: lock_candidates
-- Those jobs of tenant $1, at most $4, the first put off first, held until the transaction ends. Runs within one tenant's transaction.
WITH budget AS MATERIALIZED (
    SELECT day.scope, day.user_id, COALESCE(daily_limit + raised, 9000000000000000000) AS ceiling
    FROM budget_days AS day
    LEFT JOIN budgets USING (tenant_id, scope)
    WHERE day.tenant_id IN ($1, '00000000-0000-0000-0000-000000000000') AND day.day = $3 AND state <> 'CLOSED'
      AND (state = 'HALF_OPEN' OR needed > daily_limit + raised)
), candidate AS MATERIALIZED (
    (SELECT job_id
     FROM jobs
     WHERE tenant_id = $1 AND state = 'DEFERRED' AND cost_bound > 0 AND run_at <= $2
     ORDER BY run_at, job_id
     LIMIT $4)
    UNION ALL
    SELECT first.job_id
    FROM budget
    CROSS JOIN LATERAL (
        SELECT job_id
        FROM jobs
        WHERE tenant_id = $1 AND state = 'DEFERRED' AND deferral_reason IN ('DEPLOYMENT', 'TENANT')
          AND deferral_reason = budget.scope AND cost_bound <= ceiling
        -- The order of the index, so that it is used.
        ORDER BY deferral_reason, tenant_id, run_at, job_id
        LIMIT $4) AS first
    WHERE budget.scope <> 'USER'
    UNION ALL
    SELECT first.job_id
    FROM budget
    CROSS JOIN LATERAL (
        SELECT job_id
        FROM jobs
        WHERE tenant_id = $1 AND jobs.user_id = budget.user_id AND state = 'DEFERRED' AND deferral_reason = 'USER'
          AND cost_bound <= ceiling
        ORDER BY run_at, job_id
        LIMIT $4) AS first
    WHERE budget.scope = 'USER'
    UNION ALL
    (SELECT job_id
     FROM jobs
     WHERE tenant_id = $1 AND state = 'DEFERRED' AND deferral_reason = 'CREDITS'
       AND cost_bound <= (SELECT available FROM credit_accounts WHERE tenant_id = $1)
     ORDER BY cost_bound
     LIMIT $4)
)
SELECT job_id, user_id, cost_bound, run_at
FROM jobs
WHERE tenant_id = $1 AND job_id = ANY (ARRAY(SELECT job_id FROM candidate)) AND state = 'DEFERRED'
ORDER BY run_at, job_id
LIMIT $4
FOR UPDATE SKIP LOCKED;

-- name: tenants_deferred
-- Tenants with jobs that are put off and may cost something, from after $1 on, at most $2. Runs across tenants.
WITH RECURSIVE found AS (
    (SELECT tenant_id, 1 AS place
     FROM jobs
     WHERE tenant_id > $1 AND state = 'DEFERRED' AND cost_bound > 0
     -- The order of the index, so that it is used.
     ORDER BY tenant_id, run_at, job_id
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, place + 1
    FROM found
    CROSS JOIN LATERAL (
        SELECT jobs.tenant_id
        FROM jobs
        WHERE jobs.tenant_id > found.tenant_id AND state = 'DEFERRED' AND cost_bound > 0
        ORDER BY jobs.tenant_id, run_at, job_id
        LIMIT 1) AS following
    WHERE place < $2
)
SELECT tenant_id FROM found ORDER BY tenant_id;

-- name: lock_deferred
-- Jobs of a tenant that are put off and may cost something, whenever their time comes, from after ($2, $3) on, at most $4, held
-- until the transaction ends. Runs within one tenant's transaction.
SELECT job_id, user_id, cost_bound, run_at
FROM jobs
WHERE tenant_id = $1 AND state = 'DEFERRED' AND cost_bound > 0 AND (run_at, job_id) > ($2, $3)
ORDER BY run_at, job_id
LIMIT $4
FOR UPDATE SKIP LOCKED;

-- name: let_go
-- Lets these jobs of a tenant go, which the transaction holds locked. Runs within one tenant's transaction.
WITH queued AS (
    UPDATE jobs
    SET state = 'QUEUED', run_at = $3, hinted_at = NULL, last_seq = last_seq + 1
    WHERE tenant_id = $1 AND job_id = ANY ($2::uuid[]) AND state = 'DEFERRED'
    RETURNING job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, job_id, last_seq, $4::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $3 FROM queued
RETURNING tenant_id, job_id, event;

-- name: put_off_again
-- Jobs of a tenant that could not be let go, which the transaction holds locked: until $3, for the reasons $4. Arrays are parallel.
UPDATE jobs
SET run_at = $3, deferral_reason = item.reason
FROM unnest($2::uuid[], $4::text[]) AS item (job_id, reason)
WHERE jobs.tenant_id = $1 AND jobs.job_id = ANY ($2) AND jobs.job_id = item.job_id AND jobs.state = 'DEFERRED'
  AND (jobs.run_at <> $3 OR jobs.deferral_reason IS DISTINCT FROM item.reason);

-- name: hasten
-- Makes jobs due that would be later; of tenant $2, or of all for NULL. Workers are told of a job when it is due, so none of
-- these is hinted. Runs across tenants.
WITH waiting AS (
    SELECT tenant_id, job_id
    FROM jobs
    WHERE waiting AND run_at > $1 AND ($2::uuid IS NULL OR tenant_id = $2)
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
