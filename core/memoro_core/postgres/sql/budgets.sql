-- Daily budgets, and how far each is used up. Rows of one day are always locked by scope, tenant and user, and after all else that
-- a transaction locks. Runs across tenants. The deployment's own tenant is 00000000-0000-0000-0000-000000000000.

-- name: set_limit
-- Sets budget ($1, $2) to $3, and tells whether there was none. Returns no row when there is no such tenant.
INSERT INTO budgets (tenant_id, scope, daily_limit)
SELECT $1, $2, $3
WHERE $2 = 'DEPLOYMENT' OR EXISTS (SELECT FROM tenants WHERE tenant_id = $1)
ON CONFLICT (tenant_id, scope) DO UPDATE SET daily_limit = EXCLUDED.daily_limit
RETURNING xmax = 0 AS is_new;

-- name: count_in
-- From now on the holds of day $3 that have not ended are a part of budget ($1, $2) too, which is new.
WITH pending AS MATERIALIZED (
    SELECT tenant_id, job_id
    FROM credit_holds
    WHERE ($2 = 'DEPLOYMENT' OR tenant_id = $1) AND day = $3 AND state = 'PENDING' AND NOT $2 = ANY (scopes)
    ORDER BY tenant_id, job_id
    FOR UPDATE
)
UPDATE credit_holds
SET scopes = ARRAY(SELECT unnest(scopes || $2::text) ORDER BY 1)
FROM pending
WHERE credit_holds.tenant_id = pending.tenant_id AND credit_holds.job_id = pending.job_id;

-- name: begin_from_holds
-- Brings the days $3 of budget ($1, $2) to what its holds, and those that have ended, make of them.
INSERT INTO budget_days (tenant_id, scope, user_id, day, reserved, spent)
SELECT $1, $2, whose.user_id, $3, coalesce(sum(amount) FILTER (WHERE state = 'PENDING' AND $2 = ANY (scopes)), 0), sum(charged)
FROM credit_holds
CROSS JOIN LATERAL (SELECT CASE $2 WHEN 'USER' THEN user_id ELSE '' END) AS whose (user_id)
WHERE ($2 = 'DEPLOYMENT' OR tenant_id = $1) AND day = $3
GROUP BY whose.user_id
ORDER BY whose.user_id
ON CONFLICT (tenant_id, day, scope, user_id) DO UPDATE SET reserved = EXCLUDED.reserved, spent = EXCLUDED.spent;

-- name: remove_limit
DELETE FROM budgets WHERE tenant_id = $1 AND scope = $2;

-- name: reset
-- Raises budget ($1, $2, $3) on day $4 by its limit. Returns no row when there is no such budget.
INSERT INTO budget_days (tenant_id, scope, user_id, day, raised)
SELECT tenant_id, scope, $3, $4, daily_limit
FROM budgets
WHERE tenant_id = $1 AND scope = $2
ON CONFLICT (tenant_id, day, scope, user_id) DO UPDATE
SET raised = least(budget_days.raised::numeric + EXCLUDED.raised, 9000000000000000000),
    state = CASE budget_days.state WHEN 'OPEN' THEN 'HALF_OPEN' ELSE budget_days.state END
RETURNING raised;

-- name: get
-- Budget ($1, $2) of user $3 (empty for the other scopes) on day $4, with the number of jobs that wait because of it.
SELECT budgets.tenant_id, budgets.scope, $3::text AS user_id, daily_limit, state, reserved, spent, raised, needed, alerted, opened_at,
       CASE budgets.scope
           WHEN 'DEPLOYMENT' THEN
               (SELECT count(*) FROM jobs WHERE jobs.state = 'DEFERRED' AND deferral_reason = 'DEPLOYMENT')
           WHEN 'TENANT' THEN
               (SELECT count(*) FROM jobs
                WHERE jobs.tenant_id = $1 AND jobs.state = 'DEFERRED' AND deferral_reason = 'TENANT')
           ELSE
               (SELECT count(*) FROM jobs
                WHERE jobs.tenant_id = $1 AND jobs.user_id = $3 AND jobs.state = 'DEFERRED' AND deferral_reason = 'USER')
       END AS deferred
FROM budgets
LEFT JOIN budget_days ON budget_days.tenant_id = budgets.tenant_id AND budget_days.scope = budgets.scope
    AND budget_days.user_id = $3 AND budget_days.day = $4
WHERE budgets.tenant_id = $1 AND budgets.scope = $2;

-- name: standing
-- The budgets of day $1: the deployment's, that of tenant $2, and those of its users that have something; for NULL, instead of
-- the latter, all whose breakers are not CLOSED. At most $3, with the number of jobs that wait because of each.
WITH shown AS MATERIALIZED (
    SELECT tenant_id, scope, '' AS user_id, daily_limit
    FROM budgets
    WHERE tenant_id IN ('00000000-0000-0000-0000-000000000000', $2) AND scope <> 'USER'
    UNION ALL
    SELECT budget_days.tenant_id, budget_days.scope, budget_days.user_id, daily_limit
    FROM budget_days
    JOIN budgets USING (tenant_id, scope)
    WHERE $2 IS NOT NULL AND budget_days.tenant_id = $2 AND budget_days.day = $1 AND budget_days.scope = 'USER'
      AND (reserved > 0 OR spent > 0 OR state <> 'CLOSED')
    UNION ALL
    SELECT budget_days.tenant_id, budget_days.scope, budget_days.user_id, daily_limit
    FROM budget_days
    JOIN budgets USING (tenant_id, scope)
    WHERE $2 IS NULL AND budget_days.day = $1 AND state <> 'CLOSED' AND budget_days.scope <> 'DEPLOYMENT'
), first AS MATERIALIZED (
    SELECT shown.tenant_id, shown.scope, shown.user_id, daily_limit, state, reserved, spent, raised, needed, alerted, opened_at
    FROM shown
    LEFT JOIN budget_days ON budget_days.tenant_id = shown.tenant_id AND budget_days.day = $1 AND budget_days.scope = shown.scope
        AND budget_days.user_id = shown.user_id
    -- What is not closed, and what is used most, before what is left out.
    ORDER BY shown.scope, COALESCE(state, 'CLOSED') = 'CLOSED', reserved + spent DESC, shown.tenant_id, shown.user_id
    LIMIT $3
)
SELECT tenant_id, scope, user_id, daily_limit, state, reserved, spent, raised, needed, alerted, opened_at,
       CASE scope
           WHEN 'DEPLOYMENT' THEN
               (SELECT count(*) FROM jobs WHERE jobs.state = 'DEFERRED' AND deferral_reason = 'DEPLOYMENT')
           WHEN 'TENANT' THEN
               (SELECT count(*) FROM jobs
                WHERE jobs.tenant_id = first.tenant_id AND jobs.state = 'DEFERRED' AND deferral_reason = 'TENANT')
           ELSE
               (SELECT count(*) FROM jobs
                WHERE jobs.tenant_id = first.tenant_id AND jobs.user_id = first.user_id AND jobs.state = 'DEFERRED'
                  AND deferral_reason = 'USER')
       END AS deferred
FROM first;

-- name: not_closed
-- The budgets of day $1 whose breakers are not CLOSED, and whether a job waits because of each. One that was taken away has no limit
-- (NULL).
SELECT day.tenant_id, day.scope, day.user_id, daily_limit, state, reserved, spent, raised, needed, alerted, opened_at,
       CASE day.scope
           WHEN 'DEPLOYMENT' THEN
               EXISTS (SELECT FROM jobs WHERE jobs.state = 'DEFERRED' AND deferral_reason = 'DEPLOYMENT')
           WHEN 'TENANT' THEN
               EXISTS (SELECT FROM jobs
                       WHERE jobs.tenant_id = day.tenant_id AND jobs.state = 'DEFERRED' AND deferral_reason = 'TENANT')
           ELSE
               EXISTS (SELECT FROM jobs
                       WHERE jobs.tenant_id = day.tenant_id AND jobs.user_id = day.user_id AND jobs.state = 'DEFERRED'
                         AND deferral_reason = 'USER')
       END AS waited_for
FROM budget_days AS day
LEFT JOIN budgets USING (tenant_id, scope)
WHERE day.day = $1 AND day.state <> 'CLOSED';

-- name: lock_days
-- Holds the budgets ($2, $3, $4) of day $1 until the transaction ends. Arrays are parallel.
SELECT day.tenant_id
FROM budget_days AS day
JOIN unnest($2::uuid[], $3::text[], $4::text[]) AS key (tenant_id, scope, user_id) USING (tenant_id, scope, user_id)
WHERE day.day = $1
ORDER BY day.scope, day.tenant_id, day.user_id
FOR UPDATE OF day;

-- name: turn
-- Moves the breakers of the budgets ($2, $3, $4) of day $1, which the transaction holds locked, to the states $5. Arrays are
-- parallel.
UPDATE budget_days AS day
SET state = key.state
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS key (tenant_id, scope, user_id, state)
WHERE day.day = $1 AND day.tenant_id = key.tenant_id AND day.scope = key.scope AND day.user_id = key.user_id;
