-- Taking back what memories left in the graph. Runs within one tenant's transaction; but for the first two, with the lock of
-- the graph held, so that no row changes under a statement's hands.

-- name: users_of_memories
-- Whose graphs these memories are part of.
SELECT DISTINCT user_id FROM memories WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]);

-- name: lock_graphs
-- One lock per user, until the transaction ends; always in one order.
SELECT pg_advisory_xact_lock(key)
FROM (SELECT DISTINCT hashtextextended($1::uuid || ' ' || user_id, 0) AS key
      FROM unnest($2::text[]) AS graph (user_id)
      ORDER BY key) AS graphs;

-- name: remove_embeddings
-- Vectors of texts that are gone or changed.
DELETE FROM memory_embeddings WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]);

-- name: remove_mentions
-- Returns the entities that these memories mentioned.
WITH removed AS (
    DELETE FROM mentions WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]) RETURNING entity_id
)
SELECT DISTINCT entity_id FROM removed;

-- name: remove_sources
-- Returns the facts that these memories stated.
WITH removed AS (
    DELETE FROM relationship_sources WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]) RETURNING relationship_id
)
SELECT DISTINCT relationship_id FROM removed;

-- name: remove_unfounded
-- Deletes those of these facts that no memory states any more.
DELETE FROM relationships AS fact
WHERE fact.tenant_id = $1
  AND fact.relationship_id = ANY ($2::uuid[])
  AND NOT EXISTS (
      SELECT FROM relationship_sources AS source
      WHERE source.tenant_id = $1 AND source.relationship_id = fact.relationship_id)
RETURNING fact.relationship_id;

-- name: mend_superseded
-- What the deleted facts $2 had taken the place of gives way to the next fact in line, or, when there is none, stands again.
UPDATE relationships AS old
SET valid_to = heir.valid_from, superseded_by = heir.relationship_id
FROM (
    SELECT left_over.relationship_id AS old_id, next.relationship_id, next.valid_from
    FROM relationships AS left_over
    LEFT JOIN LATERAL (
        SELECT other.relationship_id, greatest(other.valid_from, left_over.valid_from) AS valid_from
        FROM relationships AS other
        WHERE other.tenant_id = $1
          AND other.source_entity_id = left_over.source_entity_id
          AND other.predicate = left_over.predicate
          AND other.relationship_id <> left_over.relationship_id
          AND (other.valid_from > left_over.valid_from
               OR (other.target_entity_id = left_over.target_entity_id AND other.valid_to IS NULL))
        ORDER BY other.valid_from, other.relationship_id
        LIMIT 1) AS next ON true
    WHERE left_over.tenant_id = $1 AND left_over.superseded_by = ANY ($2::uuid[])) AS heir
WHERE old.tenant_id = $1 AND old.relationship_id = heir.old_id;

-- name: remove_orphans
-- Deletes those of these entities that nothing mentions and no fact is about.
DELETE FROM entities AS entity
WHERE entity.tenant_id = $1
  AND entity.entity_id = ANY ($2::uuid[])
  AND NOT EXISTS (
      SELECT FROM mentions WHERE mentions.tenant_id = $1 AND mentions.entity_id = entity.entity_id)
  AND NOT EXISTS (
      SELECT FROM relationships AS fact WHERE fact.tenant_id = $1 AND fact.source_entity_id = entity.entity_id)
  AND NOT EXISTS (
      SELECT FROM relationships AS fact WHERE fact.tenant_id = $1 AND fact.target_entity_id = entity.entity_id);
