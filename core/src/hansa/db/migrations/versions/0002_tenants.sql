-- The life of a tenant: what is known of it, how it is archived and deleted, and what a probe says of the walls between tenants.

-- `state`: active; archived: kept, and nobody gets in; deleting: what it has is being removed. `generation` is that of its object, 0 when
-- nobody has applied one.
ALTER TABLE hansa.tenants
  ADD COLUMN state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'archived', 'deleting')),
  ADD COLUMN generation integer NOT NULL DEFAULT 0,
  ADD COLUMN deletion_policy text NOT NULL DEFAULT 'Retain' CHECK (deletion_policy IN ('Retain', 'Export', 'Delete')),
  ADD COLUMN prevent_deletion boolean NOT NULL DEFAULT false,
  ADD COLUMN workers text NOT NULL DEFAULT 'Shared' CHECK (workers IN ('Shared', 'Dedicated'));
GRANT UPDATE (state, generation, deletion_policy, prevent_deletion, workers) ON hansa.tenants TO hansa_app;
ALTER TABLE hansa.regions ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN hansa.regions.changed_at IS 'When it was cordoned, or last no longer was.';
GRANT UPDATE (changed_at) ON hansa.regions TO hansa_app;
GRANT SELECT ON hansa.regions TO hansa_system;

-- What parts of the platform have found out of a tenant; what follows from its other rows is not kept here (hansa.tenants.conditions).
CREATE TABLE hansa.tenant_conditions (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  type text NOT NULL,
  status text NOT NULL CHECK (status IN ('True', 'False', 'Unknown')),
  reason text NOT NULL,
  message text NOT NULL,
  observed_generation integer NOT NULL,
  last_transition_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, type)
);

-- Workers that were started for one tenant, and when they were last heard of.
CREATE TABLE hansa.tenant_workers (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  worker text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, worker)
);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['tenant_conditions', 'tenant_workers'] LOOP
    EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE hansa.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                   'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', t);
    EXECUTE format('CREATE POLICY system ON hansa.%I FOR SELECT TO hansa_system USING (true)', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON hansa.tenant_conditions, hansa.tenant_workers TO hansa_app;
GRANT SELECT ON hansa.tenant_conditions, hansa.tenant_workers TO hansa_system;

-- Each deletion of a tenant, from the request to its end. It outlives the tenant, and is no row of it.
CREATE TABLE hansa.deletions (
  id uuid PRIMARY KEY,
  tenant uuid NOT NULL,
  name text NOT NULL,
  policy text NOT NULL CHECK (policy IN ('Export', 'Delete')),
  requested_by text NOT NULL,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  step text NOT NULL DEFAULT 'stop' CHECK (step IN ('stop', 'export', 'purge', 'scan', 'done')),
  export uuid,
  parts integer,
  residue json NOT NULL DEFAULT '{}',
  finished_at timestamptz,
  held_until timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON COLUMN hansa.deletions.held_until IS 'Until when it is left to the worker that is at it.';
COMMENT ON COLUMN hansa.deletions.parts IS 'Of how many parts its export consists, once that is whole.';
COMMENT ON COLUMN hansa.deletions.residue IS 'What the last scan found of the tenant: place -> how much.';
CREATE INDEX deletions_open ON hansa.deletions (requested_at) WHERE finished_at IS NULL;
GRANT INSERT ON hansa.deletions TO hansa_app;
GRANT SELECT, UPDATE (step, export, parts, residue, finished_at, held_until) ON hansa.deletions TO hansa_system;

-- What the probes of a region have found of the walls between tenants. One row a region.
CREATE TABLE hansa.isolation_probes (
  region text PRIMARY KEY,
  verified boolean NOT NULL,
  message text NOT NULL DEFAULT '',
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  checked_at timestamptz NOT NULL DEFAULT '-infinity',
  held_until timestamptz NOT NULL DEFAULT '-infinity'
);
GRANT SELECT ON hansa.isolation_probes TO hansa_app;
GRANT SELECT, INSERT, UPDATE ON hansa.isolation_probes TO hansa_system;

-- Tables that hold rows of tenants, partitions one by one, those that others refer to last. Every table counts that has a tenant_id.
CREATE FUNCTION hansa.tenant_tables() RETURNS TABLE (name text) LANGUAGE sql STABLE SET search_path = '' AS $$
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
CREATE FUNCTION hansa.tenant_condemned(p_tenant uuid) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = '' AS $$
BEGIN
  RETURN coalesce((SELECT t.state = 'deleting' FROM hansa.tenants t WHERE t.tenant_id = p_tenant), true)
    AND EXISTS (SELECT FROM hansa.deletions d WHERE d.tenant = p_tenant);
END $$;

-- Removes up to p_limit rows of a tenant that is being deleted; how many. Runs as the owner, since nobody else may delete what it deletes,
-- and under row-level security like everyone: it sees this tenant alone. 0: none is left.
CREATE FUNCTION hansa.tenant_purge(p_tenant uuid, p_limit integer) RETURNS bigint
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
CREATE FUNCTION hansa.tenant_residue(p_tenant uuid) RETURNS TABLE (place text, much bigint)
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
CREATE FUNCTION hansa.tenant_remove(p_tenant uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF NOT hansa.tenant_condemned(p_tenant) OR EXISTS (SELECT FROM hansa.tenant_residue(p_tenant)) THEN RETURN false; END IF;
  DELETE FROM hansa.tenants WHERE tenant_id = p_tenant;
  RETURN true;
END $$;
REVOKE ALL ON FUNCTION hansa.tenant_purge, hansa.tenant_residue, hansa.tenant_remove FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hansa.tenant_purge, hansa.tenant_residue, hansa.tenant_remove TO hansa_system;
