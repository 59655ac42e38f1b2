-- Whose turn it is: which waiting jobs workers are told of. Runs across tenants.

-- name: load
-- How many jobs the workers seen since $1 may run at once, how many such workers there are, how many jobs run, and how many are
-- hinted but not yet begun.
SELECT (SELECT coalesce(sum(concurrency), 0) FROM workers WHERE seen_at >= $1 AND NOT stopping) AS concurrency,
       (SELECT count(*) FROM workers WHERE seen_at >= $1 AND NOT stopping) AS workers,
       count(*) FILTER (WHERE state = 'RUNNING') AS running,
       count(*) FILTER (WHERE state = 'QUEUED') AS hinted
FROM jobs
WHERE in_flight;

-- name: come_due
-- Jobs that waited for a later attempt wait for their turn from $1 on if that has come, the longest due first.
UPDATE jobs
SET delayed = false
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM jobs WHERE waiting AND delayed AND run_at <= $1 ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED));

-- name: tenants_waiting
-- Tenants with jobs that wait for their turn, with the weight of their tier, and how many of those jobs could be hinted now:
-- that many are due, and the tenant's cap has room for them. No more than $2 are counted. Jobs that had been put off are counted
-- apart, until they have waited for as long as their rank sets them back. Jobs of a suspended tenant wait. A tenant is found by
-- one look into the index, however many jobs it has.
WITH RECURSIVE found AS (
    -- The order of the index, here and below, so that it is used.
    (SELECT tenant_id FROM jobs WHERE waiting AND NOT delayed ORDER BY tenant_id, user_id, rank_at LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.tenant_id
            FROM jobs
            WHERE jobs.tenant_id > found.tenant_id AND waiting AND NOT delayed
            ORDER BY jobs.tenant_id, user_id, rank_at
            LIMIT 1)
    FROM found
    WHERE found.tenant_id IS NOT NULL
)
SELECT found.tenant_id, tiers.weight, due.jobs - due.released AS jobs, due.released
FROM found
JOIN tenants USING (tenant_id)
JOIN tiers USING (tier)
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM jobs WHERE jobs.tenant_id = found.tenant_id AND in_flight
) AS busy
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, count(*) FILTER (WHERE deferred_at IS NOT NULL AND rank_at > $1) AS released
    FROM (SELECT deferred_at, rank_at
          FROM jobs
          WHERE jobs.tenant_id = found.tenant_id AND waiting AND NOT delayed AND run_at <= $1
          ORDER BY user_id, rank_at
          LIMIT greatest(least(tiers.tenant_in_flight - busy.jobs, $2::bigint), 0)) AS job
) AS due
WHERE tiers.queue_paused_at IS NULL AND tenants.state = 'ACTIVE' AND due.jobs > 0;

-- name: hint
-- Chooses up to $2 of the waiting jobs of each tenant $1, in the order of their rank, as many of each user as its cap has room
-- for, and marks them hinted. Arrays are parallel. Of a tenant with more than 500 users who have jobs waiting, 500 are looked at,
-- from the one after $3 on; then `last_user` is the last of them, else NULL. Returns the chosen jobs in order.
WITH allotment AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS allotment (tenant_id, quota, after_user)
), users AS (
    SELECT allotment.tenant_id, allotment.quota, found.user_ids,
           tiers.user_in_flight
    FROM allotment
    JOIN tenants USING (tenant_id)
    JOIN tiers USING (tier)
    CROSS JOIN LATERAL (
        WITH RECURSIVE found AS (
            (SELECT user_id
             FROM jobs
             WHERE jobs.tenant_id = allotment.tenant_id AND user_id > allotment.after_user AND waiting AND NOT delayed
             ORDER BY user_id, rank_at
             LIMIT 1)
            UNION ALL
            SELECT (SELECT jobs.user_id
                    FROM jobs
                    WHERE jobs.tenant_id = allotment.tenant_id AND jobs.user_id > found.user_id AND waiting AND NOT delayed
                    ORDER BY jobs.user_id, rank_at
                    LIMIT 1)
            FROM found
            WHERE found.user_id IS NOT NULL
        )
        SELECT array_agg(user_id) AS user_ids FROM (SELECT user_id FROM found WHERE user_id IS NOT NULL LIMIT 500) AS first
    ) AS found
), candidate AS (
    SELECT job.row_id, row_number() OVER (PARTITION BY users.tenant_id ORDER BY job.rank_at, job.job_id) AS place, users.quota
    FROM users
    CROSS JOIN LATERAL unnest(users.user_ids) AS of_user (user_id)
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs
        FROM jobs
        WHERE jobs.tenant_id = users.tenant_id AND jobs.user_id = of_user.user_id AND in_flight
    ) AS busy
    CROSS JOIN LATERAL (
        SELECT ctid AS row_id, job_id, rank_at
        FROM jobs
        WHERE jobs.tenant_id = users.tenant_id AND jobs.user_id = of_user.user_id AND waiting AND NOT delayed
          AND run_at <= $4
        ORDER BY rank_at
        -- Four times a fair share: enough for the order of the ranks to show, and few when the users are many.
        LIMIT greatest(least(users.user_in_flight - busy.jobs, 1 + 4 * users.quota / cardinality(users.user_ids)), 0)
    ) AS job
), chosen AS (
    SELECT tenant_id, job_id, rank_at
    FROM jobs
    -- By their place in the table, not by key, and in other words than those of the index: else the planner, which knows little
    -- of a queue that fills and empties all the time, may look for each of them among all that wait.
    WHERE ctid = ANY (ARRAY(SELECT row_id FROM candidate WHERE place <= quota)) AND state = 'QUEUED' AND NOT in_flight
    FOR UPDATE SKIP LOCKED
), hinted AS (
    UPDATE jobs
    SET hinted_at = $4
    FROM chosen
    WHERE jobs.tenant_id = chosen.tenant_id AND jobs.job_id = chosen.job_id
    RETURNING jobs.tenant_id, jobs.job_id, chosen.rank_at
)
SELECT users.tenant_id,
       CASE WHEN cardinality(users.user_ids) = 500 THEN users.user_ids[500] END AS last_user,
       array(SELECT job_id FROM hinted WHERE hinted.tenant_id = users.tenant_id ORDER BY rank_at, job_id) AS job_ids
FROM users;

-- name: take_back
-- Hints that could not be given: their jobs wait for their turn again. Arrays are parallel.
UPDATE jobs
SET hinted_at = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS ref (tenant_id, job_id)
WHERE jobs.job_id = ANY ($2) AND jobs.tenant_id = ref.tenant_id AND jobs.job_id = ref.job_id AND jobs.state = 'QUEUED';

-- name: forget_hints
-- Hints from before $1 are lost, or from before $3 if their jobs were hinted as they were accepted: these jobs wait for their turn
-- again. Returns how many.
WITH lost AS (
    SELECT tenant_id, job_id
    FROM jobs
    WHERE state = 'QUEUED' AND hinted_at IS NOT NULL AND hinted_at < greatest($1::timestamptz, $3::timestamptz)
      AND hinted_at < CASE WHEN hinted_at = created_at THEN $3 ELSE $1 END
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE jobs
SET hinted_at = NULL
FROM lost
WHERE jobs.tenant_id = lost.tenant_id AND jobs.job_id = lost.job_id;
