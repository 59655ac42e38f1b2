-- migrate:up

-- The embedding model whose vectors the deployment holds: at most one. It is no tenant's, and anybody may see it.
CREATE TABLE embedding_model (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    model      text        NOT NULL,
    dimensions integer     NOT NULL CHECK (dimensions > 0),
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE embedding_model IS 'Set with the first vector that is stored; a service that is set to another model refuses to start.';
GRANT SELECT, INSERT ON embedding_model TO memoro_app, memoro_system;

-- What a fact took the place of, for when that fact turns out to be unfounded.
CREATE INDEX relationships_by_successor ON relationships (tenant_id, superseded_by) WHERE superseded_by IS NOT NULL;

-- An entity's facts, newest first, so that a hub's are not all read to find those.
DROP INDEX relationships_by_source;
DROP INDEX relationships_by_target;
CREATE INDEX relationships_by_source ON relationships (tenant_id, source_entity_id, relationship_id);
CREATE INDEX relationships_by_target ON relationships (tenant_id, target_entity_id, relationship_id);

-- migrate:down
