-- What several statements have in common: `{name}` in any of them stands for it.

-- name: job_columns
-- A whole job, as `job_of` reads it.
jobs.job_id, jobs.kind, jobs.state, jobs.priority, jobs.user_id, jobs.memory_ids, jobs.stages, jobs.partial, jobs.attempt,
jobs.max_attempts, jobs.run_at, jobs.cancel_requested, jobs.last_seq, jobs.input_tokens, jobs.output_tokens, jobs.error, jobs.result,
jobs.created_at, jobs.started_at, jobs.ended_at, jobs.retry_of, jobs.trace_parent, jobs.cost_bound, jobs.charged, jobs.deferral_reason
