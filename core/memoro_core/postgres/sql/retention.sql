-- What has ended or fallen silent, when its time is over. Runs across tenants.

-- name: keeping
-- How long each tier keeps its jobs; NULL: as long as the settings say.
SELECT tier, kept_succeeded, kept_failed FROM tiers;

-- name: read_in_order
-- Makes the rest of the transaction step along an index rather than read all of a backlog, sort it, and take a batch of it: what
-- the planner does when it knows too little of the tenants.
SET LOCAL enable_sort = off;

-- name: forget_jobs
-- Deletes jobs in the states $3 of a tier's tenants that ended from $1 on and before $2, with their events, at most $5, those
-- that ended first. Returns how many, and when the last of them ended: the next batch goes on from there.
WITH old AS (
    SELECT jobs.tenant_id, jobs.job_id, jobs.ended_at
    FROM jobs
    JOIN tenants USING (tenant_id)
    WHERE jobs.ended_at >= $1 AND jobs.ended_at < $2 AND jobs.state = ANY ($3::text[]) AND tenants.tier = $4
    ORDER BY jobs.ended_at
    LIMIT $5
), forgotten_events AS (
    DELETE FROM job_events
    USING old
    WHERE job_events.tenant_id = old.tenant_id AND job_events.job_id = old.job_id
), forgotten AS (
    DELETE FROM jobs
    USING old
    WHERE jobs.tenant_id = old.tenant_id AND jobs.job_id = old.job_id
)
SELECT count(*) AS jobs, max(ended_at) AS ended_until FROM old;

-- name: forget_fires
-- Deletes times of schedules from before $1, but never the latest of a schedule, by which it is known.
DELETE FROM schedule_fires
WHERE fire_at < $1
  AND EXISTS (SELECT
              FROM schedule_fires AS later
              WHERE later.schedule = schedule_fires.schedule AND later.fire_at > schedule_fires.fire_at);

-- name: forget_workers
-- Deletes workers that were last seen before $1.
DELETE FROM workers WHERE seen_at < $1;

-- name: forget_unit_days
-- Deletes the weight of calls on days before $1.
DELETE FROM daily_units WHERE day < $1;

-- name: forget_budget_days
-- Deletes how far budgets were used up on days before $1. Those of a tenant lie together; those of the deployment have the tenant
-- 00000000-0000-0000-0000-000000000000.
DELETE FROM budget_days AS day
USING (SELECT tenant_id FROM tenants UNION ALL SELECT '00000000-0000-0000-0000-000000000000') AS owner
WHERE day.tenant_id = owner.tenant_id AND day.day < $1;

-- name: forget_relation_slots
-- Deletes for which jobs entities and facts were found before $1.
DELETE FROM relation_slots WHERE taken_at < $1;
