-- Workers of a tenant's own: its runs stand in pools that begin with its id and a slash, which no agent can name, so claiming them is as
-- claiming any. Run as hansa_owner.

-- A tenant is to be worked for by its own workers, or by those of all. Its agents, and their runs that have not ended, change pools; runs that
-- are worked on are finished where they are.
CREATE FUNCTION hansa.tenant_workers_changed(p_tenant uuid, p_workers text) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE FUNCTION hansa.pool_of(p_tenant uuid, p_pool text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE (SELECT t.workers FROM hansa.tenants t WHERE t.tenant_id = p_tenant) WHEN 'Dedicated' THEN p_tenant || '/' ELSE '' END || p_pool
$$;

-- A worker of a tenant's own is there.
CREATE FUNCTION hansa.tenant_worker_seen(p_tenant uuid, p_worker text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  DELETE FROM hansa.tenant_workers WHERE tenant_id = p_tenant AND seen_at < now() - interval '1 hour';
  INSERT INTO hansa.tenant_workers AS w (tenant_id, worker) SELECT p_tenant, p_worker FROM hansa.tenants t WHERE t.tenant_id = p_tenant
    ON CONFLICT (tenant_id, worker) DO UPDATE SET seen_at = clock_timestamp(),
      since = CASE WHEN w.seen_at < now() - interval '90 seconds' THEN clock_timestamp() ELSE w.since END;
END $$;
