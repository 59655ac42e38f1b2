-- What PostgreSQL tells of a deployment, to the service itself.

-- name: role_facts
SELECT rolname, rolsuper, rolbypassrls,
       ARRAY(
           SELECT relname::text FROM pg_class
           WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'memories'::regclass)
             AND relkind IN ('r', 'p') AND pg_has_role(session_user, relowner, 'MEMBER')
           ORDER BY relname
       ) AS owned
FROM pg_roles
WHERE rolname = session_user;

-- name: unforced_tables
-- Those of tenants that row-level security does not bind, or not for their owner.
SELECT relname::text AS name
FROM pg_class
WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'memories'::regclass)
  AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped)
ORDER BY relname;

-- name: strange_policies
-- Policies for other roles than the schema's, and those of the tenants' role that do not ask for the tenant.
SELECT format('%s.%s', polrelid::regclass, polname) AS name
FROM pg_policy
WHERE (SELECT relnamespace FROM pg_class WHERE oid = polrelid) = (SELECT relnamespace FROM pg_class WHERE oid = 'memories'::regclass)
  AND polpermissive
  AND (
      NOT polroles <@ ARRAY['memoro_app'::regrole::oid, 'memoro_system'::regrole::oid]
      OR 'memoro_app'::regrole::oid = ANY (polroles)
         AND concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) NOT LIKE '%current_tenant()%'
  )
ORDER BY 1;

-- name: server_facts
SELECT current_setting('server_version_num')::integer AS version,
       current_setting('server_version') AS version_name,
       -- A Unix socket has no address.
       coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)
           OR coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
       least(
           current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
           (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = session_user),
           (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
       ) AS connection_limit,
       (SELECT sum(numbackends)::integer FROM pg_stat_database) AS connections;

-- name: load_vector_library
-- Its settings are known once it is loaded.
SELECT vector_dims('[1]'::vector);

-- name: vector_facts
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS version,
       current_setting('hnsw.iterative_scan', true) IS NOT NULL AS iterative_scan,
       (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('memory_embeddings_hnsw_{dimensions}')) AS index_valid,
       (SELECT model FROM embedding_model) AS stored_model;

-- name: key_facts
SELECT count(*) FILTER (WHERE 'admin' = ANY (api_keys.scopes) AND api_keys.expires_at IS NULL) AS endless_operator_keys,
       count(*) FILTER (
           WHERE tenants.name = $1 AND api_keys.display_name = $2 OR tenants.is_operator AND api_keys.display_name = $3
       ) AS development_keys
FROM api_keys JOIN tenants USING (tenant_id)
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: applied_versions
SELECT version FROM schema_migrations;

-- name: time_of_day
SELECT clock_timestamp() AS now;
