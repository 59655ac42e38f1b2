-- migrate:up

CREATE EXTENSION IF NOT EXISTS vector;

-- Roles. Services log in as a role of their own (see `memoro migrate`), which is a member of both:
--   memoro_app     a tenant's data, one tenant at a time, under row-level security;
--   memoro_system  the queue and the credentials of all tenants, taken on for one transaction at a time; sees no memory.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'memoro_app') THEN
        CREATE ROLE memoro_app NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'memoro_system') THEN
        CREATE ROLE memoro_system NOLOGIN;
    END IF;
END
$$;

-- The tenant of this transaction, or NULL: then no row is visible and none can be written.
CREATE FUNCTION current_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(current_setting('app.tenant_id', true), '')::uuid;

------------------------------------------------------------------------------------------------------------------ tenancy

CREATE TABLE tenants (
    tenant_id    uuid        PRIMARY KEY,
    name         text        NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    display_name text        NOT NULL,
    tier         text        NOT NULL CHECK (tier IN ('free', 'pro', 'enterprise')),
    state        text        NOT NULL CHECK (state IN ('ACTIVE', 'SUSPENDED')),
    is_operator  boolean     NOT NULL DEFAULT false,
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);
COMMENT ON COLUMN tenants.is_operator IS 'The tenant of the people who run the service: only its keys may have the scope admin.';
CREATE UNIQUE INDEX tenants_one_operator ON tenants (is_operator) WHERE is_operator;

CREATE TABLE api_keys (
    tenant_id    uuid        NOT NULL REFERENCES tenants,
    api_key_id   uuid        NOT NULL,
    display_name text        NOT NULL,
    prefix       text        NOT NULL UNIQUE,
    secret_hash  bytea       NOT NULL CHECK (octet_length(secret_hash) = 32),
    scopes       text[]      NOT NULL CHECK (scopes <@ ARRAY['read', 'write', 'jobs', 'admin']),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    PRIMARY KEY (tenant_id, api_key_id)
);
COMMENT ON COLUMN api_keys.prefix IS 'Public; unique over all tenants, because it is what a caller is recognised by.';
COMMENT ON COLUMN api_keys.secret_hash IS 'SHA-256 of the secret, which is 256 random bits, so that a slow hash would add nothing.';

----------------------------------------------------------------------------------------------------------------- memories

-- What an accepted call writes (conversations, memories, jobs, job_events, idempotency_records) refers to its tenant and its
-- job without foreign keys: the tenant comes from a verified credential, and a key-share lock on one tenant's row would make
-- all of its callers meet there.

CREATE TABLE conversations (
    tenant_id       uuid        NOT NULL,
    user_id         text        NOT NULL,
    conversation_id text        NOT NULL,
    next_position   integer     NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, conversation_id)
);

CREATE TABLE memories (
    tenant_id       uuid        NOT NULL,
    memory_id       uuid        NOT NULL,
    user_id         text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('TEXT', 'MESSAGE')),
    text            text        NOT NULL,
    content_hash    bytea       NOT NULL,
    metadata        jsonb       NOT NULL DEFAULT '{}',
    status          text        NOT NULL CHECK (status IN ('PENDING', 'READY', 'FAILED')),
    conversation_id text,
    position        integer     NOT NULL DEFAULT 0,
    role            text        CHECK (role IN ('USER', 'ASSISTANT', 'SYSTEM', 'TOOL')),
    speaker         text,
    occurred_at     timestamptz NOT NULL,
    job_id          uuid        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    lexemes         tsvector    GENERATED ALWAYS AS
        (to_tsvector('english'::regconfig, coalesce(speaker, '') || ' ' || text)) STORED,
    PRIMARY KEY (tenant_id, memory_id)
);
CREATE INDEX memories_by_user ON memories (tenant_id, user_id, memory_id);
CREATE UNIQUE INDEX memories_by_conversation ON memories (tenant_id, user_id, conversation_id, position)
    WHERE conversation_id IS NOT NULL;
CREATE INDEX memories_by_time ON memories (tenant_id, user_id, occurred_at);
-- No GIN index over the lexemes: `@@` is not leakproof, so under row-level security no plan may use it. A search reads the
-- lexemes of one user, by memories_by_user.

CREATE TABLE memory_embeddings (
    tenant_id  uuid        NOT NULL,
    memory_id  uuid        NOT NULL,
    user_id    text        NOT NULL,
    model      text        NOT NULL,
    embedding  vector      NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, memory_id),
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memories ON DELETE CASCADE
);
COMMENT ON COLUMN memory_embeddings.model IS 'provider/name@dimensions. Only vectors of one model are ever compared.';
CREATE INDEX memory_embeddings_by_user ON memory_embeddings (tenant_id, user_id);
-- One index per dimension in use, never per tenant; `memoro migrate` adds the configured model's.
CREATE INDEX memory_embeddings_hnsw_256 ON memory_embeddings
    USING hnsw ((embedding::vector(256)) vector_cosine_ops) WHERE vector_dims(embedding) = 256;

-------------------------------------------------------------------------------------------------------------------- graph

CREATE TABLE entities (
    tenant_id       uuid        NOT NULL,
    entity_id       uuid        NOT NULL,
    user_id         text        NOT NULL,
    type            text        NOT NULL,
    name            text        NOT NULL,
    normalized_name text        NOT NULL,
    aliases         text[]      NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, entity_id),
    UNIQUE (tenant_id, user_id, type, normalized_name)
);
CREATE INDEX entities_by_name ON entities (tenant_id, user_id, normalized_name text_pattern_ops, entity_id);
CREATE INDEX entities_by_tenant_name ON entities (tenant_id, normalized_name text_pattern_ops, entity_id);

CREATE TABLE entity_aliases (
    tenant_id       uuid NOT NULL,
    user_id         text NOT NULL,
    normalized_name text NOT NULL,
    entity_id       uuid NOT NULL,
    PRIMARY KEY (tenant_id, user_id, normalized_name, entity_id),
    FOREIGN KEY (tenant_id, entity_id) REFERENCES entities ON DELETE CASCADE
);
COMMENT ON TABLE entity_aliases IS 'Every name of every entity, its own included: what a name is looked up in.';
CREATE INDEX entity_aliases_by_entity ON entity_aliases (tenant_id, entity_id);
CREATE INDEX entity_aliases_by_prefix ON entity_aliases (tenant_id, user_id, normalized_name text_pattern_ops);

CREATE TABLE mentions (
    tenant_id uuid NOT NULL,
    memory_id uuid NOT NULL,
    entity_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, memory_id, entity_id),
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memories ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, entity_id) REFERENCES entities ON DELETE CASCADE
);
CREATE INDEX mentions_by_entity ON mentions (tenant_id, entity_id, memory_id);

CREATE TABLE relationships (
    tenant_id        uuid        NOT NULL,
    relationship_id  uuid        NOT NULL,
    user_id          text        NOT NULL,
    source_entity_id uuid        NOT NULL,
    predicate        text        NOT NULL,
    target_entity_id uuid        NOT NULL,
    confidence       real        NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    valid_from       timestamptz NOT NULL,
    valid_to         timestamptz,
    superseded_by    uuid,
    created_at       timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, relationship_id),
    FOREIGN KEY (tenant_id, source_entity_id) REFERENCES entities ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, target_entity_id) REFERENCES entities ON DELETE CASCADE
);
-- One standing fact per triple; a superseded one makes room for its return.
CREATE UNIQUE INDEX relationships_standing ON relationships (tenant_id, source_entity_id, predicate, target_entity_id)
    WHERE superseded_by IS NULL AND valid_to IS NULL;
CREATE INDEX relationships_by_source ON relationships (tenant_id, source_entity_id);
CREATE INDEX relationships_by_target ON relationships (tenant_id, target_entity_id);

CREATE TABLE relationship_sources (
    tenant_id       uuid NOT NULL,
    relationship_id uuid NOT NULL,
    memory_id       uuid NOT NULL,
    PRIMARY KEY (tenant_id, relationship_id, memory_id),
    FOREIGN KEY (tenant_id, relationship_id) REFERENCES relationships ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, memory_id) REFERENCES memories ON DELETE CASCADE
);
COMMENT ON TABLE relationship_sources IS 'Provenance: which memories state a fact.';
CREATE INDEX relationship_sources_by_memory ON relationship_sources (tenant_id, memory_id);

--------------------------------------------------------------------------------------------------------------------- jobs

CREATE TABLE jobs (
    tenant_id        uuid        NOT NULL,
    job_id           uuid        NOT NULL,
    kind             text        NOT NULL,
    state            text        NOT NULL
        CHECK (state IN ('QUEUED', 'DEFERRED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    priority         smallint    NOT NULL CHECK (priority BETWEEN 1 AND 3),
    user_id          text        NOT NULL,
    memory_ids       uuid[]      NOT NULL,
    stages           jsonb       NOT NULL,
    partial          boolean     NOT NULL DEFAULT false,
    attempt          integer     NOT NULL DEFAULT 0,
    max_attempts     integer     NOT NULL CHECK (max_attempts > 0),
    run_at           timestamptz NOT NULL,
    run_lease        bigint      NOT NULL DEFAULT 0,
    lease_expires_at timestamptz,
    worker_id        text,
    hinted_at        timestamptz,
    cancel_requested boolean     NOT NULL DEFAULT false,
    last_seq         bigint      NOT NULL,
    input_tokens     bigint      NOT NULL DEFAULT 0,
    output_tokens    bigint      NOT NULL DEFAULT 0,
    error            jsonb,
    result           jsonb,
    created_at       timestamptz NOT NULL,
    started_at       timestamptz,
    ended_at         timestamptz,
    PRIMARY KEY (tenant_id, job_id),
    CHECK ((state = 'RUNNING') = (lease_expires_at IS NOT NULL)),
    CHECK ((state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')) = (ended_at IS NOT NULL)),
    CHECK (attempt <= max_attempts)
);
COMMENT ON COLUMN jobs.run_lease IS 'Goes up with each claim; every write of a running job names the lease it holds, so a stale worker touches nothing.';
CREATE INDEX jobs_by_user ON jobs (tenant_id, user_id, job_id);
CREATE INDEX jobs_by_state ON jobs (tenant_id, state, job_id);
-- The queue of all tenants, which only memoro_system reads: small, because ended jobs leave it.
CREATE INDEX jobs_queued ON jobs (priority DESC, run_at) WHERE state = 'QUEUED';
CREATE INDEX jobs_leased ON jobs (lease_expires_at) WHERE state = 'RUNNING';

CREATE TABLE job_events (
    tenant_id  uuid        NOT NULL,
    job_id     uuid        NOT NULL,
    seq        bigint      NOT NULL,
    event      jsonb       NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, job_id, seq)
);

------------------------------------------------------------------------------------------------------------- idempotency

CREATE TABLE idempotency_records (
    tenant_id   uuid        NOT NULL,
    request_id  text        NOT NULL,
    fingerprint bytea       NOT NULL,
    answer      jsonb       NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, request_id)
);
COMMENT ON COLUMN idempotency_records.fingerprint IS 'SHA-256 of the method and the payload without its request id.';
COMMENT ON COLUMN idempotency_records.answer IS 'The ids of what the call made; the rows tell the rest.';
-- For forgetting old ones, whosever they are.
CREATE INDEX idempotency_records_by_age ON idempotency_records (created_at);

--------------------------------------------------------------------------------------------------------------- isolation

-- Row-level security on every table that has a tenant, forced, so that not even the owner sees past it.
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY[
        'tenants', 'api_keys', 'conversations', 'memories', 'memory_embeddings', 'entities', 'entity_aliases', 'mentions',
        'relationships', 'relationship_sources', 'jobs', 'job_events', 'idempotency_records']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I TO memoro_app '
            'USING (tenant_id = (SELECT current_tenant())) WITH CHECK (tenant_id = (SELECT current_tenant()))', t);
    END LOOP;

    -- What crosses tenants: credentials and tenants (authentication, administration), and the queue.
    FOREACH t IN ARRAY ARRAY['tenants', 'api_keys', 'jobs', 'job_events', 'idempotency_records']
    LOOP
        EXECUTE format('CREATE POLICY system_access ON %I TO memoro_system USING (true) WITH CHECK (true)', t);
    END LOOP;
END
$$;

GRANT SELECT ON tenants TO memoro_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    conversations, memories, memory_embeddings, entities, entity_aliases, mentions, relationships, relationship_sources,
    jobs, job_events, idempotency_records
    TO memoro_app;

GRANT SELECT, INSERT, UPDATE ON tenants, api_keys TO memoro_system;
GRANT SELECT, UPDATE ON jobs TO memoro_system;
GRANT SELECT, INSERT ON job_events TO memoro_system;
GRANT SELECT, INSERT, DELETE ON idempotency_records TO memoro_system;

-- migrate:down
