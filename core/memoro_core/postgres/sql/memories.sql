-- Memories: what the accepting calls store, and how they are read, changed and deleted. Runs within one tenant's transaction.
--
-- An accepted job is in flight at once, and its caller hints it, if its tenant and its user have fewer jobs in flight than their
-- tier allows and the tier's queue is not paused; else `hinted_at` is NULL, and the scheduler chooses it in its turn. What is in
-- flight is counted up to the cap and no further. Statements at the same time don't see each other's jobs, so that a cap may be
-- exceeded by what comes together: it shares the workers out, and guards nothing. A job that a budget puts off, which has a reason
-- and a time, is DEFERRED and takes no room.
--
-- What a statement adds it also counts (tenant_usage); what is changed and deleted is counted by triggers.

-- name: accept
-- Stores texts, each with its job, the job's first event and its idempotency record. An item whose request id is known is left
-- out, whole. Arrays are parallel, an element per item; $17 to $20 may be empty instead. A job that its caller runs itself counts
-- as hinted, room or not. Returns the jobs of the items that were stored, each with whether it is in flight.
WITH item AS (
    SELECT *
    FROM unnest($2::timestamptz[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::jsonb[],
                $9::timestamptz[], $10::smallint[], $11::text[], $12::bytea[], $15::jsonb[], $16::boolean[],
                $17::text[], $18::bigint[], $19::text[], $20::timestamptz[])
        WITH ORDINALITY
        AS item (created_at, memory_id, job_id, user_id, text, content_hash, metadata, occurred_at, priority, request_id,
                 fingerprint, event, run_by_caller, trace_parent, cost_bound, deferral_reason, deferred_until, place)
), recorded AS (
    INSERT INTO idempotency_records (tenant_id, request_id, fingerprint, answer, created_at)
    SELECT $1, request_id, fingerprint,
           jsonb_build_object('memory_ids', jsonb_build_array(memory_id), 'job_id', job_id), created_at
    FROM item
    WHERE request_id IS NOT NULL
    ON CONFLICT (tenant_id, request_id) DO NOTHING
    RETURNING (answer ->> 'job_id')::uuid AS job_id
), accepted AS (
    SELECT * FROM item WHERE request_id IS NULL OR job_id IN (SELECT job_id FROM recorded)
), tenant_room AS (
    SELECT tiers.user_in_flight, tiers.tenant_in_flight - busy.jobs AS jobs
    FROM tenants
    JOIN tiers USING (tier)
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs
        FROM (SELECT FROM jobs WHERE tenant_id = $1 AND in_flight LIMIT tiers.tenant_in_flight) AS counted
    ) AS busy
    WHERE tenants.tenant_id = $1 AND tiers.queue_paused_at IS NULL
), user_room AS MATERIALIZED (
    SELECT accepting.user_id, tenant_room.user_in_flight - busy.jobs AS jobs
    FROM tenant_room
    CROSS JOIN (SELECT DISTINCT user_id FROM accepted) AS accepting
    CROSS JOIN LATERAL (
        SELECT count(*) AS jobs
        FROM (SELECT
              FROM jobs
              WHERE tenant_id = $1 AND user_id = accepting.user_id AND in_flight
              LIMIT tenant_room.user_in_flight) AS counted
    ) AS busy
    WHERE tenant_room.jobs > 0
), within_user_room AS (
    SELECT job_id, run_by_caller, place,
           run_by_caller
               OR row_number() OVER (PARTITION BY user_id ORDER BY run_by_caller DESC, place) <= coalesce(user_room.jobs, 0)
               AS has_room
    FROM accepted
    LEFT JOIN user_room USING (user_id)
    WHERE deferral_reason IS NULL
), placed AS (
    -- What its user has no room for takes none of the tenant's.
    SELECT job_id,
           run_by_caller
               OR has_room AND row_number() OVER (PARTITION BY has_room ORDER BY run_by_caller DESC, place)
                               <= (SELECT jobs FROM tenant_room)
               AS hinted
    FROM within_user_room
), stored AS (
    INSERT INTO memories (tenant_id, memory_id, user_id, kind, text, content_hash, metadata, status, occurred_at, job_id,
                          created_at, updated_at)
    SELECT $1, memory_id, user_id, 'TEXT', text, content_hash, metadata, 'PENDING', occurred_at, job_id,
           created_at, created_at
    FROM accepted
), queued AS (
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at, hinted_at,
                      last_seq, trace_parent, created_at, cost_bound, deferral_reason, deferred_at)
    SELECT $1, job_id, 'memory.enrich', CASE WHEN deferral_reason IS NULL THEN 'QUEUED' ELSE 'DEFERRED' END, priority, user_id,
           ARRAY[memory_id], $13::jsonb, $14, coalesce(deferred_until, created_at), CASE WHEN hinted THEN created_at END, 1,
           trace_parent, created_at, coalesce(cost_bound, 0), deferral_reason, CASE WHEN deferral_reason IS NOT NULL THEN created_at END
    FROM accepted
    LEFT JOIN placed USING (job_id)
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT $1, job_id, 1, event, created_at FROM accepted
), counted AS (
    INSERT INTO tenant_usage AS usage (tenant_id, slot, memories, bytes)
    SELECT $1, pg_backend_pid() % 16, count(*), sum(stored_bytes(text, metadata)) FROM accepted HAVING count(*) > 0
    ON CONFLICT (tenant_id, slot)
        DO UPDATE SET memories = usage.memories + EXCLUDED.memories, bytes = usage.bytes + EXCLUDED.bytes
)
SELECT job_id, coalesce(hinted, false) AS hinted
FROM accepted
LEFT JOIN placed USING (job_id);

-- name: accept_conversation
-- Stores messages of a conversation at its end, with one job. Arrays are parallel, an element per message. Returns the position
-- of the first message and whether the job is in flight, or no row when the request id is known: then nothing is stored.
WITH recorded AS (
    INSERT INTO idempotency_records (tenant_id, request_id, fingerprint, answer, created_at)
    SELECT $1, $5, $6, jsonb_build_object('memory_ids', to_jsonb($9::uuid[]), 'job_id', $7::uuid), $2
    WHERE $5::text IS NOT NULL
    ON CONFLICT (tenant_id, request_id) DO NOTHING
    RETURNING request_id
), conversation AS (
    INSERT INTO conversations (tenant_id, user_id, conversation_id, next_position, created_at, updated_at)
    SELECT $1, $3, $4, cardinality($9::uuid[]), $2, $2
    WHERE $5::text IS NULL OR EXISTS (SELECT FROM recorded)
    ON CONFLICT (tenant_id, user_id, conversation_id)
        DO UPDATE SET next_position = conversations.next_position + EXCLUDED.next_position, updated_at = EXCLUDED.updated_at
    RETURNING next_position - cardinality($9::uuid[]) AS first_position
), stored AS (
    INSERT INTO memories (tenant_id, memory_id, user_id, kind, text, content_hash, metadata, status, conversation_id, position,
                          role, speaker, occurred_at, job_id, created_at, updated_at)
    SELECT $1, message.memory_id, $3, 'MESSAGE', message.text, message.content_hash, message.metadata, 'PENDING', $4,
           conversation.first_position + message.place - 1, message.role, message.speaker, message.occurred_at, $7, $2, $2
    FROM conversation
    CROSS JOIN unnest($9::uuid[], $10::text[], $11::bytea[], $12::jsonb[], $13::text[], $14::text[], $15::timestamptz[])
        WITH ORDINALITY AS message (memory_id, text, content_hash, metadata, role, speaker, occurred_at, place)
), room AS (
    SELECT
    FROM tenants
    JOIN tiers USING (tier)
    WHERE tenants.tenant_id = $1 AND tiers.queue_paused_at IS NULL AND $21::text IS NULL
      AND tiers.tenant_in_flight > (
          SELECT count(*)
          FROM (SELECT FROM jobs WHERE tenant_id = $1 AND in_flight LIMIT tiers.tenant_in_flight) AS counted)
      AND tiers.user_in_flight > (
          SELECT count(*)
          FROM (SELECT
                FROM jobs
                WHERE tenant_id = $1 AND user_id = $3 AND in_flight
                LIMIT tiers.user_in_flight) AS counted)
), queued AS (
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at, hinted_at,
                      last_seq, trace_parent, created_at, cost_bound, deferral_reason, deferred_at)
    SELECT $1, $7, 'memory.enrich', CASE WHEN $21::text IS NULL THEN 'QUEUED' ELSE 'DEFERRED' END, $8, $3, $9::uuid[], $16::jsonb,
           $17, coalesce($22::timestamptz, $2), CASE WHEN EXISTS (SELECT FROM room) THEN $2::timestamptz END, 1, $19, $2, $20, $21,
           CASE WHEN $21 IS NOT NULL THEN $2::timestamptz END
    FROM conversation
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT $1, $7, 1, $18::jsonb, $2 FROM conversation
), counted AS (
    INSERT INTO tenant_usage AS usage (tenant_id, slot, memories, bytes)
    SELECT $1, pg_backend_pid() % 16, cardinality($9::uuid[]),
           (SELECT sum(stored_bytes(text, metadata)) FROM unnest($10::text[], $12::jsonb[]) AS message (text, metadata))
    FROM conversation
    ON CONFLICT (tenant_id, slot)
        DO UPDATE SET memories = usage.memories + EXCLUDED.memories, bytes = usage.bytes + EXCLUDED.bytes
)
SELECT first_position, EXISTS (SELECT FROM room) AS hinted FROM conversation;

-- name: record_request
-- Remembers what a request id did. Returns no row when the id is known.
INSERT INTO idempotency_records (tenant_id, request_id, fingerprint, answer, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, request_id) DO NOTHING
RETURNING request_id;

-- name: find_requests
-- What known request ids did.
SELECT request_id, fingerprint, answer
FROM idempotency_records
WHERE tenant_id = $1 AND request_id = ANY ($2::text[]);

-- name: get_memories
-- Memories by id, in no order; those that are gone are left out.
SELECT memory_id, user_id, kind, text, metadata, status, conversation_id, position, role, speaker, occurred_at, job_id, version,
       created_at, updated_at
FROM memories
WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]);

-- name: lock_memory
-- One memory, held against other writers until the transaction ends.
SELECT memory_id, user_id, kind, text, metadata, status, conversation_id, position, role, speaker, occurred_at, job_id, version,
       created_at, updated_at
FROM memories
WHERE tenant_id = $1 AND memory_id = $2
FOR UPDATE;

-- name: list_memories
-- Newest first, from before a given id on. A NULL or empty condition fits all.
SELECT memory_id, user_id, kind, text, metadata, status, conversation_id, position, role, speaker, occurred_at, job_id, version,
       created_at, updated_at
FROM memories
WHERE tenant_id = $1
  AND ($2::text IS NULL OR user_id = $2)
  AND (cardinality($3::text[]) = 0 OR kind = ANY ($3))
  AND (cardinality($4::text[]) = 0 OR status = ANY ($4))
  AND ($5::text IS NULL OR conversation_id = $5)
  AND metadata @> $6::jsonb
  AND ($7::timestamptz IS NULL OR occurred_at >= $7)
  AND ($8::timestamptz IS NULL OR occurred_at < $8)
  AND ($9::uuid IS NULL OR memory_id < $9)
ORDER BY memory_id DESC
LIMIT $10;

-- name: update_memory
-- Writes a changed memory; the caller holds it locked.
UPDATE memories
SET text = $3, content_hash = $4, metadata = $5, occurred_at = $6, status = $7, job_id = $8, version = version + 1,
    updated_at = $9
WHERE tenant_id = $1 AND memory_id = $2;

-- name: queue_job
-- A job for memories that are there already, with its first event. Returns whether the job is in flight.
WITH room AS (
    SELECT
    FROM tenants
    JOIN tiers USING (tier)
    WHERE tenants.tenant_id = $1 AND tiers.queue_paused_at IS NULL AND $12::text IS NULL
      AND tiers.tenant_in_flight > (
          SELECT count(*)
          FROM (SELECT FROM jobs WHERE tenant_id = $1 AND in_flight LIMIT tiers.tenant_in_flight) AS counted)
      AND tiers.user_in_flight > (
          SELECT count(*)
          FROM (SELECT
                FROM jobs
                WHERE tenant_id = $1 AND user_id = $4 AND in_flight
                LIMIT tiers.user_in_flight) AS counted)
), queued AS (
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at, hinted_at,
                      last_seq, trace_parent, created_at, cost_bound, deferral_reason, deferred_at)
    VALUES ($1, $2, 'memory.enrich', CASE WHEN $12::text IS NULL THEN 'QUEUED' ELSE 'DEFERRED' END, $3, $4, $5, $6, $7,
            coalesce($13::timestamptz, $8), CASE WHEN EXISTS (SELECT FROM room) THEN $8::timestamptz END, 1, $10, $8, $11, $12,
            CASE WHEN $12 IS NOT NULL THEN $8::timestamptz END)
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    VALUES ($1, $2, 1, $9, $8)
)
SELECT EXISTS (SELECT FROM room) AS hinted;

-- name: delete_memory
-- Deletes a memory; its embedding, mentions and provenance go with it.
DELETE FROM memories WHERE tenant_id = $1 AND memory_id = $2;

-- name: usage
-- What the tenant has stored.
SELECT coalesce(sum(memories), 0)::bigint AS memories, coalesce(sum(bytes), 0)::bigint AS bytes
FROM tenant_usage
WHERE tenant_id = $1;
