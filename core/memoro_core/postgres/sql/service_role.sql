-- The role that services connect as.

-- name: privileges_of_session
-- What the session's role must not be or have: row-level security would not bind it.
SELECT rolsuper OR rolbypassrls AS unbound,
       EXISTS (
           SELECT FROM pg_class
           WHERE oid = 'memories'::regclass AND pg_has_role(session_user, relowner, 'MEMBER')
       ) AS owns
FROM pg_roles
WHERE rolname = session_user;
