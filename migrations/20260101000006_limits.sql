-- migrate:up

------------------------------------------------------------------------------------------------------------------- limits

-- What tenants may do: a tier's, over which a tenant may have its own. Both are objects with the fields of the message Limits,
-- those that are set: {"requests": {"per_minute": 600, "burst": 120}, "open_streams": 100}.
ALTER TABLE tiers
    ADD COLUMN limits     jsonb       NOT NULL DEFAULT '{}',
    ADD COLUMN shadow     boolean     NOT NULL DEFAULT false,
    ADD COLUMN version    bigint      NOT NULL DEFAULT 1,
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN tiers.shadow IS 'Calls beyond a limit are counted, not refused.';
ALTER TABLE tenants ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN tenants.limits IS 'What it has of its own instead of what its tier says.';

UPDATE tiers SET limits = limits.of_tier::jsonb
FROM (VALUES
    ('free', '{"requests": {"per_minute": 600, "burst": 120}, "reads": {"per_minute": 600, "burst": 120},
               "writes": {"per_minute": 120, "burst": 60}, "searches": {"per_minute": 120, "burst": 60},
               "user_requests": {"per_minute": 120, "burst": 60}, "daily_units": 20000, "open_streams": 100,
               "relation_detections": 5, "max_memories": 20000, "max_bytes": 100000000}'),
    ('pro', '{"requests": {"per_minute": 12000, "burst": 1200}, "reads": {"per_minute": 12000, "burst": 1200},
              "writes": {"per_minute": 6000, "burst": 600}, "searches": {"per_minute": 6000, "burst": 600},
              "user_requests": {"per_minute": 1200, "burst": 300}, "daily_units": 2000000, "open_streams": 1000,
              "relation_detections": 60, "max_memories": 2000000, "max_bytes": 10000000000}'),
    ('enterprise', '{"requests": {"per_minute": 1200000, "burst": 40000}, "reads": {"per_minute": 1200000, "burst": 40000},
                     "writes": {"per_minute": 1200000, "burst": 40000}, "searches": {"per_minute": 600000, "burst": 20000},
                     "open_streams": 5000}')
) AS limits (tier, of_tier)
WHERE tiers.tier = limits.tier;
ALTER TABLE tiers DROP COLUMN open_streams;

-- Servers keep what they know of tenants, tiers and credentials; this says that some of it has changed: which tier or tenant.
CREATE FUNCTION tell_policy_change() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('memoro_policies', format('%s %s', TG_ARGV[0], to_jsonb(NEW) ->> TG_ARGV[0]));
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_policy_change AFTER INSERT OR UPDATE OF limits, shadow, kept_succeeded, kept_failed ON tiers
    FOR EACH ROW EXECUTE FUNCTION tell_policy_change('tier');
CREATE TRIGGER tell_policy_change AFTER UPDATE OF tier, state, limits ON tenants
    FOR EACH ROW EXECUTE FUNCTION tell_policy_change('tenant_id');
CREATE TRIGGER tell_policy_change AFTER UPDATE OF revoked_at, expires_at ON api_keys
    FOR EACH ROW EXECUTE FUNCTION tell_policy_change('tenant_id');
GRANT INSERT, UPDATE ON tiers TO memoro_system;

-- The weight of a day's calls. Redis decides; this is what a lost Redis is told, and what decides while it is away.
CREATE TABLE daily_units (
    tenant_id uuid   NOT NULL,
    day       date   NOT NULL,
    units     bigint NOT NULL CHECK (units >= 0),
    PRIMARY KEY (tenant_id, day)
);
COMMENT ON COLUMN daily_units.day IS 'In the time zone of the deployment.';
CREATE INDEX daily_units_by_age ON daily_units (day);
GRANT SELECT, INSERT, UPDATE, DELETE ON daily_units TO memoro_system;

-------------------------------------------------------------------------------------------------------------------- quotas

-- For which jobs of a user entities and facts were found lately: a tier says for how many in an hour. Numbers and times go up
-- together, so that one look at a number tells whether one more may be.
CREATE TABLE relation_slots (
    tenant_id uuid        NOT NULL,
    user_id   text        NOT NULL,
    number    bigint      NOT NULL,
    job_id    uuid        NOT NULL,
    taken_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, number),
    UNIQUE (tenant_id, job_id)
);
COMMENT ON TABLE relation_slots IS 'What is older than an hour counts no more, and need not be there.';
CREATE INDEX relation_slots_by_age ON relation_slots (taken_at);

ALTER TABLE jobs DROP CONSTRAINT jobs_deferral_reason_check;
ALTER TABLE jobs
    ADD CONSTRAINT jobs_deferral_reason_check
        CHECK (deferral_reason IN ('DEPLOYMENT', 'TENANT', 'USER', 'CREDITS', 'RELATIONS'));
COMMENT ON COLUMN jobs.deferral_reason IS 'Why it was put off last: whose daily budget was used up, that credits were missing when it was let go, or that entities and facts were found for as many jobs of the user as an hour allows.';
-- What waits for its user's turn, also when it has been let go and has not run yet.
CREATE INDEX jobs_to_relate ON jobs (tenant_id, user_id, state, job_id)
    WHERE kind = 'memory.relate' AND state IN ('QUEUED', 'DEFERRED') AND deferral_reason = 'RELATIONS' AND attempt = 0;

-- When a tenant may do more than before, what waits need not wait as long: an hour for as many jobs of a user as there may be in one.
CREATE FUNCTION hasten_relations(of_tenants uuid[]) RETURNS void
    LANGUAGE sql VOLATILE AS $$
        UPDATE jobs
        SET run_at = turn.at
        FROM (
            SELECT line.tenant_id, line.job_id,
                   now() + coalesce((line.place - 1) / allowed.per_hour, 0) * interval '1 hour' AS at
            FROM (
                SELECT tenant_id, job_id, row_number() OVER (PARTITION BY tenant_id, user_id ORDER BY job_id) AS place
                FROM jobs
                WHERE tenant_id = ANY (of_tenants) AND state = 'DEFERRED' AND kind = 'memory.relate'
                  AND deferral_reason = 'RELATIONS' AND attempt = 0
            ) AS line
            JOIN (
                SELECT tenants.tenant_id,
                       CASE WHEN NOT tiers.shadow
                            THEN ((tiers.limits || tenants.limits) ->> 'relation_detections')::bigint END AS per_hour
                FROM tenants
                JOIN tiers USING (tier)
                WHERE tenants.tenant_id = ANY (of_tenants)
            ) AS allowed USING (tenant_id)
        ) AS turn
        WHERE jobs.tenant_id = turn.tenant_id AND jobs.job_id = turn.job_id AND jobs.state = 'DEFERRED' AND jobs.run_at > turn.at
    $$;
CREATE FUNCTION hasten_relations_of_tenant() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hasten_relations(ARRAY[NEW.tenant_id]);
    RETURN NULL;
END
$$;
CREATE FUNCTION hasten_relations_of_tier() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hasten_relations(ARRAY(SELECT tenant_id FROM tenants WHERE tenants.tier = NEW.tier));
    RETURN NULL;
END
$$;
CREATE TRIGGER hasten_relations AFTER UPDATE OF tier, limits ON tenants
    FOR EACH ROW
    WHEN (OLD.tier <> NEW.tier OR OLD.limits -> 'relation_detections' IS DISTINCT FROM NEW.limits -> 'relation_detections')
    EXECUTE FUNCTION hasten_relations_of_tenant();
CREATE TRIGGER hasten_relations AFTER UPDATE OF limits, shadow ON tiers
    FOR EACH ROW
    WHEN (OLD.shadow <> NEW.shadow OR OLD.limits -> 'relation_detections' IS DISTINCT FROM NEW.limits -> 'relation_detections')
    EXECUTE FUNCTION hasten_relations_of_tier();

ALTER TABLE relation_slots ENABLE ROW LEVEL SECURITY;
ALTER TABLE relation_slots FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON relation_slots TO memoro_app
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY system_access ON relation_slots TO memoro_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON relation_slots TO memoro_app;
GRANT SELECT, DELETE ON relation_slots TO memoro_system;

-- What a tenant has stored. Rows of a tenant are added up; who writes at the same time writes into different ones.
CREATE TABLE tenant_usage (
    tenant_id uuid     NOT NULL,
    slot      smallint NOT NULL,
    memories  bigint   NOT NULL,
    bytes     bigint   NOT NULL,
    PRIMARY KEY (tenant_id, slot)
) WITH (fillfactor = 20);
COMMENT ON TABLE tenant_usage IS 'Only the sum over the slots of a tenant means something; a single one may be below zero.';
COMMENT ON COLUMN tenant_usage.bytes IS 'Of the texts and of the metadata as JSON.';

CREATE FUNCTION stored_bytes(text text, metadata jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN octet_length(text) + octet_length(metadata::text);

-- What is added is counted by the statements that add it: a trigger would have each row copied for it, with its lexemes, and make
-- them slower by a twentieth.
CREATE FUNCTION count_deleted_memories() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant_usage AS usage (tenant_id, slot, memories, bytes)
    SELECT tenant_id, pg_backend_pid() % 16, -count(*), -sum(stored_bytes(text, metadata)) FROM deleted GROUP BY tenant_id
    ON CONFLICT (tenant_id, slot)
        DO UPDATE SET memories = usage.memories + EXCLUDED.memories, bytes = usage.bytes + EXCLUDED.bytes;
    RETURN NULL;
END
$$;
CREATE FUNCTION count_changed_memory() RETURNS trigger
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant_usage AS usage (tenant_id, slot, memories, bytes)
    VALUES (NEW.tenant_id, pg_backend_pid() % 16, 0,
            stored_bytes(NEW.text, NEW.metadata) - stored_bytes(OLD.text, OLD.metadata))
    ON CONFLICT (tenant_id, slot) DO UPDATE SET bytes = usage.bytes + EXCLUDED.bytes;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_deleted AFTER DELETE ON memories REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_memories();
-- Only statements that name these columns: what jobs do to memories costs nothing.
CREATE TRIGGER count_changed AFTER UPDATE OF text, metadata ON memories
    FOR EACH ROW EXECUTE FUNCTION count_changed_memory();

-- What is there already. The owner sees it only while the walls are not forced on it.
ALTER TABLE memories NO FORCE ROW LEVEL SECURITY;
INSERT INTO tenant_usage (tenant_id, slot, memories, bytes)
SELECT tenant_id, 0, count(*), sum(stored_bytes(text, metadata)) FROM memories GROUP BY tenant_id;
ALTER TABLE memories FORCE ROW LEVEL SECURITY;

ALTER TABLE tenant_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON tenant_usage TO memoro_app
    USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()));
CREATE POLICY system_access ON tenant_usage TO memoro_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON tenant_usage TO memoro_app;
GRANT SELECT ON tenant_usage TO memoro_system;

------------------------------------------------------------------------------------------------------------------- billing

-- Takes a call whose answer was lost for one that used so much; what that costs. A function, so that each is found by its key:
-- of a tenant that came after the last ANALYZE, a join would read every call.
CREATE FUNCTION presume_call(
    of_tenant uuid, of_job uuid, of_attempt integer, number integer, used_input bigint, used_output bigint, at timestamptz)
    RETURNS bigint
    LANGUAGE sql VOLATILE AS $$
        UPDATE ai_calls
        SET state = 'PRESUMED', ended_at = at, input_tokens = used_input, output_tokens = used_output
        WHERE tenant_id = of_tenant AND job_id = of_job AND attempt = of_attempt AND call = number
        RETURNING cost_pico_dollars
    $$;

-- A payment that is sent again months later must not be booked twice.
ALTER TABLE idempotency_records ADD COLUMN kept boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN idempotency_records.kept IS 'It moved money: never forgotten.';
DROP INDEX idempotency_records_by_age;
CREATE INDEX idempotency_records_by_age ON idempotency_records (created_at) WHERE NOT kept;
-- An id is claimed before something is done that can't be taken back, and gets its answer afterwards.
GRANT UPDATE (answer) ON idempotency_records TO memoro_system;

-- What is committed on a day counts against a budget that is set in the middle of it.
CREATE INDEX credit_holds_by_day ON credit_holds USING brin (day);
GRANT UPDATE (scopes) ON credit_holds TO memoro_system;

-- What a provider charges for the vectors of questions: the house pays it, and no tenant.
CREATE TABLE question_costs (
    day               date   NOT NULL,
    tenant_id         uuid   NOT NULL,
    provider          text   NOT NULL,
    model             text   NOT NULL,
    calls             bigint NOT NULL,
    input_tokens      bigint NOT NULL,
    cost_pico_dollars bigint NOT NULL,
    PRIMARY KEY (day, tenant_id, provider, model)
);
GRANT SELECT, INSERT, UPDATE ON question_costs TO memoro_system;

---------------------------------------------------------------------------------------------------------------------- jobs

-- Of a tenant most of whose jobs wait for a later attempt, whoever looks for those that can begin reads only these.
ALTER TABLE jobs ADD COLUMN delayed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN jobs.delayed IS 'While it waits: for a later attempt, and the scheduler has not yet seen that its time has come.';
DROP INDEX jobs_waiting;
CREATE INDEX jobs_waiting ON jobs (delayed, tenant_id, user_id, rank_at) WHERE waiting;
CREATE INDEX jobs_delayed ON jobs (run_at) WHERE waiting AND delayed;

--------------------------------------------------------------------------------------------------------------------- audit

CREATE TABLE audit_events (
    event_id         uuid        PRIMARY KEY,
    at               timestamptz NOT NULL,
    method           text        NOT NULL,
    code             text        NOT NULL,
    reason           text        NOT NULL,
    actor_tenant_id  uuid        NOT NULL,
    actor_api_key_id uuid,
    actor_subject    text        NOT NULL,
    tenant_id        uuid        NOT NULL,
    request          text        NOT NULL,
    request_id       text        NOT NULL
);
COMMENT ON TABLE audit_events IS 'What operators did or tried, and what was done to credentials. Append only.';
COMMENT ON COLUMN audit_events.tenant_id IS 'Whom it was about; zeros: the whole deployment.';
CREATE INDEX audit_events_by_tenant ON audit_events (tenant_id, event_id);
CREATE INDEX audit_events_by_method ON audit_events (method, event_id);
CREATE INDEX audit_events_by_age ON audit_events (at);
GRANT SELECT, INSERT, DELETE ON audit_events TO memoro_system;

----------------------------------------------------------------------------------------------------------------- diagnosis

-- A server tells whether the schema is the one it was made for.
GRANT SELECT ON schema_migrations TO memoro_system;

------------------------------------------------------------------------------------------------------------------- isolation

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['daily_units', 'audit_events', 'question_costs']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY system_access ON %I TO memoro_system USING (true) WITH CHECK (true)', t);
    END LOOP;

    -- Who names no tenant sees nothing of the deployment's either.
    FOREACH t IN ARRAY ARRAY['budgets', 'budget_days', 'alerts']
    LOOP
        EXECUTE format(
            'ALTER POLICY tenant_isolation ON %1$I USING (%2$s) WITH CHECK (%2$s)', t,
            'tenant_id IN ((SELECT current_tenant()), '
            '(SELECT ''00000000-0000-0000-0000-000000000000''::uuid WHERE current_tenant() IS NOT NULL))');
    END LOOP;
END
$$;

-- migrate:down
