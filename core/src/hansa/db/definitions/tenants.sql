-- Tenants: which one a transaction is of, how one stands still, has workers or a database to itself, and goes.

-- STABLE and used as a scalar sub-select: evaluated once per query, not once per row. NULLIF: after a transaction-local
-- set_config the setting is '' and not NULL for the rest of the session.
CREATE OR REPLACE FUNCTION hansa.tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT NULLIF(current_setting('hansa.tenant', true), '')::uuid $$;

-- A tenant is suspended or goes on. Returns whether workers are to be told. The caller's transaction has the tenant's row: who holds a run
-- at this moment has looked at it before, and its run is seen here as suspended.
CREATE OR REPLACE FUNCTION hansa.tenant_changed(p_tenant uuid, p_suspended boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_run uuid; v_told boolean := p_suspended;
BEGIN
  UPDATE hansa.tenants SET suspended = p_suspended WHERE tenant_id = p_tenant;
  IF NOT p_suspended THEN
    FOR v_run IN SELECT id FROM hansa.runs WHERE tenant_id = p_tenant AND state = 'suspended' AND suspended_by = 'tenant' ORDER BY id FOR UPDATE LOOP
      PERFORM hansa.run_continue(p_tenant, v_run);
      v_told := true;
    END LOOP;
  END IF;
  RETURN v_told;
END $$;

-- A tenant is to be worked for by its own workers, or by those of all. Its agents, and their runs that have not ended, change pools; runs that
-- are worked on are finished where they are.
CREATE OR REPLACE FUNCTION hansa.tenant_workers_changed(p_tenant uuid, p_workers text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_prefix text := CASE p_workers WHEN 'Dedicated' THEN p_tenant || '/' ELSE '' END;
BEGIN
  UPDATE hansa.tenants SET workers = p_workers WHERE tenant_id = p_tenant AND workers <> p_workers;
  IF NOT FOUND THEN RETURN; END IF;
  UPDATE hansa.agents SET pool = v_prefix || regexp_replace(pool, '^.*/', '') WHERE tenant_id = p_tenant;
  PERFORM FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.state NOT IN ('completed', 'failed', 'canceled') ORDER BY r.id FOR UPDATE;
  UPDATE hansa.runs SET pool = v_prefix || regexp_replace(pool, '^.*/', '')
    WHERE tenant_id = p_tenant AND state NOT IN ('completed', 'failed', 'canceled');
END $$;

-- The pool in which an agent's runs stand, of the one that its object names.
CREATE OR REPLACE FUNCTION hansa.pool_of(p_tenant uuid, p_pool text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE (SELECT t.workers FROM hansa.tenants t WHERE t.tenant_id = p_tenant) WHEN 'Dedicated' THEN p_tenant || '/' ELSE '' END || p_pool
$$;

-- A worker of a tenant's own is there.
CREATE OR REPLACE FUNCTION hansa.tenant_worker_seen(p_tenant uuid, p_worker text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  DELETE FROM hansa.tenant_workers WHERE tenant_id = p_tenant AND seen_at < now() - interval '1 hour';
  INSERT INTO hansa.tenant_workers AS w (tenant_id, worker) SELECT p_tenant, p_worker FROM hansa.tenants t WHERE t.tenant_id = p_tenant
    ON CONFLICT (tenant_id, worker) DO UPDATE SET seen_at = clock_timestamp(),
      since = CASE WHEN w.seen_at < now() - interval '90 seconds' THEN clock_timestamp() ELSE w.since END;
END $$;

-- Tables that hold rows of tenants, partitions one by one, those that others refer to last. Every table counts that has a tenant_id.
CREATE OR REPLACE FUNCTION hansa.tenant_tables() RETURNS TABLE (name text) LANGUAGE sql STABLE SET search_path = '' AS $$
  WITH RECURSIVE mine AS (
    SELECT c.oid, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind = 'r' AND c.relname <> 'tenants'),
  depth AS (
    SELECT m.oid, 0 AS level FROM mine m
    UNION ALL
    SELECT f.confrelid, d.level + 1 FROM depth d JOIN pg_catalog.pg_constraint f ON f.conrelid = d.oid AND f.contype = 'f' AND f.confrelid <> f.conrelid
    WHERE d.level < 16)
  SELECT m.relname::text FROM mine m JOIN depth d ON d.oid = m.oid GROUP BY m.relname ORDER BY max(d.level), m.relname
$$;

-- Whether a tenant's rows may go: it is being deleted, or it is gone and somebody wrote of it late.
CREATE OR REPLACE FUNCTION hansa.tenant_condemned(p_tenant uuid) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
  RETURN coalesce((SELECT t.state = 'deleting' FROM hansa.tenants t WHERE t.tenant_id = p_tenant), true)
    AND EXISTS (SELECT FROM hansa.deletions d WHERE d.tenant = p_tenant);
END $$;

-- Removes up to p_limit rows of a tenant that is being deleted; how many. Runs as the owner, since nobody else may delete what it deletes,
-- and under row-level security like everyone: it sees this tenant alone. 0: none is left.
CREATE OR REPLACE FUNCTION hansa.tenant_purge(p_tenant uuid, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET enable_seqscan = off AS $$
DECLARE v_table text; v_count bigint; v_done bigint := 0;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF NOT hansa.tenant_condemned(p_tenant) THEN RAISE EXCEPTION 'tenant % is not being deleted', p_tenant; END IF;
  FOR v_table IN SELECT t.name FROM hansa.tenant_tables() t LOOP
    EXECUTE format('DELETE FROM hansa.%1$I WHERE ctid = ANY (ARRAY(SELECT ctid FROM hansa.%1$I WHERE tenant_id = $1 LIMIT $2))', v_table)
      USING p_tenant, p_limit - v_done;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_done := v_done + v_count;
    EXIT WHEN v_done >= p_limit;
  END LOOP;
  RETURN v_done;
END $$;

-- What is left of a tenant in any table: (table, rows, at most 1000 counted).
CREATE OR REPLACE FUNCTION hansa.tenant_residue(p_tenant uuid) RETURNS TABLE (place text, much bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET enable_seqscan = off AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF NOT hansa.tenant_condemned(p_tenant) THEN RAISE EXCEPTION 'tenant % is not being deleted', p_tenant; END IF;
  FOR place IN SELECT t.name FROM hansa.tenant_tables() t LOOP
    EXECUTE format('SELECT count(*) FROM (SELECT FROM hansa.%I WHERE tenant_id = $1 LIMIT 1000) n', place) INTO much USING p_tenant;
    IF much > 0 THEN RETURN NEXT; END IF;
  END LOOP;
END $$;

-- The end of a deletion: the tenant's own row goes, unless something of it is left; whether it is gone.
CREATE OR REPLACE FUNCTION hansa.tenant_remove(p_tenant uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF NOT hansa.tenant_condemned(p_tenant) OR EXISTS (SELECT FROM hansa.tenant_residue(p_tenant)) THEN RETURN false; END IF;
  DELETE FROM hansa.tenants WHERE tenant_id = p_tenant;
  RETURN true;
END $$;
REVOKE ALL ON FUNCTION hansa.tenant_purge, hansa.tenant_residue, hansa.tenant_remove FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hansa.tenant_purge, hansa.tenant_residue, hansa.tenant_remove TO hansa_system;

-- Makes one table take no row of anybody but the tenant whose own database this is; its name, NULL: all are so. One a transaction, so that
-- it waits for nobody while others wait for it.
CREATE OR REPLACE FUNCTION hansa.installation_bind() RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_table text; v_tenant uuid := (SELECT i.tenant FROM hansa.installation i);
BEGIN
  SELECT c.relname INTO v_table FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.conname = 'own') ORDER BY c.relname LIMIT 1;
  IF v_table IS NOT NULL THEN
    EXECUTE format('ALTER TABLE hansa.%I ADD CONSTRAINT own CHECK (tenant_id = %L)', v_table, v_tenant);
  END IF;
  RETURN v_table;
END $$;

-- Makes this database the tenant's own: from here on no table takes a row of anybody else, whoever writes it. NULL: it is; else why not.
-- Safe to repeat. Afterwards, and after each migration, tables that are new are bound one by one.
CREATE OR REPLACE FUNCTION hansa.installation_claim(p_platform uuid, p_tenant uuid, p_name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v hansa.installation;
BEGIN
  SELECT * INTO v FROM hansa.installation FOR UPDATE;
  IF v.id = p_platform THEN RETURN 'it is the platform''s own database'; END IF;
  IF v.tenant <> p_tenant OR v.platform <> p_platform THEN
    RETURN format('it is that of tenant %L of %s', v.name, CASE v.platform WHEN p_platform THEN 'this installation' ELSE 'another installation' END);
  END IF;
  IF v.tenant IS NULL THEN
    UPDATE hansa.installation SET platform = p_platform, tenant = p_tenant, name = p_name;
    LOOP EXIT WHEN hansa.installation_bind() IS NULL; END LOOP;
  END IF;
  RETURN NULL;
EXCEPTION WHEN check_violation THEN
  RETURN 'it holds rows of other tenants';
END $$;
REVOKE ALL ON FUNCTION hansa.installation_bind, hansa.installation_claim FROM PUBLIC;
