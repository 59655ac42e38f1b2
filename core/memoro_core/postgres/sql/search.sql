-- Searching one user's memories. Runs within one tenant's transaction.
--
-- Row-level security lets no operator into an index scan that could give a row away (`@@`, `@>`), so that a user's memories are
-- read through the indexes that lead with tenant and user, and looked at one by one: about a microsecond each.
--
-- A condition that is empty or NULL fits all: kinds, statuses, conversation, metadata, from, until.

-- name: search_scale
-- How many vectors of the model the user has, counted no further than $4. Makes the vector index go on until it has found enough
-- rows of this user.
SELECT count(*) AS vectors,
       set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.ef_search', '200', true),
       set_config('hnsw.max_scan_tuples', '200000', true)
FROM (SELECT FROM memory_embeddings WHERE tenant_id = $1 AND user_id = $2 AND model = $3 LIMIT $4) AS counted;

-- name: nearest_exact
-- The memories whose vectors are closest to $4, every one compared. $5: whether there is a filter at all.
SELECT memory_id
FROM memory_embeddings
WHERE tenant_id = $1 AND user_id = $2 AND model = $3
  AND (NOT $5 OR memory_id IN (
      SELECT memory_id
      FROM memories
      WHERE tenant_id = $1 AND user_id = $2
        AND (cardinality($6::text[]) = 0 OR kind = ANY ($6))
        AND (cardinality($7::text[]) = 0 OR status = ANY ($7))
        AND ($8::text IS NULL OR conversation_id = $8)
        AND metadata @> $9::jsonb
        AND ($10::timestamptz IS NULL OR occurred_at >= $10)
        AND ($11::timestamptz IS NULL OR occurred_at < $11)))
ORDER BY embedding <=> $4, memory_id
LIMIT $12;

-- name: nearest_indexed
-- The same by the approximate index, which returns rows nearly in order: sorted once more here.
WITH nearest AS MATERIALIZED (
    SELECT memory_id, embedding::vector({dimensions}) <=> $4::vector({dimensions}) AS distance
    FROM memory_embeddings
    WHERE tenant_id = $1 AND user_id = $2 AND model = $3 AND vector_dims(embedding) = {dimensions}
      AND (NOT $5 OR memory_id IN (
          SELECT memory_id
          FROM memories
          WHERE tenant_id = $1 AND user_id = $2
            AND (cardinality($6::text[]) = 0 OR kind = ANY ($6))
            AND (cardinality($7::text[]) = 0 OR status = ANY ($7))
            AND ($8::text IS NULL OR conversation_id = $8)
            AND metadata @> $9::jsonb
            AND ($10::timestamptz IS NULL OR occurred_at >= $10)
            AND ($11::timestamptz IS NULL OR occurred_at < $11)))
    ORDER BY embedding::vector({dimensions}) <=> $4::vector({dimensions})
    LIMIT $12
)
SELECT memory_id FROM nearest ORDER BY distance, memory_id;

-- name: find_candidates
-- The memories $6 (closest by meaning), the $7 closest by words, and the turns beside either, with what ranking needs.
--
-- Words: BM25 (Robertson and Zaragoza, 2009) with k1 = 0.6 and b = 0.3 over the user's memories that fit the filter; any word of
-- the question is enough. PostgreSQL's rank of one lexeme, the sum of 1/j² over its j occurrences, saturates as tf/(tf + 0.6)
-- does, within 3 % at mean length; divided by that of one occurrence it takes the place of tf * (k1 + 1) / (tf + k1).
--
-- Nothing is joined but by key: a planner who knows little of how many rows a filter leaves would loop over them.
WITH question AS MATERIALIZED (
    SELECT array_agg(term) AS terms, string_agg(term::text, ' | ')::tsquery AS any_term
    FROM (SELECT ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery AS term
          FROM unnest(to_tsvector('english', $3))
          LIMIT 64) AS word
), scope AS MATERIALIZED (
    SELECT memory_id, conversation_id, position, length(lexemes) AS size,
           CASE WHEN lexemes @@ (SELECT any_term FROM question)
                THEN ARRAY(SELECT ts_rank('{1, 1, 1, 1}', lexemes, term)
                           FROM unnest((SELECT terms FROM question)) AS word (term)) END AS frequencies
    FROM memories
    WHERE tenant_id = $1 AND user_id = $2
      AND (cardinality($8::text[]) = 0 OR kind = ANY ($8))
      AND (cardinality($9::text[]) = 0 OR status = ANY ($9))
      AND ($10::text IS NULL OR conversation_id = $10)
      AND metadata @> $11::jsonb
      AND ($12::timestamptz IS NULL OR occurred_at >= $12)
      AND ($13::timestamptz IS NULL OR occurred_at < $13)
), corpus AS MATERIALIZED (
    SELECT mean_size,
           ARRAY(SELECT ln(1 + (memories - count(*) FILTER (WHERE frequency > 0) + 0.5)
                               / (count(*) FILTER (WHERE frequency > 0) + 0.5))
                 FROM scope, unnest(frequencies) WITH ORDINALITY AS word (frequency, place)
                 GROUP BY place
                 ORDER BY place) AS rarities
    FROM (SELECT count(*)::float8 AS memories, greatest(avg(size), 1)::float8 AS mean_size FROM scope) AS counted
), scored AS MATERIALIZED (
    SELECT memory_id, conversation_id, position,
           CASE WHEN frequencies IS NOT NULL
                THEN (SELECT sum(frequency * rarity) FROM unnest(frequencies, rarities) AS word (frequency, rarity))
                     / 0.607927 * 1.6 / (1 + 0.6 * (0.7 + 0.3 * size / mean_size)) END AS lexical
    FROM corpus, scope
), seed AS MATERIALIZED (
    SELECT memory_id, conversation_id, position
    FROM scored
    WHERE memory_id = ANY ($6::uuid[])
       OR memory_id IN (
           SELECT memory_id FROM scored WHERE lexical > 0 ORDER BY lexical DESC, memory_id DESC LIMIT $7)
), pool AS MATERIALIZED (
    SELECT memory_id, lexical
    FROM scored
    WHERE memory_id IN (SELECT memory_id FROM seed)
       OR (conversation_id IS NOT NULL
           AND (conversation_id, position) IN (
               SELECT conversation_id, position + step
               FROM seed, (VALUES (-1), (1)) AS beside (step)
               WHERE conversation_id IS NOT NULL))
)
SELECT memory.memory_id, left(memory.text, 2000) AS excerpt, memory.speaker, memory.conversation_id, memory.position,
       memory.occurred_at, 1 - (vector.embedding <=> $5) AS similarity, coalesce(pool.lexical, 0) AS lexical
FROM pool
JOIN memories AS memory ON memory.tenant_id = $1 AND memory.memory_id = pool.memory_id
LEFT JOIN memory_embeddings AS vector
  ON vector.tenant_id = $1 AND vector.memory_id = pool.memory_id AND vector.model = $4;
