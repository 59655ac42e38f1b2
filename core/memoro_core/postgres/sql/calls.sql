-- Calls of providers that cost something, from before they are made until their jobs are settled. All run within one tenant's
-- transaction, which locks jobs first, as whatever ends a job does: so that a call is written down before its job is settled, or
-- finds that it has been.

-- name: lock_runs
-- Locks these jobs, always in one order: their runs as they are now.
SELECT job_id, user_id, state, run_lease, attempt
FROM jobs
WHERE tenant_id = $1 AND job_id = ANY ($2::uuid[])
ORDER BY job_id
FOR UPDATE;

-- name: still_holds
-- Whether run $3 of the job is under way.
SELECT EXISTS (SELECT FROM jobs WHERE tenant_id = $1 AND job_id = $2 AND state = 'RUNNING' AND run_lease = $3);

-- name: close_calls
-- What calls have used whose answers are there. Arrays are parallel. One that the settlement had to presume stays as it is.
UPDATE ai_calls
SET state = 'DONE', input_tokens = item.input_tokens, output_tokens = item.output_tokens, failed = item.failed,
    ended_at = item.ended_at
FROM unnest($2::uuid[], $3::integer[], $4::integer[], $5::bigint[], $6::bigint[], $7::boolean[], $8::timestamptz[])
    AS item (job_id, attempt, call, input_tokens, output_tokens, failed, ended_at)
WHERE ai_calls.tenant_id = $1 AND ai_calls.job_id = item.job_id AND ai_calls.attempt = item.attempt
  AND ai_calls.call = item.call AND ai_calls.state = 'OPEN';

-- name: spent
-- What is set aside for each of these jobs (NULL: nothing ever was), in the budgets of which day, and what all of their calls cost, those at their most whose
-- answers are not there. `calls` is the number of the latest call of the attempt under way.
SELECT jobs.job_id, holds.amount, holds.margin_basis_points, holds.day, spent.pico_dollars, spent.fees, spent.calls
FROM jobs
LEFT JOIN credit_holds AS holds
       ON holds.tenant_id = $1 AND holds.job_id = jobs.job_id AND holds.state = 'PENDING'
CROSS JOIN LATERAL (
    SELECT coalesce(sum(cost_pico_dollars), 0)::bigint AS pico_dollars,
           coalesce(sum(fee * items) FILTER (WHERE NOT failed), 0)::bigint AS fees,
           coalesce(max(call) FILTER (WHERE attempt = jobs.attempt), 0) AS calls
    FROM ai_calls
    WHERE tenant_id = $1 AND job_id = jobs.job_id
) AS spent
WHERE jobs.tenant_id = $1 AND jobs.job_id = ANY ($2::uuid[]);

-- name: bind_cost
-- That a job costs something after all, which was accepted when nothing did.
UPDATE jobs SET cost_bound = $3 WHERE tenant_id = $1 AND job_id = $2;

-- name: open_calls
-- Calls that are about to be made, at their most. Arrays are parallel.
INSERT INTO ai_calls (tenant_id, job_id, attempt, call, user_id, day, provider, model, operation, state, request_hash, input_tokens,
                      output_tokens, items, input_price, output_price, fee, started_at)
SELECT $1, job_id, attempt, call, user_id, day, provider, model, operation, 'OPEN', request_hash, input_tokens, output_tokens,
       items, input_price, output_price, fee, started_at
FROM unnest($2::uuid[], $3::integer[], $4::integer[], $5::text[], $6::date[], $7::text[], $8::text[], $9::text[], $10::bytea[],
            $11::bigint[], $12::bigint[], $13::integer[], $14::bigint[], $15::bigint[], $16::bigint[], $17::timestamptz[])
    AS item (job_id, attempt, call, user_id, day, provider, model, operation, request_hash, input_tokens, output_tokens, items,
             input_price, output_price, fee, started_at);

-- name: tell_charged
-- Writes what jobs that have just ended were charged into their rows and last events. Arrays are parallel.
WITH ended AS (
    UPDATE jobs
    SET charged = item.charged
    FROM unnest($2::uuid[], $3::bigint[]) AS item (job_id, charged)
    WHERE jobs.tenant_id = $1 AND jobs.job_id = ANY ($2::uuid[]) AND jobs.job_id = item.job_id
    RETURNING jobs.job_id, jobs.last_seq, jobs.charged
)
UPDATE job_events
SET event = jsonb_set(event, '{usage,charged}', to_jsonb(ended.charged))
FROM ended
WHERE job_events.tenant_id = $1 AND job_events.job_id = ended.job_id AND job_events.seq = ended.last_seq;
