-- Accounts, their entries, grants and holds. Whatever moves money locks the account first, decides in Python, and writes what was
-- decided. Locks are taken in this order: jobs, holds, the account, budgets.
--
-- What is joined by key is looked up key by key, or names all keys beside: of a tenant of which the planner does not know yet how
-- much it has, it would think that it has next to nothing, and read all of it. Where an index begins with the tenant alone, its id
-- stands as (SELECT $1), for which the planner takes the average tenant.

-- name: lock_for_holds
-- Locks the account, and the budgets of day $3 that bound jobs of the users $2: a row for each budget, with nothing of the day when
-- nothing was reserved on it yet; one row without a budget when there is none; no row when the tenant never had credits.
WITH account AS MATERIALIZED (
    SELECT tenant_id, available, held, granted, spent, expired, refunded, low_balance, is_low, next_expiry_at, last_seq, last_hash
    FROM credit_accounts
    WHERE tenant_id = $1
    FOR UPDATE
), bounding AS MATERIALIZED (
    SELECT budgets.tenant_id, budgets.scope, users.user_id, budgets.daily_limit
    FROM budgets
    CROSS JOIN LATERAL unnest(CASE budgets.scope WHEN 'USER' THEN $2::text[] ELSE ARRAY[''] END) AS users (user_id)
    WHERE budgets.tenant_id IN ($1, '00000000-0000-0000-0000-000000000000')
), days AS MATERIALIZED (
    SELECT budget_days.tenant_id, budget_days.scope, budget_days.user_id, state, reserved, budget_days.spent, raised, needed,
           alerted, opened_at
    FROM account
    CROSS JOIN bounding
    JOIN budget_days ON budget_days.tenant_id = bounding.tenant_id AND budget_days.scope = bounding.scope
        AND budget_days.user_id = bounding.user_id AND budget_days.day = $3
    ORDER BY budget_days.scope, budget_days.tenant_id, budget_days.user_id
    FOR UPDATE OF budget_days
)
SELECT account.tenant_id, available, held, granted, account.spent, expired, refunded, low_balance, is_low, next_expiry_at, last_seq,
       last_hash, bounding.tenant_id AS budget_tenant_id, bounding.scope, bounding.user_id, daily_limit, $3::date AS day, state,
       reserved, days.spent AS day_spent, raised, needed, alerted, opened_at
FROM account
LEFT JOIN bounding ON true
LEFT JOIN days ON days.tenant_id = bounding.tenant_id AND days.scope = bounding.scope AND days.user_id = bounding.user_id;

-- name: begin_budget_days
-- The first job of a day for budgets: ($2, $3, $4) on day $1.
INSERT INTO budget_days (tenant_id, scope, user_id, day)
SELECT tenant_id, scope, user_id, $1
FROM unnest($2::uuid[], $3::text[], $4::text[]) AS first (tenant_id, scope, user_id)
ORDER BY scope, tenant_id, user_id
ON CONFLICT DO NOTHING;

-- name: hold
-- Sets aside what was decided: holds, their entries from number $11 on, the account after them, and the budgets $20, as
-- [{tenant_id, scope, user_id, state, reserved, needed, alerted, opened_at}]; unless some of the jobs, of which
-- those in $2 were not admitted, have holds already: a transaction that the account's lock was waited for may have made them.
-- Returns those: then nothing was written.
WITH known AS MATERIALIZED (
    SELECT one.job_id
    FROM unnest($2::uuid[] || $12::uuid[]) AS asked (job_id)
    CROSS JOIN LATERAL (
        SELECT job_id FROM credit_holds WHERE tenant_id = $1 AND credit_holds.job_id = asked.job_id LIMIT 1
    ) AS one
), account AS (
    UPDATE credit_accounts
    SET available = $3, held = $4, is_low = $5, last_seq = $6, last_hash = $7
    WHERE tenant_id = $1 AND (last_seq <> $6 OR is_low <> $5) AND NOT EXISTS (SELECT FROM known)
), admitted AS MATERIALIZED (
    SELECT job_id, user_id, amount, request_id, available_after, held_after, hash, number
    FROM unnest($12::uuid[], $13::text[], $14::bigint[], $15::text[], $16::bigint[], $17::bigint[], $18::bytea[]) WITH ORDINALITY
        AS one (job_id, user_id, amount, request_id, available_after, held_after, hash, number)
    WHERE NOT EXISTS (SELECT FROM known)
), holds AS (
    INSERT INTO credit_holds (tenant_id, job_id, user_id, state, amount, margin_basis_points, day, scopes, created_at)
    SELECT $1, job_id, user_id, 'PENDING', amount, $8, $9, $19::text[], $10 FROM admitted
), entries AS (
    INSERT INTO ledger_entries (
        tenant_id, seq, kind, available, held, available_after, held_after, job_id, request_id, created_at, hash)
    SELECT $1, $11 + number - 1, 'HOLD', -amount, amount, available_after, held_after, job_id, request_id, $10, hash
    FROM admitted
), days AS (
    UPDATE budget_days
    SET state = budget.state, reserved = budget.reserved, needed = budget.needed, alerted = budget.alerted,
        opened_at = budget.opened_at
    FROM jsonb_to_recordset($20::jsonb) AS budget (
        tenant_id uuid, scope text, user_id text, state text, reserved bigint, needed bigint, alerted smallint,
        opened_at timestamptz)
    WHERE budget_days.tenant_id = budget.tenant_id AND budget_days.scope = budget.scope
      AND budget_days.user_id = budget.user_id AND budget_days.day = $9 AND NOT EXISTS (SELECT FROM known)
)
SELECT job_id FROM known;

-- name: lock_hold
-- A job's hold, locked.
SELECT job_id, user_id, amount, margin_basis_points, day, scopes, state
FROM credit_holds
WHERE tenant_id = $1 AND job_id = $2
FOR UPDATE;

-- name: lock_days_of_hold
-- Locks the budgets ($3, $4, $5) of day $2 in which a hold is reserved, after the account. A budget that was taken away since has no
-- limit.
WITH account AS MATERIALIZED (
    SELECT tenant_id, available, held, granted, spent, expired, refunded, low_balance, is_low, next_expiry_at, last_seq, last_hash
    FROM credit_accounts
    WHERE tenant_id = $1
    FOR UPDATE
), days AS MATERIALIZED (
    SELECT budget_days.tenant_id, budget_days.scope, budget_days.user_id, daily_limit, state, reserved, budget_days.spent, raised,
           needed, alerted, opened_at
    FROM account
    CROSS JOIN unnest($3::uuid[], $4::text[], $5::text[]) AS bounding (tenant_id, scope, user_id)
    JOIN budget_days ON budget_days.tenant_id = bounding.tenant_id AND budget_days.scope = bounding.scope
        AND budget_days.user_id = bounding.user_id AND budget_days.day = $2
    LEFT JOIN budgets ON budgets.tenant_id = bounding.tenant_id AND budgets.scope = bounding.scope
    ORDER BY budget_days.scope, budget_days.tenant_id, budget_days.user_id
    FOR UPDATE OF budget_days
)
SELECT account.tenant_id, available, held, granted, account.spent, expired, refunded, low_balance, is_low, next_expiry_at, last_seq,
       last_hash, days.tenant_id AS budget_tenant_id, scope, user_id, coalesce(daily_limit, 1000000000000000000) AS daily_limit,
       $2::date AS day, state, reserved, days.spent AS day_spent, raised, needed, alerted, opened_at
FROM account
LEFT JOIN days ON true;

-- name: user_of_job
SELECT user_id
FROM jobs
WHERE tenant_id = $1 AND job_id = $2;

-- name: extend_hold
-- Brings what is set aside for a job to $4, with $5 and $6 for a job that had nothing set aside.
INSERT INTO credit_holds (tenant_id, job_id, user_id, state, amount, margin_basis_points, day, scopes, created_at)
VALUES ($1, $2, $3, 'PENDING', $4, $5, $6, $7::text[], $8)
ON CONFLICT (tenant_id, job_id) DO UPDATE SET amount = excluded.amount;

-- name: reserve
-- Writes the budgets $2 of day $1, as `hold` does.
UPDATE budget_days
SET state = budget.state, reserved = budget.reserved, needed = budget.needed, alerted = budget.alerted,
    opened_at = budget.opened_at
FROM jsonb_to_recordset($2::jsonb) AS budget (
    tenant_id uuid, scope text, user_id text, state text, reserved bigint, needed bigint, alerted smallint,
    opened_at timestamptz)
WHERE budget_days.tenant_id = budget.tenant_id AND budget_days.scope = budget.scope
  AND budget_days.user_id = budget.user_id AND budget_days.day = $1;

-- name: lock_ended
-- Locks the holds that have not ended of those jobs $2 that have, by job.
SELECT one.job_id, user_id, amount, margin_basis_points, day, scopes
FROM (SELECT DISTINCT unnest($2::uuid[]) AS job_id ORDER BY 1) AS ended
CROSS JOIN LATERAL (
    SELECT job_id, user_id, amount, margin_basis_points, day, scopes
    FROM credit_holds
    WHERE tenant_id = $1 AND credit_holds.job_id = ended.job_id AND state = 'PENDING'
      AND EXISTS (
          SELECT FROM jobs
          WHERE jobs.tenant_id = $1 AND jobs.job_id = ended.job_id AND jobs.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))
    FOR UPDATE OF credit_holds
) AS one;

-- name: settle_calls
-- What the calls of the jobs $2 cost: the provider's part of all of them, and the fees of one attempt, that which brought the most,
-- because a text that is worked on once more is paid for once. Calls whose answer was lost are taken for what the same call used
-- when it was made again, or else for the most that they may have used.
WITH calls AS MATERIALIZED (
    SELECT one.job_id, attempt, call, operation, state, failed, request_hash, input_tokens, output_tokens, items, fee,
           cost_pico_dollars
    FROM unnest($2::uuid[]) AS ended (job_id)
    CROSS JOIN LATERAL (
        SELECT job_id, attempt, call, operation, state, failed, request_hash, input_tokens, output_tokens, items, fee,
               cost_pico_dollars
        FROM ai_calls
        WHERE tenant_id = (SELECT $1::uuid) AND ai_calls.job_id = ended.job_id
        ORDER BY attempt, call
    ) AS one
), lost AS (
    SELECT calls.job_id, calls.attempt, calls.call, coalesce(again.input_tokens, calls.input_tokens) AS input_tokens,
           coalesce(again.output_tokens, calls.output_tokens) AS output_tokens
    FROM calls
    LEFT JOIN LATERAL (
        SELECT input_tokens, output_tokens
        FROM calls AS twin
        WHERE twin.job_id = calls.job_id AND twin.operation = calls.operation AND twin.request_hash = calls.request_hash
          AND twin.state = 'DONE' AND NOT twin.failed
        ORDER BY twin.attempt, twin.call
        LIMIT 1
    ) AS again ON true
    WHERE calls.state = 'OPEN'
), presumed AS MATERIALIZED (
    SELECT job_id, attempt, presume_call($1, job_id, attempt, call, input_tokens, output_tokens, $3) AS cost_pico_dollars
    FROM lost
)
SELECT job_id, sum(pico_dollars)::numeric AS pico_dollars, max(fees)::numeric AS fees
FROM (
    SELECT job_id, attempt, sum(cost_pico_dollars) AS pico_dollars, sum(fee) AS fees
    FROM (
        SELECT job_id, attempt, cost_pico_dollars, CASE WHEN state = 'DONE' AND NOT failed THEN fee * items ELSE 0 END AS fee
        FROM calls
        WHERE state <> 'OPEN'
        UNION ALL
        SELECT job_id, attempt, cost_pico_dollars, 0 FROM presumed
    ) AS call
    GROUP BY job_id, attempt
) AS attempt
GROUP BY job_id;

-- name: end_holds
-- Ends the holds of the jobs $2 with what they were charged ($3), and takes what was reserved for them out of the budgets, as
-- [{tenant_id, scope, user_id, day, reserved, charged}].
WITH ended AS (
    UPDATE credit_holds
    SET state = CASE WHEN one.charged > 0 THEN 'CAPTURED' ELSE 'RELEASED' END, charged = one.charged, resolved_at = $4
    FROM unnest($2::uuid[], $3::bigint[]) AS one (job_id, charged)
    WHERE credit_holds.tenant_id = $1 AND credit_holds.job_id = ANY ($2::uuid[]) AND credit_holds.job_id = one.job_id
), locked AS MATERIALIZED (
    SELECT budget_days.tenant_id, budget_days.scope, budget_days.user_id, budget_days.day, budget.reserved, budget.charged
    FROM jsonb_to_recordset($5::jsonb) AS budget (
        tenant_id uuid, scope text, user_id text, day date, reserved bigint, charged bigint)
    JOIN budget_days ON budget_days.tenant_id = budget.tenant_id AND budget_days.scope = budget.scope
        AND budget_days.user_id = budget.user_id AND budget_days.day = budget.day
    ORDER BY budget_days.scope, budget_days.tenant_id, budget_days.user_id, budget_days.day
    FOR UPDATE OF budget_days
)
UPDATE budget_days
SET reserved = budget_days.reserved - locked.reserved, spent = budget_days.spent + locked.charged
FROM locked
WHERE budget_days.tenant_id = locked.tenant_id AND budget_days.scope = locked.scope AND budget_days.user_id = locked.user_id
  AND budget_days.day = locked.day;

-- name: open_account
-- Of a tenant that has none. Returns no row when there is no such tenant.
INSERT INTO credit_accounts (tenant_id)
SELECT tenant_id FROM tenants WHERE tenant_id = $1
ON CONFLICT DO NOTHING;

-- name: find_account
-- All zero for a tenant that never had credits. Returns no row when there is no such tenant.
SELECT tenants.tenant_id, coalesce(available, 0) AS available, coalesce(held, 0) AS held, coalesce(granted, 0) AS granted,
       coalesce(spent, 0) AS spent, coalesce(expired, 0) AS expired, coalesce(refunded, 0) AS refunded,
       coalesce(low_balance, 0) AS low_balance, coalesce(is_low, false) AS is_low, next_expiry_at, coalesce(last_seq, 0) AS last_seq,
       coalesce(last_hash, '') AS last_hash
FROM tenants
LEFT JOIN credit_accounts USING (tenant_id)
WHERE tenants.tenant_id = $1;

-- name: lock_account
SELECT tenant_id, available, held, granted, spent, expired, refunded, low_balance, is_low, next_expiry_at, last_seq, last_hash
FROM credit_accounts
WHERE tenant_id = $1
FOR UPDATE;

-- name: grants_left
-- Grants that have something left, in the order in which they are used up.
SELECT grant_id, amount, remaining, priority, expires_at, note, created_at
FROM credit_grants
WHERE tenant_id = $1 AND remaining > 0
ORDER BY priority, expires_at, grant_id
LIMIT $2;

-- name: post
-- Writes entries, from number $14 on, and the account after them.
WITH account AS (
    UPDATE credit_accounts
    SET available = $2, held = $3, granted = $4, spent = $5, expired = $6, refunded = $7, low_balance = $8, is_low = $9,
        next_expiry_at = $10, last_seq = $11, last_hash = $12
    WHERE tenant_id = $1
)
INSERT INTO ledger_entries (
    tenant_id, seq, kind, available, held, granted, revenue, provider_cost, rounding, loss, expired, refunded, available_after,
    held_after, job_id, request_id, actor, note, created_at, hash)
SELECT $1, $14 + number - 1, kind, available, held, granted, revenue, provider_cost, rounding, loss, expired, refunded,
       available_after, held_after, job_id, request_id, actor, note, $13, hash
FROM unnest(
    $15::text[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[],
    $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::uuid[], $28::text[], $29::uuid[], $30::text[], $31::bytea[]
) WITH ORDINALITY AS one (
    kind, available, held, granted, revenue, provider_cost, rounding, loss, expired, refunded, available_after, held_after, job_id,
    request_id, actor, note, hash, number);

-- name: write_grants
-- Grants that are new, or of which something was taken.
INSERT INTO credit_grants (tenant_id, grant_id, amount, remaining, priority, expires_at, note, created_at)
SELECT $1, grant_id, amount, remaining, priority, expires_at, note, created_at
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::smallint[], $6::timestamptz[], $7::text[], $8::timestamptz[])
    AS one (grant_id, amount, remaining, priority, expires_at, note, created_at)
ON CONFLICT (tenant_id, grant_id) DO UPDATE SET remaining = excluded.remaining;

-- name: find_grant
SELECT grant_id, amount, remaining, priority, expires_at, note, created_at
FROM credit_grants
WHERE tenant_id = $1 AND grant_id = $2;

-- name: list_entries
-- The last first, before number $6.
SELECT tenant_id, seq, kind, available, held, granted, revenue, provider_cost, rounding, loss, expired, refunded, available_after,
       held_after, job_id, request_id, actor, note, created_at, hash
FROM ledger_entries
WHERE tenant_id = $1
  AND (cardinality($2::text[]) = 0 OR kind = ANY ($2))
  AND ($3::uuid IS NULL OR job_id = $3)
  AND ($4::timestamptz IS NULL OR created_at >= $4)
  AND ($5::timestamptz IS NULL OR created_at < $5)
  AND ($6::bigint IS NULL OR seq < $6)
ORDER BY seq DESC
LIMIT $7;

-- name: entries_from
-- In order, after number $2.
SELECT tenant_id, seq, kind, available, held, granted, revenue, provider_cost, rounding, loss, expired, refunded, available_after,
       held_after, job_id, request_id, actor, note, created_at, hash
FROM ledger_entries
WHERE tenant_id = $1 AND seq > $2 AND seq <= $3
ORDER BY seq
LIMIT $4;

-- name: sum_entries
-- How many entries there are from number $2 to $3, what they make, and the hash of the last of them (NULL: it is missing).
SELECT count(*) AS entries, coalesce(sum(available), 0)::bigint AS available, coalesce(sum(held), 0)::bigint AS held,
       coalesce(-sum(granted), 0)::bigint AS granted,
       coalesce(sum(revenue + provider_cost + rounding + loss), 0)::bigint AS spent,
       coalesce(sum(expired), 0)::bigint AS expired, coalesce(sum(refunded), 0)::bigint AS refunded,
       (SELECT hash FROM ledger_entries WHERE tenant_id = $1 AND seq = $3) AS last_hash
FROM ledger_entries
WHERE tenant_id = $1 AND seq BETWEEN $2 AND $3;

-- name: sums_beside_ledger
-- What is kept beside the entries, and must fit them: at one moment with the account.
SELECT (SELECT coalesce(max(seq), 0) FROM ledger_entries WHERE tenant_id = $1) AS last_seq,
       (SELECT coalesce(sum(remaining), 0) FROM credit_grants WHERE tenant_id = $1) AS remaining,
       (SELECT coalesce(sum(amount), 0) FROM credit_holds WHERE tenant_id = $1 AND state = 'PENDING') AS held;

-- name: expiring
-- Tenants of whose grants the time is over at $1. Runs across tenants.
SELECT tenant_id
FROM credit_accounts
WHERE next_expiry_at <= $1
ORDER BY next_expiry_at
LIMIT $2;
