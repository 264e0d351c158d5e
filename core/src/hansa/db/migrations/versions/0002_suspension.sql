-- A suspended tenant stands still: no run of it starts, and those that workers drive are held within one lease time. Run as hansa_owner.

-- Not validated: rows that were there before have one of the older words, and all of them would be read.
ALTER TABLE hansa.runs DROP CONSTRAINT runs_suspended_by_check;
ALTER TABLE hansa.runs ADD CONSTRAINT runs_suspended_by_check CHECK (suspended_by IN ('run', 'agent', 'tenant')) NOT VALID;

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

-- In place of that in 0001_drive.sql: a wish for the runs of a suspended tenant.
CREATE OR REPLACE FUNCTION hansa.run_renew(p_tenants uuid[], p_runs uuid[], p_epochs integer[], p_lease interval)
RETURNS TABLE (id uuid, wish text) LANGUAGE sql AS $$
  WITH mine AS (
    SELECT r.tenant_id, r.id FROM hansa.runs r JOIN unnest(p_tenants, p_runs, p_epochs) AS m(tenant_id, id, epoch)
      ON r.tenant_id = m.tenant_id AND r.id = m.id AND r.epoch = m.epoch
    WHERE r.state = 'running' ORDER BY r.tenant_id, r.id FOR UPDATE OF r)
  UPDATE hansa.runs r SET lease_until = clock_timestamp() + p_lease FROM mine WHERE r.tenant_id = mine.tenant_id AND r.id = mine.id
  RETURNING r.id, CASE WHEN r.cancel_requested_at IS NOT NULL THEN 'cancel' WHEN r.suspend_requested_at IS NOT NULL THEN 'suspend'
    WHEN (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = r.tenant_id) THEN 'suspend_tenant'
    WHEN (SELECT a.suspended FROM hansa.agents a WHERE a.tenant_id = r.tenant_id AND a.name = r.agent) THEN 'suspend_agent' END
$$;

-- In place of that in 0001_drive.sql: the same.
CREATE OR REPLACE FUNCTION hansa.run_load(p_tenant uuid, p_runs uuid[], p_epochs integer[])
RETURNS TABLE (run uuid, agent text, revision integer, input json, takeovers integer, attempt integer, depth smallint, wish text,
  active float8, world bigint, history json, steps json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT r.id, r.agent, r.revision, r.input, r.takeovers, r.attempt, r.depth,
      CASE WHEN r.cancel_requested_at IS NOT NULL THEN 'cancel' WHEN r.suspend_requested_at IS NOT NULL THEN 'suspend'
        WHEN t.suspended THEN 'suspend_tenant' WHEN g.suspended THEN 'suspend_agent' END,
      extract(epoch FROM r.active)::float8, t.objects_version,
      CASE WHEN r.queued_seq > 1 OR s.forked_from IS NOT NULL THEN hansa.run_history(p_tenant, r) END,
      CASE WHEN r.epoch > 1 THEN hansa.run_steps(p_tenant, r) END
    FROM unnest(p_runs, p_epochs) AS a(run, epoch)
    CROSS JOIN LATERAL (SELECT * FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run AND r.epoch = a.epoch AND r.state = 'running' LIMIT 1) r
    CROSS JOIN LATERAL (SELECT s.forked_from FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id LIMIT 1) s
    LEFT JOIN LATERAL (SELECT g.suspended FROM hansa.agents g WHERE g.tenant_id = p_tenant AND g.name = r.agent LIMIT 1) g ON true
    CROSS JOIN (SELECT t.objects_version, t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) t;
END $$;

-- Stops a run whose worker has let go of it. In place of that in 0001_control.sql: also because its tenant is suspended.
CREATE OR REPLACE FUNCTION hansa.run_hold(p_tenant uuid, p_run uuid, p_epoch integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  -- Before all else, as who changes a tenant does: it then sees this run as suspended, or is seen.
  PERFORM FROM hansa.tenants t WHERE t.tenant_id = p_tenant FOR SHARE;
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL OR v_run.epoch <> p_epoch OR v_run.state <> 'running' THEN RETURN false; END IF;
  UPDATE hansa.runs SET active = active + (clock_timestamp() - claimed_at), claimed_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_run;
  IF v_run.cancel_requested_at IS NOT NULL THEN
    PERFORM hansa.run_end(p_tenant, v_run, 'canceled', NULL);
  ELSIF v_run.suspend_requested_at IS NOT NULL THEN
    PERFORM hansa.run_park(p_tenant, v_run, 'run');
  ELSIF (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) THEN
    PERFORM hansa.run_park(p_tenant, v_run, 'tenant');
  ELSE
    -- Whether the agent is held is read under a lock: who lets it go on at this moment sees this run as suspended, or is seen.
    PERFORM FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = v_run.agent FOR SHARE;
    IF EXISTS (SELECT FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = v_run.agent AND a.suspended) THEN
      PERFORM hansa.run_park(p_tenant, v_run, 'agent');
    ELSE
      PERFORM hansa.run_continue(p_tenant, p_run);
    END IF;
  END IF;
  RETURN true;
END $$;

-- In place of that in 0001_control.sql: `outcome` may be tenant_suspended.
CREATE OR REPLACE FUNCTION hansa.run_resume(p_tenant uuid, p_run uuid, p_as text, p_answer json, p_by text)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_call json; v_step text;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN QUERY SELECT 'no_run', NULL::json; RETURN; END IF;
  IF v_run.state = 'suspended' AND p_as IS NULL THEN
    IF (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
    IF EXISTS (SELECT FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = v_run.agent AND a.suspended) THEN
      RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN;
    END IF;
    PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'run.continued', NULL, json_build_object('by', p_by));
    PERFORM hansa.run_continue(p_tenant, p_run);
  ELSIF v_run.suspend_requested_at IS NOT NULL AND v_run.state IN ('queued', 'running') AND p_as IS NULL THEN
    UPDATE hansa.runs SET suspend_requested_at = NULL WHERE tenant_id = p_tenant AND id = p_run;
  ELSIF v_run.state = 'suspended' THEN RETURN QUERY SELECT 'as_unasked', NULL::json; RETURN;
  ELSIF v_run.state = 'needs_review' AND p_as IS NULL THEN RETURN QUERY SELECT 'as_missing', NULL::json; RETURN;
  ELSIF v_run.state = 'needs_review' THEN
    SELECT e.data, e.data ->> 'step' INTO v_call, v_step FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id
      AND e.seq > v_run.queued_seq AND e.run_id = p_run AND e.type = 'run.needs_review' ORDER BY e.seq DESC LIMIT 1;
    PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'review.decided', v_step,
      json_build_object('decision', p_as, 'by', p_by, 'attempt', v_call -> 'attempt'));
    IF p_as = 'fail' THEN
      v_run := hansa.run_end(p_tenant, v_run, 'failed', json_build_object('code', 'review_failed',
        'detail', format('%s decided that the run fails at step %s, %s', p_by, v_step, v_call ->> 'name'), 'hint', ''));
      RETURN QUERY SELECT 'resumed', hansa.run_json(v_run); RETURN;
    ELSIF p_as = 'done' THEN
      PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'tool.completed', v_step, json_build_object(
        'name', v_call -> 'name', 'arguments', v_call -> 'arguments', 'content', p_answer, 'is_error', false, 'invalid_arguments', false));
    END IF;
    PERFORM hansa.run_ready(p_tenant, p_run);
  ELSE RETURN QUERY SELECT v_run.state, NULL::json; RETURN;
  END IF;
  SELECT * INTO v_run FROM hansa.runs WHERE tenant_id = p_tenant AND id = p_run;
  RETURN QUERY SELECT 'resumed', hansa.run_json(v_run);
END $$;

-- In place of that in 0001_accept.sql: a run that another one called is accepted also in a suspended tenant, where it is held like its
-- caller; refused, it would be a failure that the caller finds when both go on.
CREATE OR REPLACE FUNCTION hansa.run_start(p_tenant uuid, p_principal text, p_route text, p_key text, p_digest bytea, p_region text, p_new json,
  p_input json)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE
  v_session hansa.sessions; v_run hansa.runs; v_old hansa.idempotency_keys; v_agent record; v_revision integer;
  v_name text := p_new ->> 'agent'; v_given uuid := p_new ->> 'session_id'; v_start timestamptz := p_new ->> 'start_at';
  v_gate text; v_id uuid := p_new ->> 'id';
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF p_key IS NOT NULL THEN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(concat_ws(chr(31), p_tenant, p_principal, p_route, p_key), 0)) THEN
      RETURN QUERY SELECT 'key_in_flight', NULL::json; RETURN;
    END IF;
    SELECT * INTO v_old FROM hansa.idempotency_keys k
      WHERE k.tenant_id = p_tenant AND k.principal = p_principal AND k.route = p_route AND k.key = p_key;
    IF FOUND THEN
      IF v_old.digest <> p_digest THEN RETURN QUERY SELECT 'key_reused', to_json(v_old.created_at); RETURN; END IF;
      RETURN QUERY SELECT 'replayed', v_old.answer; RETURN;
    END IF;
  END IF;
  IF v_given IS NOT NULL THEN
    SELECT * INTO v_session FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = v_given FOR UPDATE;
    IF NOT FOUND THEN RETURN QUERY SELECT 'no_session', NULL::json; RETURN; END IF;
    v_name := coalesce(v_name, v_session.agent);
    IF v_session.agent <> v_name THEN RETURN QUERY SELECT 'other_agent', to_json(v_session.agent); RETURN; END IF;
  END IF;
  SELECT t.suspended AS tenant_suspended, coalesce((SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region), false) AS cordoned,
      a.name, a.suspended, a.concurrency, a.pool, a.bound IS NOT NULL AS bounded, a.revision
    INTO v_agent
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_name
    WHERE t.tenant_id = p_tenant;
  IF v_agent.cordoned THEN RETURN QUERY SELECT 'region_cordoned', NULL::json; RETURN; END IF;
  IF v_agent.tenant_suspended AND p_new ->> 'parent_run' IS NULL THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
  IF v_agent.name IS NULL THEN RETURN QUERY SELECT 'no_agent', NULL::json; RETURN; END IF;
  IF v_agent.suspended THEN RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN; END IF;
  v_revision := coalesce((p_new ->> 'revision')::integer, v_agent.revision);
  IF v_revision <> v_agent.revision AND NOT EXISTS (
    SELECT FROM hansa.agent_revisions r WHERE r.tenant_id = p_tenant AND r.agent = v_name AND r.revision = v_revision)
  THEN RETURN QUERY SELECT 'no_revision', NULL::json; RETURN; END IF;
  IF v_given IS NULL THEN
    v_session.id := (p_new ->> 'new_session_id')::uuid;
    v_session.last_seq := 0;
  ELSIF v_session.active_run IS NOT NULL AND v_agent.concurrency <> 'Enqueue' THEN
    IF v_agent.concurrency = 'Reject' THEN RETURN QUERY SELECT 'session_busy', to_json(v_session.active_run); RETURN; END IF;
    PERFORM hansa.session_interrupt(p_tenant, v_session.id, v_agent.concurrency = 'Rollback');
    SELECT * INTO v_session FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = v_given;
  END IF;
  v_gate := CASE WHEN v_start > clock_timestamp() THEN 'time' WHEN v_session.active_run IS NOT NULL THEN 'session'
    WHEN v_agent.bounded THEN 'agent' END;
  IF v_given IS NULL THEN
    INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run) VALUES (p_tenant, v_session.id, v_name, 1, 1, v_id);
  ELSE
    UPDATE hansa.sessions SET last_seq = last_seq + 1, newest_run = last_seq + 1, active_at = clock_timestamp(), active_run = coalesce(active_run, v_id)
      WHERE tenant_id = p_tenant AND id = v_session.id;
  END IF;
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, priority, input, parent_run, parent_step, depth)
    VALUES (p_tenant, v_id, v_session.id, v_session.last_seq + 1, v_name, v_revision, 'queued', v_gate, v_agent.pool,
      coalesce((p_new ->> 'priority')::smallint, 0), p_input, (p_new ->> 'parent_run')::uuid, p_new ->> 'parent_step',
      coalesce((p_new ->> 'depth')::smallint, 0))
    RETURNING * INTO v_run;
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data)
    VALUES (p_tenant, v_session.id, v_run.queued_seq, v_run.id, 'run.queued', json_build_object('input', v_run.input));
  PERFORM hansa.values_refer(p_tenant, v_session.id, ARRAY[v_run.input::text]);
  IF v_gate = 'time' THEN
    INSERT INTO hansa.waits (tenant_id, run_id, step, kind, look_at) VALUES (p_tenant, v_run.id, '', 'start', v_start);
  ELSIF v_gate = 'agent' THEN
    PERFORM hansa.slots_fill(p_tenant, v_name);
  END IF;
  answer := hansa.run_json(v_run);
  IF p_key IS NOT NULL THEN
    INSERT INTO hansa.idempotency_keys (tenant_id, principal, route, key, digest, status, answer)
      VALUES (p_tenant, p_principal, p_route, p_key, p_digest, 202, answer);
  END IF;
  outcome := 'accepted';
  RETURN NEXT;
END $$;
