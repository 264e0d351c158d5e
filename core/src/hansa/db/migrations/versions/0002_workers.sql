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

-- In place of that in 0001_control.sql: the new run stands in the pool of its agent, as any new run does, and not where the old one stood.
CREATE OR REPLACE FUNCTION hansa.run_fork(p_tenant uuid, p_region text, p_run uuid, p_at bigint, p_new_run uuid, p_new_session uuid)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_new hansa.runs; v_last bigint; v_refused text; v_pool text;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN QUERY SELECT 'no_run', NULL::json; RETURN; END IF;
  SELECT CASE WHEN (SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region) THEN 'region_cordoned' WHEN t.suspended THEN 'tenant_suspended'
      WHEN a.name IS NULL THEN 'no_agent' WHEN a.suspended THEN 'agent_suspended' END, a.pool INTO v_refused, v_pool
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_run.agent WHERE t.tenant_id = p_tenant;
  IF v_refused IS NOT NULL THEN RETURN QUERY SELECT v_refused, to_json(v_run.agent); RETURN; END IF;
  SELECT max(e.seq) INTO v_last FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id AND e.seq >= v_run.queued_seq AND e.run_id = p_run;
  IF p_at < v_run.queued_seq OR p_at > v_last THEN
    RETURN QUERY SELECT 'at_outside', json_build_array(v_run.queued_seq, v_last); RETURN;
  END IF;
  INSERT INTO hansa.sessions (tenant_id, id, agent, newest_run, active_run, forked_from, forked_seq)
    VALUES (p_tenant, p_new_session, v_run.agent, 1, p_new_run, v_run.session_id, v_run.queued_seq);
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, priority, input, depth)
    VALUES (p_tenant, p_new_run, p_new_session, 1, v_run.agent, v_run.revision, 'queued', 'session', v_pool, v_run.priority, v_run.input, 0);
  -- Only steps with their result are taken over; a call that was begun or approved and not made is the new run's to do and to ask for.
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, step, data)
    SELECT p_tenant, p_new_session, row_number() OVER (ORDER BY e.seq), p_new_run, e.type, e.step,
      CASE WHEN e.type = 'run.queued' THEN json_build_object('input', v_run.input, 'forked_from', json_build_object('run_id', p_run, 'seq', p_at)) ELSE e.data END
    FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id AND e.run_id = p_run AND e.seq BETWEEN v_run.queued_seq AND p_at
      AND (e.type = 'run.queued' OR (e.step IS NOT NULL AND EXISTS (
        SELECT FROM hansa.events d WHERE d.tenant_id = p_tenant AND d.session_id = v_run.session_id AND d.run_id = p_run AND d.step = e.step
          AND d.seq BETWEEN v_run.queued_seq AND p_at AND (d.type IN ('model.completed', 'tool.completed', 'run.returned', 'value.recorded',
            'timer.fired', 'event.received', 'log') OR (d.type = 'approval.decided' AND d.data ->> 'decision' = 'answered')))));
  INSERT INTO hansa.value_refs (tenant_id, session_id, digest)
    SELECT p_tenant, p_new_session, f.digest FROM hansa.value_refs f WHERE f.tenant_id = p_tenant AND f.session_id = v_run.session_id;
  UPDATE hansa.sessions SET last_seq = (SELECT max(e.seq) FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = p_new_session)
    WHERE tenant_id = p_tenant AND id = p_new_session;
  -- It has recorded steps from the first: epoch 1 would say that there are none.
  UPDATE hansa.runs SET epoch = 1 WHERE tenant_id = p_tenant AND id = p_new_run;
  PERFORM hansa.run_ready(p_tenant, p_new_run);
  SELECT * INTO v_new FROM hansa.runs WHERE tenant_id = p_tenant AND id = p_new_run;
  RETURN QUERY SELECT 'accepted', hansa.run_json(v_new);
END $$;
