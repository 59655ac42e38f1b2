-- Runs of jobs, from the claim to the end.
--
-- Every statement that changes a job's row raises `last_seq` by one and inserts the event of that number, as in jobs.sql. Every
-- write of a run is fenced: it names the lease of its claim and touches nothing when the row has another one or is not RUNNING.

-- name: claim
-- Takes those of these jobs that wait, are due, are not asked to cancel, and for which there is room: no more of a tenant's and
-- of a user's jobs run at once than the tier allows, and none of a paused queue or of a suspended tenant is begun. Of jobs that have lost two workers a
-- worker runs one at a time: if it is the job that kills them, it takes no other along that has lost as many. Arrays are parallel; the first have
-- the first go. A job that another transaction holds is left out: it is being claimed or cancelled there. One that there is no
-- room for loses its hint, and waits for the scheduler to choose it: for a second at least if it has lost two workers. The caller holds the tenants' claim locks, so that the
-- count of what runs stays true until it commits. $8 has the seconds that a run may take, by kind. Runs across tenants.
WITH waiting AS (
    SELECT ref.place, jobs.tenant_id, jobs.job_id, jobs.user_id, tenants.tier, tenants.state AS standing,
           jobs.attempt > 1 AND coalesce(jobs.error ->> 'reason' = 'WORKER_LOST', false) AS suspect
    FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS ref (tenant_id, job_id, place)
    JOIN jobs USING (tenant_id, job_id)
    JOIN tenants USING (tenant_id)
    -- By ids, here and below: drawn to a join alone, the planner may read all that waits.
    WHERE jobs.job_id = ANY ($2) AND jobs.state = 'QUEUED' AND jobs.run_at <= $3 AND NOT jobs.cancel_requested AND jobs.attempt < jobs.max_attempts
    FOR UPDATE OF jobs SKIP LOCKED
), running AS (
    SELECT tenant_id, user_id, count(*) AS jobs
    FROM jobs
    WHERE in_flight AND state = 'RUNNING' AND tenant_id = ANY ($1)
    GROUP BY tenant_id, user_id
), of_user AS (
    SELECT waiting.*, tiers.tenant_in_flight,
           tiers.queue_paused_at IS NULL AND standing = 'ACTIVE'
           AND (NOT suspect
                OR (row_number() OVER (PARTITION BY suspect ORDER BY place) = 1
                    AND NOT EXISTS (SELECT
                                    FROM jobs
                                    WHERE in_flight AND state = 'RUNNING' AND worker_id = $5 AND attempt > 2
                                      AND error ->> 'reason' = 'WORKER_LOST')))
           AND coalesce(running.jobs, 0) + row_number() OVER (PARTITION BY waiting.tenant_id, waiting.user_id ORDER BY place)
               <= tiers.user_in_flight AS fits
    FROM waiting
    JOIN tiers USING (tier)
    LEFT JOIN running USING (tenant_id, user_id)
), of_tenant AS (
    SELECT of_user.*,
           coalesce(busy.jobs, 0) + row_number() OVER (PARTITION BY tenant_id, fits ORDER BY place)
               <= tenant_in_flight AS has_room
    FROM of_user
    LEFT JOIN (SELECT tenant_id, sum(jobs) AS jobs FROM running GROUP BY tenant_id) AS busy USING (tenant_id)
), turned_away AS (
    UPDATE jobs
    SET hinted_at = NULL,
        -- One that must run alone would else be chosen again at once, and again, in the place of jobs that could begin.
        delayed = suspect, run_at = CASE WHEN suspect THEN greatest(run_at, $4::timestamptz + interval '1 second') ELSE run_at END
    FROM of_tenant
    WHERE jobs.job_id = ANY ($2) AND jobs.tenant_id = of_tenant.tenant_id AND jobs.job_id = of_tenant.job_id
      AND NOT (fits AND has_room)
), claimed AS (
    UPDATE jobs
    SET state = 'RUNNING', run_lease = run_lease + 1, attempt = attempt + 1, last_seq = last_seq + 1, hinted_at = NULL,
        delayed = false, lease_expires_at = $6, worker_id = $5, started_at = $4,
        run_deadline = $4::timestamptz + make_interval(secs => ($8::jsonb ->> kind)::double precision),
        -- Each run begins with the first stage, also one that has the number of an attempt that was given back.
        stages = CASE WHEN run_lease = 0 THEN stages ELSE coalesce((
            SELECT jsonb_agg(stage.value || '{"status": "PENDING", "completed": 0, "total": 0}' ORDER BY stage.place)
            FROM jsonb_array_elements(stages) WITH ORDINALITY AS stage (value, place)), '[]') END
    FROM of_tenant
    WHERE jobs.job_id = ANY ($2) AND jobs.tenant_id = of_tenant.tenant_id AND jobs.job_id = of_tenant.job_id
      AND fits AND has_room
    RETURNING jobs.tenant_id, jobs.run_lease, {job_columns}
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT tenant_id, job_id, last_seq, $7::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $4
    FROM claimed
)
SELECT * FROM claimed;

-- name: report
-- Progress of many runs: [{tenant_id, job_id, lease, stages, event}]. Returns those that still hold their job. Runs across
-- tenants.
WITH progress AS (
    SELECT * FROM jsonb_to_recordset($1) AS run (tenant_id uuid, job_id uuid, lease bigint, stages jsonb, event jsonb)
), held AS (
    SELECT jobs.tenant_id, jobs.job_id, progress.lease, progress.stages, progress.event
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
    RETURNING jobs.tenant_id, jobs.job_id, held.lease, jobs.last_seq, jobs.attempt, jobs.cancel_requested, held.event
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT tenant_id, job_id, last_seq, event || jsonb_build_object('seq', last_seq, 'attempt', attempt), $2 FROM moved
)
SELECT tenant_id, job_id, lease, last_seq, cancel_requested FROM moved;

-- name: hold_run
-- Makes sure that the run still has its job, and holds the job until the transaction ends. No row: the lease is lost.
SELECT job_id FROM jobs WHERE tenant_id = $1 AND job_id = $2 AND state = 'RUNNING' AND run_lease = $3 FOR UPDATE;

-- name: finish
-- Ends runs of a tenant: [{job_id, lease, state, stages, partial, result, error, input_tokens, output_tokens, run_at,
-- deferral_reason, event}]. A state of QUEUED is another attempt at `run_at`, and DEFERRED is this one at that time, unless the job
-- is asked to cancel: then nothing is touched. A job that ends for good without success leaves its PENDING memories FAILED; a memory that got another job since is that job's. Returns the
-- number of each run's event, and whether any webhook endpoint listens; runs that have lost their jobs have no row. Runs within
-- one tenant's transaction.
WITH ending AS (
    SELECT *
    FROM jsonb_to_recordset($2) AS run (
        job_id uuid, lease bigint, state text, stages jsonb, partial boolean, result jsonb, error jsonb, input_tokens bigint,
        output_tokens bigint, run_at timestamptz, deferral_reason text, event jsonb, free_calls jsonb)
), held AS (
    SELECT ending.*
    FROM ending
    JOIN jobs ON jobs.tenant_id = $1 AND jobs.job_id = ending.job_id
    -- By ids, here and below: drawn to a join alone, the planner would read all jobs of a tenant that it thinks small.
    WHERE jobs.job_id = ANY (ARRAY(SELECT job_id FROM ending)) AND jobs.state = 'RUNNING' AND jobs.run_lease = ending.lease AND NOT (ending.state IN ('QUEUED', 'DEFERRED') AND jobs.cancel_requested)
    -- Always in one order, so that two such statements never wait for each other.
    ORDER BY jobs.job_id
    FOR UPDATE OF jobs
), ended AS (
    UPDATE jobs
    SET state = held.state, stages = held.stages, partial = held.partial, result = held.result, error = held.error,
        input_tokens = held.input_tokens, output_tokens = held.output_tokens, run_at = coalesce(held.run_at, jobs.run_at),
        attempt = CASE WHEN held.state = 'DEFERRED' THEN jobs.attempt - 1 ELSE jobs.attempt END,
        deferral_reason = coalesce(held.deferral_reason, jobs.deferral_reason),
        deferred_at = CASE WHEN held.state = 'DEFERRED' THEN $3::timestamptz ELSE jobs.deferred_at END,
        delayed = coalesce(held.state = 'QUEUED' AND held.run_at > $3, false), last_seq = last_seq + 1, lease_expires_at = NULL,
        ended_at = CASE WHEN held.state IN ('QUEUED', 'DEFERRED') THEN NULL ELSE $3::timestamptz END
    FROM held
    WHERE jobs.tenant_id = $1 AND jobs.job_id = ANY (ARRAY(SELECT job_id FROM held)) AND jobs.job_id = held.job_id
    RETURNING held.*, jobs.last_seq, jobs.attempt, jobs.memory_ids, jobs.user_id, jobs.cost_bound
), unready AS (
    UPDATE memories
    SET status = 'FAILED', updated_at = $3
    WHERE memories.tenant_id = $1
      AND memories.memory_id = ANY (ARRAY(SELECT unnest(memory_ids) FROM ended WHERE state IN ('FAILED', 'CANCELLED')))
      AND memories.job_id = ANY (ARRAY(SELECT job_id FROM ended WHERE state IN ('FAILED', 'CANCELLED')))
      AND memories.status = 'PENDING'
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT $1, job_id, last_seq, event || jsonb_build_object('seq', last_seq, 'attempt', attempt), $3 FROM ended
), called AS (
    INSERT INTO ai_calls (tenant_id, job_id, attempt, call, user_id, day, provider, model, operation, state, failed, input_tokens,
                          output_tokens, items, input_price, output_price, fee, started_at, ended_at)
    SELECT $1, ended.job_id, ended.attempt, number + coalesce((
               SELECT max(ai_calls.call) FROM ai_calls
               WHERE ai_calls.tenant_id = $1 AND ai_calls.job_id = ended.job_id AND ai_calls.attempt = ended.attempt), 0),
           ended.user_id, day, provider, model, operation, 'DONE', failed, free.input_tokens, free.output_tokens, items, 0, 0, 0,
           started_at, ended_at
    FROM ended
    CROSS JOIN LATERAL ROWS FROM (jsonb_to_recordset(ended.free_calls) AS (
        day date, provider text, model text, operation text, failed boolean, input_tokens bigint, output_tokens bigint,
        items integer, started_at timestamptz, ended_at timestamptz)) WITH ORDINALITY AS free (
        day, provider, model, operation, failed, input_tokens, output_tokens, items, started_at, ended_at, number)
)
SELECT job_id, lease, last_seq, state NOT IN ('QUEUED', 'DEFERRED') AND cost_bound > 0 AS paid,
       EXISTS (SELECT FROM webhook_endpoints WHERE tenant_id = $1 AND webhook_endpoints.state = 'ENABLED') AS listened
FROM ended;

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
    SET state = 'QUEUED', attempt = attempt - 1, run_at = $4, lease_expires_at = NULL,
        last_seq = last_seq + 1
    FROM held
    WHERE jobs.tenant_id = held.tenant_id AND jobs.job_id = held.job_id
    RETURNING jobs.tenant_id, jobs.job_id, last_seq, attempt
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT tenant_id, job_id, last_seq, $5::jsonb || jsonb_build_object('seq', last_seq, 'attempt', attempt), $4 FROM queued
RETURNING tenant_id, job_id, event;

-- name: expired
-- Runs whose lease ran out, the longest ago first; `timed_out` says that the worker lives, but ran longer than a run may. A job
-- that a transaction holds is left out: its run may be in the middle of a write. Runs across tenants.
SELECT tenant_id, run_lease, {job_columns}, coalesce(run_deadline <= $1, false) AS timed_out
FROM jobs
WHERE state = 'RUNNING' AND lease_expires_at < $1
ORDER BY lease_expires_at
LIMIT $2
FOR UPDATE SKIP LOCKED;

-- name: hold_expired
-- Which of these runs of a tenant are still without their lease: holds their jobs until the transaction ends. Arrays are
-- parallel. One that another transaction holds is left out: it is being ended there.
SELECT jobs.job_id
FROM unnest($2::uuid[], $3::bigint[]) AS run (job_id, lease)
JOIN jobs ON jobs.tenant_id = $1 AND jobs.job_id = run.job_id
WHERE jobs.state = 'RUNNING' AND jobs.run_lease = run.lease AND jobs.lease_expires_at < $4
ORDER BY jobs.job_id
FOR UPDATE OF jobs SKIP LOCKED;
