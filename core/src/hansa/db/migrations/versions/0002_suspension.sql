-- A suspended tenant stands still: no run of it starts, and those that workers drive are held within one lease time. Run as hansa_owner,
-- after all parts that replace functions of 0001: what it changes of them are single lines, which it finds in whatever they are by then.

-- A tenant is suspended or goes on. Returns whether workers are to be told. The caller's transaction has the tenant's row: who holds a run
-- at this moment has looked at it before, and its run is seen here as suspended.
CREATE FUNCTION hansa.tenant_changed(p_tenant uuid, p_suspended boolean) RETURNS boolean LANGUAGE plpgsql AS $$
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

DO $amend$ DECLARE v_change record; v_text text; BEGIN
  -- Not validated: rows that were there before have one of the older words, and all of them would be read.
  SELECT pg_get_constraintdef(oid) INTO v_text FROM pg_constraint WHERE conrelid = 'hansa.runs'::regclass AND conname = 'runs_suspended_by_check';
  ALTER TABLE hansa.runs DROP CONSTRAINT runs_suspended_by_check;
  EXECUTE 'ALTER TABLE hansa.runs ADD CONSTRAINT runs_suspended_by_check ' || replace(v_text, '''run''::text', '''run''::text, ''tenant''::text') || ' NOT VALID';
  FOR v_change IN SELECT * FROM (VALUES
    -- A run that another one called is accepted also in a suspended tenant, where it is held like its caller; refused, it would be a failure
    -- that the caller finds when both go on.
    ('hansa.run_start', 'IF v_agent.tenant_suspended THEN', 'IF v_agent.tenant_suspended AND p_new ->> ''parent_run'' IS NULL THEN'),
    -- Workers are told when they take a run, and each time they renew its lease.
    ('hansa.run_load', 'WHEN g.suspended THEN ''suspend_agent'' END', 'WHEN t.suspended THEN ''suspend_tenant'' WHEN g.suspended THEN ''suspend_agent'' END'),
    ('hansa.run_load', 'CROSS JOIN (SELECT t.objects_version', 'CROSS JOIN (SELECT t.suspended, t.objects_version'),
    ('hansa.run_renew', 'WHEN (SELECT a.suspended FROM hansa.agents a', 'WHEN (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = r.tenant_id) THEN ''suspend_tenant''
    WHEN (SELECT a.suspended FROM hansa.agents a'),
    -- Before all else, as who changes a tenant does: it then sees this run as suspended, or is seen.
    ('hansa.run_hold', '  v_run := hansa.run_lock(p_tenant, p_run);', '  PERFORM FROM hansa.tenants t WHERE t.tenant_id = p_tenant FOR SHARE;
  v_run := hansa.run_lock(p_tenant, p_run);'),
    ('hansa.run_hold', '    PERFORM hansa.run_park(p_tenant, v_run, ''run'');
  ELSE', '    PERFORM hansa.run_park(p_tenant, v_run, ''run'');
  ELSIF (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) THEN
    PERFORM hansa.run_park(p_tenant, v_run, ''tenant'');
  ELSE'),
    -- Nobody lets a single run go on meanwhile: `outcome` tenant_suspended.
    ('hansa.run_resume', '  IF v_run.state = ''suspended'' AND p_as IS NULL THEN', '  IF v_run.state = ''suspended'' AND p_as IS NULL THEN
    IF (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) THEN RETURN QUERY SELECT ''tenant_suspended'', NULL::json; RETURN; END IF;'),
    -- And of 0002_workers.sql: a new run stands in the pool of its agent, also one that is forked, and not where the old one stood.
    ('hansa.run_fork', '''session'', v_run.pool, v_run.priority', '''session'', coalesce((SELECT a.pool FROM hansa.agents a
      WHERE a.tenant_id = p_tenant AND a.name = v_run.agent), v_run.pool), v_run.priority')
  ) AS c(name, before, after) LOOP
    v_text := pg_get_functiondef(v_change.name::regproc);
    IF position(v_change.before IN v_text) = 0 THEN
      RAISE EXCEPTION 'function % can''t be amended: it does not have "%"', v_change.name, v_change.before;
    END IF;
    EXECUTE replace(v_text, v_change.before, v_change.after);
  END LOOP;
END $amend$;
