-- The model whose vectors the deployment holds. Belongs to no tenant.

-- name: get_embedding_model
SELECT model FROM embedding_model;

-- name: set_embedding_model
-- Leaves the model as it is when there is one.
INSERT INTO embedding_model (model, dimensions, created_at) VALUES ($1, $2, $3) ON CONFLICT (singleton) DO NOTHING;

-- name: vector_index_is_valid
-- Whether the index for vectors of this many dimensions can be used; NULL: there is none.
SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('memory_embeddings_hnsw_{dimensions}');

-- name: drop_vector_index
-- Takes away what an interrupted build has left.
DROP INDEX CONCURRENTLY IF EXISTS memory_embeddings_hnsw_{dimensions};

-- name: create_vector_index
-- One index per number of dimensions in use, never per tenant.
CREATE INDEX CONCURRENTLY IF NOT EXISTS memory_embeddings_hnsw_{dimensions} ON memory_embeddings
    USING hnsw ((embedding::vector({dimensions})) vector_cosine_ops) WHERE vector_dims(embedding) = {dimensions};
