-- Enriching memories: what a job reads before it asks the providers, and the one transaction that commits what they found.
-- Runs within one tenant's transaction. Arrays are parallel.

-- name: load_enrichable
-- Those of these memories that are still this job's, with up to three turns before each, oldest first; and for how many jobs of a
-- user entities and facts may be found in an hour. Where the tier's limits are only counted, that is not limited.
SELECT memory_id, user_id, kind, text, metadata, status, conversation_id, position, role, speaker, occurred_at, job_id, version,
       created_at, updated_at,
       ARRAY(
           SELECT concat(turn.speaker || ': ', left(turn.text, 500))
           FROM memories AS turn
           WHERE turn.tenant_id = $1
             AND turn.user_id = memories.user_id
             AND turn.conversation_id = memories.conversation_id
             AND turn.position BETWEEN memories.position - 3 AND memories.position - 1
           ORDER BY turn.position) AS preceding,
       (SELECT ((tiers.limits || tenants.limits) ->> 'relation_detections')::integer
        FROM tenants
        JOIN tiers USING (tier)
        WHERE tenants.tenant_id = $1 AND NOT tiers.shadow) AS relation_detections
FROM memories
WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]) AND job_id = $3;

-- name: find_entities
-- Entities of a user that have one of the names $3, and persons whose name begins with one of the first names $4 (at most
-- three each: two are enough to know that a first name does not tell). All names are normalised.
SELECT entity.type, entity.name, alias.normalized_name AS alias
FROM entity_aliases AS alias
JOIN entities AS entity USING (tenant_id, entity_id)
WHERE alias.tenant_id = $1 AND alias.user_id = $2 AND alias.normalized_name = ANY ($3::text[])
UNION
SELECT person.type, person.name, person.normalized_name
FROM unnest($4::text[]) AS first (name)
CROSS JOIN LATERAL (
    -- '!' comes right after the space, so that this is the range of all names that begin with the first name and a space.
    SELECT type, name, normalized_name
    FROM entities
    WHERE tenant_id = $1 AND user_id = $2 AND type = 'PERSON'
      AND normalized_name ~>=~ (first.name || ' ') AND normalized_name ~<~ (first.name || '!')
    ORDER BY normalized_name USING ~<~
    LIMIT 3) AS person;

-- name: hold_memories
-- Those of these memories that are still this job's, held until the transaction ends; always in one order.
SELECT memory_id, version
FROM memories
WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]) AND job_id = $3
ORDER BY memory_id
FOR UPDATE;

-- name: store_vectors
-- Vectors of memories, one each.
INSERT INTO memory_embeddings (tenant_id, memory_id, user_id, model, embedding, created_at)
SELECT $1, memory_id, $2, $3, embedding, $6
FROM unnest($4::uuid[], $5::vector[]) AS item (memory_id, embedding)
ON CONFLICT (tenant_id, memory_id)
    DO UPDATE SET model = EXCLUDED.model, embedding = EXCLUDED.embedding, created_at = EXCLUDED.created_at;

-- name: make_ready
-- The memories are enriched. What is left to another job, $4, becomes that one's.
UPDATE memories SET status = 'READY', updated_at = $3, job_id = coalesce($4, job_id) WHERE tenant_id = $1 AND memory_id = ANY ($2::uuid[]);

-- name: store_entities
-- Entities, new or known by type and name; $7 is a JSON array with an array of other names for each. Returns all of them with
-- their ids.
INSERT INTO entities (tenant_id, entity_id, user_id, type, name, normalized_name, aliases, created_at, updated_at)
SELECT $1, entity_id, $2, type, name, normalized_name, ARRAY(SELECT jsonb_array_elements_text($7::jsonb -> (place::integer - 1))), $8, $8
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
    AS item (entity_id, type, name, normalized_name, place)
ON CONFLICT (tenant_id, user_id, type, normalized_name) DO UPDATE
SET updated_at = EXCLUDED.updated_at,
    aliases = ARRAY(
        SELECT alias
        FROM (SELECT alias, min(place) AS place
              FROM unnest(entities.aliases || EXCLUDED.aliases) WITH ORDINALITY AS seen (alias, place)
              WHERE alias <> entities.name
              GROUP BY alias) AS seen
        ORDER BY place
        LIMIT 50)
RETURNING entity_id, type, normalized_name;

-- name: store_aliases
-- What entities are looked up by.
INSERT INTO entity_aliases (tenant_id, user_id, normalized_name, entity_id)
SELECT $1, $2, normalized_name, entity_id
FROM unnest($3::text[], $4::uuid[]) AS item (normalized_name, entity_id)
ON CONFLICT DO NOTHING;

-- name: store_mentions
-- Which memory mentions which entity.
INSERT INTO mentions (tenant_id, memory_id, entity_id)
SELECT $1, memory_id, entity_id FROM unnest($2::uuid[], $3::uuid[]) AS item (memory_id, entity_id)
ON CONFLICT DO NOTHING;

-- name: store_facts
-- Facts, each with a fresh id for the case that it is new. It is known when it stands already, when it had stood at the time
-- that it is now told of, or when it is told to have ended just then: that makes the known one surer, and perhaps older.
-- Returns the ids that the facts have, by their place.
WITH item AS (
    SELECT *
    FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::real[], $8::timestamptz[], $9::timestamptz[])
        WITH ORDINALITY
        AS item (relationship_id, source_id, predicate, target_id, confidence, valid_from, valid_to, place)
), known AS (
    SELECT DISTINCT ON (item.place)
           item.place, fact.relationship_id, item.confidence, least(fact.valid_from, item.valid_from) AS valid_from
    FROM item
    JOIN relationships AS fact
      ON fact.tenant_id = $1 AND fact.source_entity_id = item.source_id AND fact.predicate = item.predicate
     AND fact.target_entity_id = item.target_id
    WHERE CASE WHEN item.valid_to IS NULL
               THEN fact.valid_to IS NULL OR (fact.superseded_by IS NOT NULL AND item.valid_from < fact.valid_to)
               ELSE fact.valid_to = item.valid_to END
    ORDER BY item.place, fact.valid_to, fact.relationship_id
), raised AS (
    UPDATE relationships AS fact
    SET confidence = greatest(fact.confidence, surer.confidence), valid_from = surer.valid_from
    FROM (SELECT relationship_id, max(confidence) AS confidence, min(valid_from) AS valid_from
          FROM known
          GROUP BY relationship_id) AS surer
    WHERE fact.tenant_id = $1 AND fact.relationship_id = surer.relationship_id
), added AS (
    INSERT INTO relationships (tenant_id, relationship_id, user_id, source_entity_id, predicate, target_entity_id, confidence,
                               valid_from, valid_to, created_at)
    SELECT $1, relationship_id, $2, source_id, predicate, target_id, confidence, valid_from, valid_to, $10
    FROM item
    WHERE place NOT IN (SELECT place FROM known)
)
SELECT item.place, coalesce(known.relationship_id, item.relationship_id) AS relationship_id
FROM item
LEFT JOIN known USING (place)
ORDER BY item.place;

-- name: store_sources
-- Which memory states which fact.
INSERT INTO relationship_sources (tenant_id, relationship_id, memory_id)
SELECT $1, relationship_id, memory_id FROM unnest($2::uuid[], $3::uuid[]) AS item (relationship_id, memory_id)
ON CONFLICT DO NOTHING;

-- name: supersede
-- Of the standing facts with these sources and predicates, which hold one target at a time, each ends where the next begins.
-- Returns those that do.
UPDATE relationships AS old
SET valid_to = heir.valid_from, superseded_by = heir.relationship_id
FROM (SELECT DISTINCT source_id, predicate FROM unnest($2::uuid[], $3::text[]) AS item (source_id, predicate)) AS item
JOIN relationships AS standing
  ON standing.tenant_id = $1 AND standing.source_entity_id = item.source_id AND standing.predicate = item.predicate
 AND standing.valid_to IS NULL
CROSS JOIN LATERAL (
    SELECT next.relationship_id, next.valid_from
    FROM relationships AS next
    WHERE next.tenant_id = $1
      AND next.source_entity_id = item.source_id
      AND next.predicate = item.predicate
      AND next.target_entity_id <> standing.target_entity_id
      AND next.valid_to IS NULL
      AND next.valid_from > standing.valid_from
    ORDER BY next.valid_from, next.relationship_id
    LIMIT 1) AS heir
WHERE old.tenant_id = $1 AND old.relationship_id = standing.relationship_id
RETURNING old.relationship_id;
