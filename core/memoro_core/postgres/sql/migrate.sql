-- What migration asks and says around the files of migrations/.

-- name: try_migration_lock
-- Asked again and again rather than waited for: a waiting statement would hold a snapshot, which CREATE INDEX CONCURRENTLY,
-- run by the migrator that has the lock, would wait for in turn.
SELECT pg_try_advisory_lock($1);

-- name: is_migrated
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: applied_migrations
SELECT version FROM schema_migrations ORDER BY version;

-- name: server_facts
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('server_version') AS version_name,
    current_setting('server_encoding') AS encoding,
    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS pgvector;

-- name: session_facts
SELECT
    current_user::text AS user_name,
    current_database()::text AS database_name,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted;

-- name: create_database
-- Gives the statement: identifiers cannot be parameters, and the server quotes best.
SELECT format('CREATE DATABASE %I', $1::text);

-- name: service_role
SELECT rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = $1;

-- name: create_service_role
-- Gives the statement. The password is a verifier already; NULL leaves the role without one.
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD %L', $1::text, $2::text);

-- name: alter_service_role
-- Gives the statement.
SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text);

-- name: grant_service_role
-- Gives the statements: a tenant's data always, the work across tenants only when asked for with SET ROLE.
SELECT format('GRANT memoro_app TO %1$I WITH INHERIT TRUE; GRANT memoro_system TO %1$I WITH INHERIT FALSE, SET TRUE', $1::text);

-- name: service_role_suffices
-- Whether the role can already do all that services need.
SELECT r.rolcanlogin AND pg_has_role(r.oid, 'memoro_app', 'USAGE') AND pg_has_role(r.oid, 'memoro_system', 'SET')
FROM pg_roles AS r WHERE r.rolname = $1;
