-- Following all jobs of a tenant, in the order of job_events.transaction_id.
--
-- `horizon` is the oldest transaction that may still be under way: of those before it, all that will ever be seen is there. One
-- statement has one snapshot, so that what it reads and the horizon it tells belong together. `cluster` and `recovery` say
-- whether transaction ids still mean what they meant: a cluster that comes back from a crash begins its statistics anew.

-- name: feed_head
-- Where the feed stands now.
SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon, now() AS at,
       (SELECT system_identifier FROM pg_control_system()) AS cluster,
       (SELECT stats_reset FROM pg_stat_bgwriter) AS recovery;

-- name: feed_jobs
-- The latest jobs of these states, newest first, with an id above $5. A NULL or empty condition fits all. Each state goes by an
-- index of its own.
SELECT job.*
FROM unnest($2::text[]) AS open (state)
CROSS JOIN LATERAL (
    SELECT {job_columns}
    FROM jobs
    WHERE tenant_id = $1 AND state = open.state
      AND (cardinality($3::text[]) = 0 OR kind = ANY ($3))
      AND ($4::text IS NULL OR user_id = $4)
      AND ($5::uuid IS NULL OR job_id > $5)
    ORDER BY job_id DESC
    LIMIT $6
) AS job
ORDER BY job.job_id DESC
LIMIT $6;

-- name: read_feed
-- Events after a place that can be told, in order, at most $5; at least one row, without an event when there is none. `overtook`:
-- the event of the same job before it stands after it in the order.
SELECT head.horizon, head.at, head.cluster, head.recovery, head.held, told.transaction_id, told.job_id, told.seq, told.event, jobs.kind,
       jobs.user_id,
       EXISTS (
           SELECT FROM job_events AS before
           WHERE before.tenant_id = $1 AND before.job_id = told.job_id AND before.seq = told.seq - 1
             AND before.transaction_id > told.transaction_id
             -- One of another cluster, whose ids mean nothing here, is not waited for.
             AND before.transaction_id < pg_snapshot_xmax(pg_current_snapshot())
       ) AS overtook
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon, now() AS at,
           (SELECT system_identifier FROM pg_control_system()) AS cluster,
           (SELECT stats_reset FROM pg_stat_bgwriter) AS recovery,
           EXISTS (
               SELECT FROM job_events
               WHERE tenant_id = $1 AND transaction_id >= pg_snapshot_xmin(pg_current_snapshot())
           ) AS held
) AS head
LEFT JOIN (
    SELECT transaction_id, job_id, seq, event
    FROM job_events
    WHERE tenant_id = $1 AND (transaction_id, job_id, seq) > ($2, $3, $4)
      AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY transaction_id, job_id, seq
    LIMIT $5
) AS told ON true
LEFT JOIN jobs ON jobs.tenant_id = $1 AND jobs.job_id = told.job_id
ORDER BY told.transaction_id, told.job_id, told.seq;

-- name: feeds_behind
-- Which of these tenants have an event after their place; one row without a tenant when none has. Arrays are parallel. Runs
-- across tenants.
SELECT head.horizon, head.at, head.cluster, head.recovery, late.tenant_id
FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon, now() AS at,
           (SELECT system_identifier FROM pg_control_system()) AS cluster,
           (SELECT stats_reset FROM pg_stat_bgwriter) AS recovery
) AS head
LEFT JOIN (
    SELECT feed.tenant_id
    FROM unnest($1::uuid[], $2::xid8[], $3::uuid[], $4::bigint[]) AS feed (tenant_id, transaction_id, job_id, seq)
    WHERE EXISTS (
        SELECT FROM job_events
        WHERE job_events.tenant_id = feed.tenant_id
          AND (job_events.transaction_id, job_events.job_id, job_events.seq) > (feed.transaction_id, feed.job_id, feed.seq)
    )
) AS late ON true;
