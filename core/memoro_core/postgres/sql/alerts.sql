-- Alerts: what operators are told. Raised by the transactions that they tell of, sent by workers.

-- name: raise_alert
-- Once for each dedupe key. Inserts no row when it was raised before. Tenants' transactions may insert and no more.
INSERT INTO alerts (alert_id, tenant_id, dedupe_key, kind, severity, title, details, next_attempt_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
ON CONFLICT (dedupe_key) DO NOTHING;

-- name: claim_alerts
-- Takes up to $3 alerts that are due at $1, critical ones first, then the longest due. They are due again at $2 unless their
-- attempt has been settled by then. Runs across tenants.
WITH due AS (
    SELECT alert_id
    FROM alerts
    WHERE state = 'PENDING' AND next_attempt_at <= $1
    ORDER BY severity <> 'CRITICAL', next_attempt_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE alerts
SET attempt = attempt + 1, lease = lease + 1, next_attempt_at = $2, error = ''
FROM due
WHERE alerts.alert_id = due.alert_id
RETURNING alerts.alert_id, tenant_id, dedupe_key, kind, severity, title, details, created_at, attempt, lease, delivered_over;

-- name: alert_taken
-- The channel $2 has taken an alert, whoever holds it by now.
UPDATE alerts
SET delivered_over = delivered_over || $2::text
WHERE alert_id = $1 AND NOT $2 = ANY (delivered_over);

-- name: settle_alert
-- An attempt has ended: state $3 is PENDING with another attempt at $4, or an end. Returns no row when the attempt has lost its
-- lease.
UPDATE alerts
SET state = $3, next_attempt_at = coalesce($4, next_attempt_at), error = $5,
    ended_at = CASE WHEN $3 <> 'PENDING' THEN $6::timestamptz END
WHERE alert_id = $1 AND lease = $2 AND state = 'PENDING'
RETURNING alert_id;

-- name: prune_alerts
-- Removes up to $2 alerts that ended before $1. Runs across tenants.
WITH old AS (
    SELECT alert_id
    FROM alerts
    WHERE state <> 'PENDING' AND ended_at < $1
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM alerts
USING old
WHERE alerts.alert_id = old.alert_id;
