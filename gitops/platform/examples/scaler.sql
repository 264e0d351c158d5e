-- The role with which KEDA asks how many runs there are to do. It counts, and reads nothing else: no content, no tenant's name but to
-- find its workers. Run as the admin of HANSA_DATABASE_URL, once; it may be repeated. Then give it a password:
--     ALTER ROLE hansa_scaler LOGIN PASSWORD '...'
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hansa_scaler') THEN
    CREATE ROLE hansa_scaler NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION;
  END IF;
END $$;
ALTER ROLE hansa_scaler CONNECTION LIMIT 5;
ALTER ROLE hansa_scaler SET statement_timeout = '5s';
BEGIN;
SET LOCAL ROLE hansa_owner;
GRANT USAGE ON SCHEMA hansa TO hansa_scaler;
GRANT SELECT (pool, state, gate) ON hansa.runs TO hansa_scaler;
GRANT SELECT (tenant_id, name) ON hansa.tenants TO hansa_scaler;
DROP POLICY IF EXISTS scaler ON hansa.runs;
DROP POLICY IF EXISTS scaler ON hansa.tenants;
CREATE POLICY scaler ON hansa.runs FOR SELECT TO hansa_scaler USING (state IN ('queued', 'running'));
CREATE POLICY scaler ON hansa.tenants FOR SELECT TO hansa_scaler USING (true);
COMMIT;
