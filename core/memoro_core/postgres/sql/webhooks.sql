-- Webhooks: a tenant's endpoints, and what is delivered to them. What happens is announced by the statements that make it happen
-- (`finish` and `cancel_waiting` in jobs.sql, `disable` here).
--
-- Whoever writes a delivery and its endpoint in one transaction takes the delivery first. What goes the other way, over all of
-- an endpoint's deliveries, leaves out those that another transaction holds, so that two never wait for each other.

-- name: create_endpoint
-- Returns no row when the tenant has $9 endpoints already.
INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, event_types, description, state, secret, created_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
WHERE (SELECT count(*) FROM webhook_endpoints WHERE tenant_id = $1) < $9::bigint
RETURNING endpoint_id, url, event_types, description, state, previous_expires_at, failing_since, disabled_at, created_at;

-- name: get_endpoint
SELECT endpoint_id, url, event_types, description, state, previous_expires_at, failing_since, disabled_at, created_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND endpoint_id = $2;

-- name: list_endpoints
-- Newest first, older than a given one.
SELECT endpoint_id, url, event_types, description, state, previous_expires_at, failing_since, disabled_at, created_at
FROM webhook_endpoints
WHERE tenant_id = $1 AND ($2::uuid IS NULL OR endpoint_id < $2)
ORDER BY endpoint_id DESC
LIMIT $3;

-- name: rotate_secret
-- Of earlier secrets only the latest goes on. Returns no row when there is no such endpoint.
UPDATE webhook_endpoints
SET previous_secret = secret, previous_expires_at = $4, secret = $3
WHERE tenant_id = $1 AND endpoint_id = $2
RETURNING endpoint_id, url, event_types, description, state, previous_expires_at, failing_since, disabled_at, created_at;

-- name: delete_endpoint
-- With its deliveries, but for those that are being written just now: they are never sent again, and go with age. Returns no
-- row when there is no such endpoint.
WITH gone AS (
    DELETE FROM webhook_endpoints
    WHERE tenant_id = $1 AND endpoint_id = $2
    RETURNING endpoint_id
), deliveries AS (
    SELECT webhook_deliveries.event_id, webhook_deliveries.endpoint_id
    FROM gone
    JOIN webhook_deliveries ON webhook_deliveries.tenant_id = $1 AND webhook_deliveries.endpoint_id = gone.endpoint_id
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
), forgotten AS (
    DELETE FROM webhook_deliveries
    USING deliveries
    WHERE webhook_deliveries.tenant_id = $1 AND webhook_deliveries.event_id = deliveries.event_id
      AND webhook_deliveries.endpoint_id = deliveries.endpoint_id
)
SELECT endpoint_id FROM gone;

-- name: get_delivery
-- Of an endpoint that is still there.
SELECT event_id, endpoint_id, event_type, webhook_deliveries.state, attempt, response_status, error,
       webhook_deliveries.created_at, attempted_at, next_attempt_at, ended_at
FROM webhook_deliveries
JOIN webhook_endpoints USING (tenant_id, endpoint_id)
WHERE tenant_id = $1 AND event_id = $2 AND endpoint_id = $3;

-- name: list_deliveries
-- Newest event first, from before a given one on. A NULL or empty condition fits all.
SELECT event_id, endpoint_id, event_type, state, attempt, response_status, error, created_at, attempted_at, next_attempt_at,
       ended_at
FROM webhook_deliveries
WHERE tenant_id = $1
  AND ($2::uuid IS NULL OR endpoint_id = $2)
  AND (cardinality($3::text[]) = 0 OR state = ANY ($3))
  AND ($4::timestamptz IS NULL OR created_at >= $4)
  AND ($5::timestamptz IS NULL OR created_at < $5)
  AND ($6::uuid IS NULL OR (event_id, endpoint_id) < ($6, $7::uuid))
ORDER BY event_id DESC, endpoint_id DESC
LIMIT $8;

-- name: redeliver
-- Sends a delivery anew from $4 to $5; an attempt under way no longer counts. Returns no row when there is none, or its endpoint
-- is gone.
UPDATE webhook_deliveries
SET state = 'PENDING', attempt = 0, lease = lease + 1, requested = true, next_attempt_at = $4, give_up_at = $5, ended_at = NULL,
    response_status = 0, error = ''
FROM webhook_endpoints
WHERE webhook_deliveries.tenant_id = $1 AND webhook_deliveries.event_id = $2 AND webhook_deliveries.endpoint_id = $3
  AND webhook_endpoints.tenant_id = $1 AND webhook_endpoints.endpoint_id = $3
RETURNING event_id, webhook_deliveries.endpoint_id, event_type, webhook_deliveries.state, attempt, response_status, error,
          webhook_deliveries.created_at, attempted_at, next_attempt_at, ended_at;

-- name: record_webhook_request
-- Remembers what a request id did. Returns no row when the id is known.
INSERT INTO idempotency_records (tenant_id, request_id, fingerprint, answer, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, request_id) DO NOTHING
RETURNING request_id;

-- name: find_webhook_request
SELECT fingerprint, answer
FROM idempotency_records
WHERE tenant_id = $1 AND request_id = $2;

-- name: claim_deliveries
-- Takes up to $7 deliveries that are due at $1, the longest due first, and at most $4 of each endpoint, less what already runs
-- here ($5 and $6, parallel); of endpoints that are failing, or of those that are not ($3). They are due again at $2 unless their
-- attempt has been settled by then. Steps from endpoint to endpoint along the index, so that a backlog costs nothing. Runs across
-- tenants.
WITH RECURSIVE waiting AS (
    (SELECT tenant_id, endpoint_id
     FROM webhook_deliveries
     WHERE state = 'PENDING'
     ORDER BY tenant_id, endpoint_id
     LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.endpoint_id
    FROM waiting
    CROSS JOIN LATERAL (
        SELECT tenant_id, endpoint_id
        FROM webhook_deliveries
        WHERE state = 'PENDING' AND (tenant_id, endpoint_id) > (waiting.tenant_id, waiting.endpoint_id)
        ORDER BY tenant_id, endpoint_id
        LIMIT 1
    ) AS following
), due AS (
    SELECT first.tenant_id, first.event_id, first.endpoint_id
    FROM waiting
    JOIN webhook_endpoints USING (tenant_id, endpoint_id)
    LEFT JOIN unnest($5::uuid[], $6::integer[]) AS running (endpoint_id, deliveries) USING (endpoint_id)
    CROSS JOIN LATERAL (
        SELECT tenant_id, event_id, endpoint_id, next_attempt_at
        FROM webhook_deliveries
        WHERE tenant_id = waiting.tenant_id AND endpoint_id = waiting.endpoint_id AND state = 'PENDING'
          AND next_attempt_at <= $1
        ORDER BY next_attempt_at
        LIMIT greatest($4::integer - coalesce(running.deliveries, 0), 0)
    ) AS first
    WHERE (webhook_endpoints.failing_since IS NOT NULL) = $3
    ORDER BY first.next_attempt_at
    LIMIT $7
), taken AS (
    SELECT webhook_deliveries.tenant_id, webhook_deliveries.event_id, webhook_deliveries.endpoint_id
    FROM due
    JOIN webhook_deliveries USING (tenant_id, event_id, endpoint_id)
    -- Another worker may have been quicker.
    WHERE webhook_deliveries.state = 'PENDING' AND webhook_deliveries.next_attempt_at <= $1
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
), claimed AS (
    UPDATE webhook_deliveries
    SET attempt = attempt + 1, lease = lease + 1, attempted_at = $1, next_attempt_at = $2, response_status = 0, error = ''
    FROM taken
    WHERE webhook_deliveries.tenant_id = taken.tenant_id AND webhook_deliveries.event_id = taken.event_id
      AND webhook_deliveries.endpoint_id = taken.endpoint_id
    RETURNING webhook_deliveries.tenant_id, webhook_deliveries.event_id, webhook_deliveries.endpoint_id, lease, attempt,
              give_up_at, payload
)
SELECT tenant_id, event_id, endpoint_id, lease, attempt, give_up_at, payload, url, secret, previous_secret, previous_expires_at,
       failing_since,
       (SELECT trace_parent
        FROM jobs
        WHERE jobs.tenant_id = claimed.tenant_id AND jobs.job_id = (claimed.payload::jsonb #>> '{data,job_id}')::uuid
       ) AS trace_parent
FROM claimed
JOIN webhook_endpoints USING (tenant_id, endpoint_id);

-- name: delivered
-- An attempt arrived. An endpoint that was failing no longer is; one that was disabled is enabled if a caller had asked for this
-- delivery. Returns no row when the attempt has lost its lease.
WITH ended AS (
    UPDATE webhook_deliveries
    SET state = 'SUCCEEDED', response_status = $5, error = '', ended_at = $6
    WHERE tenant_id = $1 AND event_id = $2 AND endpoint_id = $3 AND lease = $4 AND state = 'PENDING'
    RETURNING event_id, requested
), mended AS (
    UPDATE webhook_endpoints
    SET failing_since = NULL,
        state = CASE WHEN ended.requested THEN 'ENABLED' ELSE state END,
        disabled_at = CASE WHEN ended.requested THEN NULL ELSE disabled_at END
    FROM ended
    WHERE tenant_id = $1 AND endpoint_id = $3 AND (failing_since IS NOT NULL OR (ended.requested AND state = 'DISABLED'))
)
SELECT event_id FROM ended;

-- name: not_delivered
-- An attempt failed: state $5 is PENDING with another attempt at $6, or FAILED. Returns no row when the attempt has lost its
-- lease.
WITH settled AS (
    UPDATE webhook_deliveries
    SET state = $5, next_attempt_at = coalesce($6, next_attempt_at), response_status = $7, error = $8,
        ended_at = CASE WHEN $5 = 'FAILED' THEN $9::timestamptz END
    WHERE tenant_id = $1 AND event_id = $2 AND endpoint_id = $3 AND lease = $4 AND state = 'PENDING'
    RETURNING event_id
), marked AS (
    UPDATE webhook_endpoints
    SET failing_since = $9
    FROM settled
    WHERE tenant_id = $1 AND endpoint_id = $3 AND failing_since IS NULL
)
SELECT event_id FROM settled;

-- name: disable
-- Disables an endpoint that is enabled and, unless $4 is NULL, has been failing since then. What waits for it has failed, but for
-- what is being written just now, which ends by itself. Returns the endpoint, or no row.
WITH disabled AS (
    UPDATE webhook_endpoints
    SET state = 'DISABLED', disabled_at = $3
    WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'ENABLED' AND ($4::timestamptz IS NULL OR failing_since = $4)
    RETURNING endpoint_id
), waiting AS (
    SELECT webhook_deliveries.event_id, webhook_deliveries.endpoint_id
    FROM disabled
    JOIN webhook_deliveries ON webhook_deliveries.tenant_id = $1 AND webhook_deliveries.endpoint_id = disabled.endpoint_id
    WHERE webhook_deliveries.state = 'PENDING'
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
), dropped AS (
    UPDATE webhook_deliveries
    SET state = 'FAILED', lease = lease + 1, error = 'the endpoint was disabled', ended_at = $3
    FROM waiting
    WHERE webhook_deliveries.tenant_id = $1 AND webhook_deliveries.event_id = waiting.event_id
      AND webhook_deliveries.endpoint_id = waiting.endpoint_id
)
SELECT endpoint_id FROM disabled;

-- name: prune_deliveries
-- Removes up to $2 deliveries that ended before $1, or should have: those have lost their endpoint. Runs across tenants.
WITH old AS (
    SELECT tenant_id, event_id, endpoint_id
    FROM webhook_deliveries
    WHERE (state <> 'PENDING' AND ended_at < $1) OR (state = 'PENDING' AND give_up_at < $1)
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM webhook_deliveries
USING old
WHERE webhook_deliveries.tenant_id = old.tenant_id AND webhook_deliveries.event_id = old.event_id
  AND webhook_deliveries.endpoint_id = old.endpoint_id;

-- name: announce
-- Writes events, [{id, type, payload}], for each endpoint of the tenant that wants to know of them, to be tried from $3 until $4.
INSERT INTO webhook_deliveries (tenant_id, event_id, endpoint_id, event_type, payload, next_attempt_at, give_up_at, created_at)
SELECT $1, event.id, endpoint_id, event.type, event.payload, $3, $4, $3
FROM jsonb_to_recordset($2) AS event (id uuid, type text, payload text)
JOIN webhook_endpoints ON webhook_endpoints.tenant_id = $1
WHERE webhook_endpoints.state = 'ENABLED' AND (event_types = '{}' OR event.type = ANY (event_types));
