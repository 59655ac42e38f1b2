-- What was used and what it has cost. Sums are numeric, so that none overflows.

-- name: usage
-- A tenant's calls on the days from $2 to $3, of user $4 or of all for NULL, summed up by what $5 to $8 say: day, operation, model,
-- user. What is not summed up by is 0 or ''. Rows come by day, the latest first, then by the rest, from after a row on: $9 is its
-- age in days before $3 (-1: from the start), $10 to $13 are the rest. At most $14. Runs within one tenant's transaction.
SELECT age, operation, provider, model, user_id, count(*) AS calls, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens, sum(items) AS items, sum(cost_pico_dollars) AS cost_pico_dollars
FROM (SELECT CASE WHEN $5::boolean THEN $3::date - day ELSE 0 END AS age,
             CASE WHEN $6::boolean THEN operation ELSE '' END AS operation,
             CASE WHEN $7::boolean THEN provider ELSE '' END AS provider,
             CASE WHEN $7::boolean THEN model ELSE '' END AS model,
             CASE WHEN $8::boolean THEN user_id ELSE '' END AS user_id,
             input_tokens, output_tokens, items, cost_pico_dollars
      FROM ai_calls
      WHERE tenant_id = $1 AND day >= $2::date
        -- Days that were told of before need not be read again.
        AND day <= CASE WHEN $5::boolean THEN $3::date - greatest($9::integer, 0) ELSE $3::date END
        AND ($4::text IS NULL OR user_id = $4)) AS call
WHERE (age, operation, provider, model, user_id) > ($9::integer, $10::text, $11::text, $12::text, $13::text)
GROUP BY age, operation, provider, model, user_id
ORDER BY age, operation, provider, model, user_id
LIMIT $14;

-- name: charged
-- What the settlements of a tenant from $3 on and before $4 took, for the jobs of user $2 or of all for NULL. Runs within one
-- tenant's transaction.
SELECT COALESCE(-sum(entry.available + entry.held), 0) AS charged
FROM ledger_entries AS entry
WHERE entry.tenant_id = $1 AND entry.kind = 'SETTLEMENT' AND entry.created_at >= $3 AND entry.created_at < $4
  AND ($2::text IS NULL
       OR EXISTS (SELECT
                  FROM credit_holds AS hold
                  WHERE hold.tenant_id = $1 AND hold.job_id = entry.job_id AND hold.user_id = $2));

-- name: operations
-- What the calls of day $1 have cost by operation and model, the dearest first, and beside them those for questions. Runs across
-- tenants.
SELECT operation, provider, model, false AS for_questions, count(*) AS calls, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens, sum(cost_pico_dollars) AS cost_pico_dollars
FROM ai_calls
WHERE day = $1
GROUP BY operation, provider, model
UNION ALL
SELECT 'embed', provider, model, true, sum(calls), sum(input_tokens), 0, sum(cost_pico_dollars)
FROM question_costs
WHERE day = $1
GROUP BY provider, model
ORDER BY cost_pico_dollars DESC, operation, provider, model, for_questions;

-- name: operations_of_tenant
-- The same of tenant $2. Runs across tenants.
SELECT operation, provider, model, false AS for_questions, count(*) AS calls, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens, sum(cost_pico_dollars) AS cost_pico_dollars
FROM ai_calls
WHERE tenant_id = $2 AND day = $1
GROUP BY operation, provider, model
UNION ALL
SELECT 'embed', provider, model, true, calls, input_tokens, 0, cost_pico_dollars
FROM question_costs
WHERE tenant_id = $2 AND day = $1
ORDER BY cost_pico_dollars DESC, operation, provider, model, for_questions;

-- name: add_question_costs
-- What questions have cost more since. Arrays are parallel. Runs across tenants.
INSERT INTO question_costs (day, tenant_id, provider, model, calls, input_tokens, cost_pico_dollars)
SELECT day, tenant_id, provider, model, calls, input_tokens, cost_pico_dollars
FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS added (day, tenant_id, provider, model, calls, input_tokens, cost_pico_dollars)
ON CONFLICT (day, tenant_id, provider, model) DO UPDATE
SET calls = question_costs.calls + EXCLUDED.calls, input_tokens = question_costs.input_tokens + EXCLUDED.input_tokens,
    cost_pico_dollars = question_costs.cost_pico_dollars + EXCLUDED.cost_pico_dollars;

-- name: recent_calls
-- The latest $2 calls of day $1. Runs across tenants.
SELECT tenant_id, job_id, attempt, call, operation, provider, model, input_tokens, output_tokens, cost_pico_dollars, state, started_at
FROM ai_calls
WHERE day = $1
ORDER BY started_at DESC
LIMIT $2;

-- name: recent_calls_of_tenant
-- The same of tenant $3. Runs across tenants.
SELECT tenant_id, job_id, attempt, call, operation, provider, model, input_tokens, output_tokens, cost_pico_dollars, state, started_at
FROM ai_calls
WHERE tenant_id = $3 AND day = $1
ORDER BY started_at DESC
LIMIT $2;

-- name: house
-- What the house's accounts gained from $1 on and before $2, by tenant $3 or by all for NULL. Runs across tenants.
SELECT COALESCE(sum(granted), 0) AS granted, COALESCE(sum(revenue), 0) AS revenue, COALESCE(sum(provider_cost), 0) AS provider_cost,
       COALESCE(sum(rounding), 0) AS rounding, COALESCE(sum(loss), 0) AS loss, COALESCE(sum(expired), 0) AS expired,
       COALESCE(sum(refunded), 0) AS refunded
FROM ledger_entries
WHERE created_at >= $1 AND created_at < $2 AND ($3::uuid IS NULL OR tenant_id = $3);
