-- For how many jobs of a user entities and facts are found in an hour, and the jobs that wait for their turn. Runs within one
-- tenant's transaction, with the user's lock held.
--
-- Slots are numbered in the order in which they are taken, a job each, so that the limit of an hour is one look at the slot that
-- was taken so many before: if that is an hour ago, one more may be taken. A slot that is not there is older than an hour.

-- name: lock_user
-- One taker of slots at a time, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('relations ' || $1::uuid || ' ' || $2, 0));

-- name: take
-- Whether a job may find entities and facts at $4, when $5 may in an hour: it has a slot of this last hour, or takes one. A job
-- that has not waited ($6) leaves room for those that do.
WITH own AS MATERIALIZED (
    SELECT FROM relation_slots WHERE tenant_id = $1 AND job_id = $3 AND taken_at > $4::timestamptz - interval '1 hour'
), latest AS MATERIALIZED (
    SELECT number, taken_at FROM relation_slots WHERE tenant_id = $1 AND user_id = $2 ORDER BY number DESC LIMIT 1
), ahead AS MATERIALIZED (
    SELECT count(*) AS jobs
    FROM (SELECT
          FROM jobs
          WHERE tenant_id = $1 AND user_id = $2 AND state IN ('QUEUED', 'DEFERRED') AND kind = 'memory.relate'
            AND deferral_reason = 'RELATIONS' AND attempt = 0 AND NOT $6::boolean
          LIMIT $5) AS counted
), so_many_before AS MATERIALIZED (
    -- By scalars: of a join the planner might read all slots of the user.
    SELECT taken_at
    FROM relation_slots
    WHERE tenant_id = $1 AND user_id = $2 AND number = (SELECT number FROM latest) + 1 + (SELECT jobs FROM ahead) - $5
), taken AS (
    INSERT INTO relation_slots (tenant_id, user_id, number, job_id, taken_at)
    -- The clock of another worker may be ahead; times go up with numbers.
    SELECT $1, $2, coalesce(latest.number, 0) + 1, $3, greatest($4, latest.taken_at)
    FROM ahead
    LEFT JOIN latest ON true
    WHERE NOT EXISTS (SELECT FROM own)
      AND ahead.jobs < $5
      AND NOT EXISTS (SELECT FROM so_many_before WHERE taken_at > $4 - interval '1 hour')
    ON CONFLICT (tenant_id, job_id) DO UPDATE SET number = EXCLUDED.number, taken_at = EXCLUDED.taken_at
    RETURNING number
)
SELECT EXISTS (SELECT FROM own) OR EXISTS (SELECT FROM taken);

-- name: turn
-- When the limit of $4 an hour lets a job through that comes after those that wait now; with $5, after those of them that are put
-- off and were made before that job. Of a line of more than 10,000 what comes later is not reckoned: by then it is asked again.
WITH latest AS MATERIALIZED (
    SELECT number FROM relation_slots WHERE tenant_id = $1 AND user_id = $2 ORDER BY number DESC LIMIT 1
), ahead AS MATERIALIZED (
    SELECT count(*) AS jobs
    FROM (SELECT
          FROM jobs
          WHERE tenant_id = $1 AND user_id = $2 AND state IN ('QUEUED', 'DEFERRED') AND kind = 'memory.relate'
            AND deferral_reason = 'RELATIONS' AND attempt = 0
            AND ($5::uuid IS NULL OR (state = 'DEFERRED' AND job_id < $5))
          LIMIT 10000) AS counted
)
SELECT greatest(
           $3::timestamptz,
           (SELECT taken_at + interval '1 hour'
            FROM relation_slots
            WHERE tenant_id = $1 AND user_id = $2
              AND number = (SELECT number FROM latest) + 1 + (SELECT jobs FROM ahead) % $4::bigint - $4))
       + (SELECT jobs FROM ahead) / $4 * interval '1 hour';

-- name: leave_relations
-- The job that finds entities and facts in memories that are embedded, put off until $8, with its first event. The memories are
-- made the job's by whoever holds them.
WITH put_off AS (
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at, last_seq,
                      created_at, trace_parent, cost_bound, deferral_reason, deferred_at)
    VALUES ($1, $2, 'memory.relate', 'DEFERRED', $3, $4, $5, $6, $7, $8, 1, $9, $10, $11, 'RELATIONS', $9)
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at) VALUES ($1, $2, 1, $12, $9);
