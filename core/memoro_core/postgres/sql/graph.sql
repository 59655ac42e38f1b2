-- Reading the graph. Runs within one tenant's transaction.
--
-- Names are compared by code point (`~<~` and the like), as the indexes have them: a prefix is a range, and row-level security
-- lets these operators into an index scan, which it does not do with LIKE.

-- name: list_entities
-- By name, from behind ($6, $7) on; $4 and $5 are the range in which one of an entity's names has to be. NULL fits all.
WITH page AS MATERIALIZED (
    SELECT entity_id, user_id, type, name, normalized_name, aliases, created_at, updated_at
    FROM entities
    WHERE tenant_id = $1
      AND ($2::text IS NULL OR user_id = $2)
      AND ($3::text IS NULL OR type = $3)
      AND ($4::text IS NULL OR entity_id IN (
          SELECT entity_id
          FROM entity_aliases AS alias
          WHERE alias.tenant_id = $1
            AND ($2::text IS NULL OR alias.user_id = $2)
            AND alias.normalized_name ~>=~ $4
            AND ($5::text IS NULL OR alias.normalized_name ~<~ $5)))
      AND ($6::text IS NULL OR (normalized_name ~>=~ $6 AND (normalized_name ~>~ $6 OR entity_id > $7)))
    ORDER BY normalized_name USING ~<~, entity_id
    LIMIT $8
)
SELECT entity_id, user_id, type, name, normalized_name, aliases, created_at, updated_at,
       (SELECT count(*) FROM mentions WHERE mentions.tenant_id = $1 AND mentions.entity_id = page.entity_id) AS mention_count
FROM page
ORDER BY normalized_name USING ~<~, entity_id;

-- name: get_entities
-- Entities by id, in no order; those that are gone are left out.
SELECT entity.*,
       (SELECT count(*) FROM mentions WHERE mentions.tenant_id = $1 AND mentions.entity_id = entity.entity_id)
           AS mention_count
FROM (SELECT DISTINCT unnest($2::uuid[]) AS id) AS wanted
-- One by one: of a tenant that it thinks small the planner would read all entities.
CROSS JOIN LATERAL (
    SELECT entity_id, user_id, type, name, normalized_name, aliases, created_at, updated_at
    FROM entities
    WHERE tenant_id = $1 AND entity_id = wanted.id
    LIMIT 1) AS entity;

-- name: memories_of_entity
-- The memories that mention an entity, newest first.
SELECT memory_id FROM mentions WHERE tenant_id = $1 AND entity_id = $2 ORDER BY memory_id DESC LIMIT $3;

-- name: facts_of_entity
-- Ids of an entity's facts, newest first: each direction from its index, no more than asked for.
SELECT relationship_id
FROM ((SELECT relationship_id
       FROM relationships
       WHERE tenant_id = $1 AND source_entity_id = $2
       ORDER BY relationship_id DESC
       LIMIT $3)
      UNION
      (SELECT relationship_id
       FROM relationships
       WHERE tenant_id = $1 AND target_entity_id = $2
       ORDER BY relationship_id DESC
       LIMIT $3)) AS fact
ORDER BY relationship_id DESC
LIMIT $3;

-- name: get_relationships
-- Facts by id, newest first, with the names of both ends and the newest 20 memories behind each.
SELECT relationship_id, source_entity_id, source.name AS source_name, predicate, target_entity_id, target.name AS target_name,
       confidence, valid_from, valid_to, superseded_by, fact.created_at,
       ARRAY(SELECT memory_id
             FROM relationship_sources AS stated
             WHERE stated.tenant_id = $1 AND stated.relationship_id = fact.relationship_id
             ORDER BY memory_id DESC
             LIMIT 20) AS memory_ids
FROM (SELECT DISTINCT unnest($2::uuid[]) AS id) AS wanted
-- One by one: of a tenant that it thinks small the planner would read all facts.
CROSS JOIN LATERAL (SELECT * FROM relationships WHERE tenant_id = $1 AND relationship_id = wanted.id LIMIT 1) AS fact
JOIN entities AS source ON source.tenant_id = $1 AND source.entity_id = fact.source_entity_id
JOIN entities AS target ON target.tenant_id = $1 AND target.entity_id = fact.target_entity_id
ORDER BY relationship_id DESC;

-- name: find_starts
-- Entities of a user by id $3 or by normalised name $4, the oldest first.
SELECT entity_id FROM entities WHERE tenant_id = $1 AND user_id = $2 AND entity_id = ANY ($3::uuid[])
UNION
SELECT entity_id FROM entity_aliases WHERE tenant_id = $1 AND user_id = $2 AND normalized_name = ANY ($4::text[])
ORDER BY entity_id;

-- name: walk
-- Breadth first from $2, $3 steps at most, along the predicates $4 (empty: all), as the facts stood at $5, outwards ($6) and
-- inwards ($7), until more than $8 entities are known. A row per step, which carries whom the walk reached in it and ever, so
-- that it never comes back to anybody. No step looks at more than the newest $9 facts of one entity in one direction, nor at
-- more than $10 in all; `cut` tells that there may have been more.
WITH RECURSIVE walk AS (
    SELECT 0 AS depth, $2::uuid[] AS reached, $2::uuid[] AS known, false AS cut
    UNION ALL
    SELECT walk.depth + 1, step.reached, walk.known || step.reached, step.cut
    FROM walk
    CROSS JOIN LATERAL (
        WITH edge AS MATERIALIZED (
            SELECT fact.entity_id, fact.listed, fact.fits, row_number() OVER () AS place
            FROM unnest(walk.reached) AS tip (entity_id)
            CROSS JOIN LATERAL (
                (SELECT target_entity_id AS entity_id, row_number() OVER (ORDER BY relationship_id DESC) AS listed,
                        (cardinality($4::text[]) = 0 OR predicate = ANY ($4))
                            AND valid_from <= $5 AND (valid_to IS NULL OR valid_to > $5) AS fits
                 FROM relationships
                 WHERE $6 AND tenant_id = $1 AND source_entity_id = tip.entity_id
                 ORDER BY relationship_id DESC
                 LIMIT $9)
                UNION ALL
                (SELECT source_entity_id, row_number() OVER (ORDER BY relationship_id DESC),
                        (cardinality($4::text[]) = 0 OR predicate = ANY ($4))
                            AND valid_from <= $5 AND (valid_to IS NULL OR valid_to > $5)
                 FROM relationships
                 WHERE $7 AND tenant_id = $1 AND target_entity_id = tip.entity_id
                 ORDER BY relationship_id DESC
                 LIMIT $9)) AS fact
            LIMIT $10
        )
        SELECT ARRAY(
                   SELECT entity_id
                   FROM edge
                   WHERE fits AND entity_id <> ALL (walk.known)
                   GROUP BY entity_id
                   ORDER BY min(place)
                   LIMIT $8 + 1 - cardinality(walk.known)) AS reached,
               (SELECT coalesce(max(listed) >= $9 OR count(*) >= $10, false) FROM edge) AS cut) AS step
    WHERE walk.depth < $3 AND cardinality(walk.reached) > 0 AND cardinality(walk.known) <= $8
)
SELECT depth, reached, cut FROM walk ORDER BY depth;

-- name: facts_between
-- Ids of the facts between these entities that are along the predicates $3 (empty: all) and stood at $4, newest first, $7 at
-- most. Looks at the newest $5 facts of each entity in each direction, at $6 in all, beginning with the last of the entities: a
-- walk's last ones have the fewest.
SELECT DISTINCT relationship_id
FROM (
    SELECT fact.relationship_id, fact.other_id, fact.fits
    FROM unnest($2::uuid[]) WITH ORDINALITY AS node (entity_id, place)
    CROSS JOIN LATERAL (
        (SELECT relationship_id, target_entity_id AS other_id,
                (cardinality($3::text[]) = 0 OR predicate = ANY ($3))
                    AND valid_from <= $4 AND (valid_to IS NULL OR valid_to > $4) AS fits
         FROM relationships
         WHERE tenant_id = $1 AND source_entity_id = node.entity_id
         ORDER BY relationship_id DESC
         LIMIT $5)
        UNION ALL
        (SELECT relationship_id, source_entity_id,
                (cardinality($3::text[]) = 0 OR predicate = ANY ($3))
                    AND valid_from <= $4 AND (valid_to IS NULL OR valid_to > $4)
         FROM relationships
         WHERE tenant_id = $1 AND target_entity_id = node.entity_id
         ORDER BY relationship_id DESC
         LIMIT $5)) AS fact
    ORDER BY node.place DESC
    LIMIT $6) AS looked_at
WHERE fits AND other_id = ANY ($2::uuid[])
ORDER BY relationship_id DESC
LIMIT $7;
