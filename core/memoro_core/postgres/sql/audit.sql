-- The audit log. It crosses tenants by nature, so all of it runs as memoro_system, which may not change what it has written.

-- name: add_event
INSERT INTO audit_events (event_id, at, method, code, reason, actor_tenant_id, actor_api_key_id, actor_subject, tenant_id, request,
                          request_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: list_events
-- Newest first, older than $1; about the tenant $2, of the method $3, from $4 on, before $5; NULL: any. Ids begin with the time at
-- which they were made, so that $6 and $7, the bounds of the ids of that time, spare reading what is newer or older.
SELECT event_id, at, method, code, reason, actor_tenant_id, actor_api_key_id, actor_subject, tenant_id, request, request_id
FROM audit_events
WHERE ($1::uuid IS NULL OR event_id < $1)
  AND ($2::uuid IS NULL OR tenant_id = $2)
  AND ($3::text IS NULL OR method = $3)
  AND ($4::timestamptz IS NULL OR at >= $4)
  AND ($5::timestamptz IS NULL OR at < $5)
  AND event_id >= $6 AND event_id <= $7
ORDER BY event_id DESC
LIMIT $8;

-- name: forget_events
-- Deletes at most $2 from before $1, the oldest first.
DELETE FROM audit_events
WHERE event_id = ANY (ARRAY(SELECT event_id FROM audit_events WHERE at < $1 ORDER BY at LIMIT $2));
