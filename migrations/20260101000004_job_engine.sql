-- migrate:up

-------------------------------------------------------------------------------------------------------------------- tiers

CREATE TABLE tiers (
    tier             text        PRIMARY KEY CHECK (tier ~ '^[a-z][a-z0-9-]{0,31}$'),
    weight           integer     NOT NULL CHECK (weight BETWEEN 1 AND 1000),
    tenant_in_flight integer     NOT NULL CHECK (tenant_in_flight > 0),
    user_in_flight   integer     NOT NULL CHECK (user_in_flight > 0),
    open_streams     integer     NOT NULL CHECK (open_streams > 0),
    kept_succeeded   interval,
    kept_failed      interval,
    queue_paused_at  timestamptz
);
COMMENT ON TABLE tiers IS 'What the tenants of a tier may do at once, and how they share the workers. Each tier is a queue.';
COMMENT ON COLUMN tiers.weight IS 'The share of a tenant of this tier in the workers against tenants of others, when all have jobs waiting.';
COMMENT ON COLUMN tiers.tenant_in_flight IS 'Jobs of one tenant that may run at once.';
COMMENT ON COLUMN tiers.user_in_flight IS 'Jobs of one user of a tenant that may run at once.';
COMMENT ON COLUMN tiers.open_streams IS 'Watches that one tenant may have open on one server process.';
COMMENT ON COLUMN tiers.kept_succeeded IS 'How long jobs are kept that succeeded or were cancelled; NULL: as long as the setting says.';
COMMENT ON COLUMN tiers.kept_failed IS 'How long failed jobs are kept; NULL: as long as the setting says.';
INSERT INTO tiers (tier, weight, tenant_in_flight, user_in_flight, open_streams) VALUES
    ('free', 1, 8, 4, 100),
    ('pro', 4, 64, 16, 1000),
    ('enterprise', 16, 512, 64, 5000);

ALTER TABLE tenants DROP CONSTRAINT tenants_tier_check;
ALTER TABLE tenants ADD FOREIGN KEY (tier) REFERENCES tiers;

GRANT SELECT ON tiers TO memoro_app, memoro_system;
GRANT UPDATE (queue_paused_at) ON tiers TO memoro_system;

--------------------------------------------------------------------------------------------------------------------- jobs

-- When a waiting job's turn comes among those of its user and tenant: the earliest first. Priority is a head start, so that no
-- job waits for ever behind more urgent ones that keep coming. What was put off comes after all that waits when it is let go.
CREATE FUNCTION job_rank(run_at timestamptz, priority smallint, deferred_at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN run_at + make_interval(secs => CASE WHEN deferred_at IS NULL THEN (3 - priority) * 30 ELSE 600 END);

ALTER TABLE jobs
    ADD COLUMN retry_of     uuid,
    ADD COLUMN trace_parent text,
    ADD COLUMN deferred_at  timestamptz,
    ADD COLUMN run_deadline timestamptz,
    ADD COLUMN rank_at      timestamptz GENERATED ALWAYS AS (job_rank(run_at, priority, deferred_at)) STORED,
    ADD COLUMN in_flight    boolean     GENERATED ALWAYS AS
        (state = 'RUNNING' OR (state = 'QUEUED' AND hinted_at IS NOT NULL)) STORED;
COMMENT ON COLUMN jobs.retry_of IS 'The ended job whose work this one does again.';
COMMENT ON COLUMN jobs.trace_parent IS 'The W3C trace context of the call that made the job: its runs are part of that trace.';
COMMENT ON COLUMN jobs.deferred_at IS 'When the job was put off last; stays when it is let go.';
COMMENT ON COLUMN jobs.run_deadline IS 'A lease is never extended beyond this: so a run whose worker hangs but lives ends too.';
COMMENT ON COLUMN jobs.rank_at IS 'Waiting jobs of a user or a tenant are taken in this order.';
COMMENT ON COLUMN jobs.hinted_at IS 'When workers were last told of a QUEUED job; NULL: it waits for the scheduler to choose it.';
COMMENT ON COLUMN jobs.in_flight IS 'It runs, or workers have been told of it: what counts against the caps of its tier.';

DROP INDEX jobs_queued;
-- The queue of all tenants, which only memoro_system reads as a whole: small, because ended jobs leave it.
CREATE INDEX jobs_waiting ON jobs (tenant_id, user_id, rank_at) WHERE state = 'QUEUED' AND hinted_at IS NULL;
CREATE INDEX jobs_hinted ON jobs (hinted_at) WHERE state = 'QUEUED' AND hinted_at IS NOT NULL;
CREATE INDEX jobs_in_flight ON jobs (tenant_id, user_id) WHERE in_flight;
CREATE INDEX jobs_deferred ON jobs (run_at) WHERE state = 'DEFERRED';
-- What ended when: for the day's figures, and for forgetting what is old.
CREATE INDEX jobs_ended ON jobs (ended_at, state) INCLUDE (tenant_id) WHERE ended_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_retry_of ON jobs (tenant_id, retry_of) WHERE retry_of IS NOT NULL;

-- The order of all events of a tenant, for those who follow all of its jobs. Transactions commit in another order than they
-- begin; an event may be told when no transaction is left that began before its own (pg_snapshot_xmin), and then none can come
-- before it.
ALTER TABLE job_events ADD COLUMN transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX job_events_in_order ON job_events (tenant_id, transaction_id, job_id, seq);

GRANT DELETE ON jobs, job_events TO memoro_system;

------------------------------------------------------------------------------------------------------------------ workers

CREATE TABLE workers (
    worker_id   text        PRIMARY KEY,
    host        text        NOT NULL,
    process_id  integer     NOT NULL,
    version     text        NOT NULL,
    concurrency integer     NOT NULL CHECK (concurrency > 0),
    stopping    boolean     NOT NULL DEFAULT false,
    started_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL
);
COMMENT ON TABLE workers IS 'Processes that run jobs, as each last told of itself. No job depends on it.';

-- Recurring work: who inserts the row does the work, so that each time comes once, whatever the number of schedulers.
CREATE TABLE schedule_fires (
    schedule   text        NOT NULL,
    fire_at    timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    PRIMARY KEY (schedule, fire_at)
);
COMMENT ON COLUMN schedule_fires.ended_at IS 'NULL long after started_at: its worker was lost, and another may take it over.';

GRANT SELECT, INSERT, UPDATE, DELETE ON workers, schedule_fires TO memoro_system;

-- migrate:down
