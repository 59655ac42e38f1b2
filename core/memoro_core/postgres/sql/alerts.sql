-- Alerts: what operators are told. Raised by the transactions that they tell of, sent by workers.

-- name: raise_alert
-- Once for each dedupe key. Inserts no row when it was raised before. Tenants' transactions may insert and no more.
INSERT INTO alerts (alert_id, tenant_id, dedupe_key, kind, severity, title, details, next_attempt_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
ON CONFLICT (dedupe_key) DO NOTHING;
