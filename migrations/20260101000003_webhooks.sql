-- migrate:up

CREATE TABLE webhook_endpoints (
    tenant_id           uuid        NOT NULL,
    endpoint_id         uuid        NOT NULL,
    url                 text        NOT NULL,
    event_types         text[]      NOT NULL,
    description         text        NOT NULL,
    state               text        NOT NULL CHECK (state IN ('ENABLED', 'DISABLED')),
    secret              bytea       NOT NULL,
    previous_secret     bytea,
    previous_expires_at timestamptz,
    failing_since       timestamptz,
    disabled_at         timestamptz,
    created_at          timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, endpoint_id),
    CHECK ((state = 'DISABLED') = (disabled_at IS NOT NULL)),
    CHECK ((previous_secret IS NULL) = (previous_expires_at IS NULL))
);
COMMENT ON COLUMN webhook_endpoints.event_types IS 'What it is told of; empty: every type.';
COMMENT ON COLUMN webhook_endpoints.secret IS 'Sealed: encrypted for this row when the deployment has a MEMORO_SECRET_KEY, else as it is.';

-- The outbox: an event's row for each endpoint is written in the transaction of what it tells of. It refers to its endpoint
-- without a foreign key, because a job must be able to end while somebody deletes an endpoint; what has lost its endpoint is
-- never sent, and goes with age.
CREATE TABLE webhook_deliveries (
    tenant_id       uuid        NOT NULL,
    event_id        uuid        NOT NULL,
    endpoint_id     uuid        NOT NULL,
    event_type      text        NOT NULL,
    payload         text        NOT NULL,
    state           text        NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'SUCCEEDED', 'FAILED')),
    attempt         integer     NOT NULL DEFAULT 0,
    lease           bigint      NOT NULL DEFAULT 0,
    requested       boolean     NOT NULL DEFAULT false,
    next_attempt_at timestamptz NOT NULL,
    give_up_at      timestamptz NOT NULL,
    attempted_at    timestamptz,
    response_status smallint    NOT NULL DEFAULT 0,
    error           text        NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    PRIMARY KEY (tenant_id, event_id, endpoint_id),
    CHECK ((state = 'PENDING') = (ended_at IS NULL))
);
COMMENT ON COLUMN webhook_deliveries.lease IS 'Goes up with each attempt and each redelivery; what an attempt writes names the lease it holds.';
COMMENT ON COLUMN webhook_deliveries.requested IS 'A caller asked for it: when it arrives, its endpoint is enabled again.';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'While an attempt is under way, when it counts as lost.';
-- What is to be sent, by endpoint, so that the backlog of one is never in the way of another.
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (tenant_id, endpoint_id, next_attempt_at)
    WHERE state = 'PENDING';
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (tenant_id, endpoint_id, event_id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE state <> 'PENDING';

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['webhook_endpoints', 'webhook_deliveries']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I TO memoro_app '
            'USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()))', t);
        -- The sender looks for what is due over all tenants; what comes of it is written as the tenant.
        EXECUTE format('CREATE POLICY system_access ON %I TO memoro_system USING (true)', t);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints, webhook_deliveries TO memoro_app;
GRANT SELECT ON webhook_endpoints TO memoro_system;
GRANT SELECT, DELETE ON webhook_deliveries TO memoro_system;
GRANT UPDATE (attempt, lease, next_attempt_at, attempted_at, response_status, error) ON webhook_deliveries TO memoro_system;

-- migrate:down
