-- What people do with runs: cancel, suspend, resume, decide, fork.

-- Ends a run that no worker drives. The caller holds its session.
CREATE OR REPLACE FUNCTION hansa.run_end(p_tenant uuid, v_run hansa.runs, p_state text, p_error json) RETURNS hansa.runs LANGUAGE plpgsql AS $$
DECLARE v_ended hansa.runs;
BEGIN
  UPDATE hansa.runs SET state = p_state, gate = NULL, error = p_error, suspended_by = NULL, finished_at = clock_timestamp()
    WHERE tenant_id = p_tenant AND id = v_run.id RETURNING * INTO v_ended;
  PERFORM hansa.log_one(p_tenant, v_run.session_id, v_run.id, 'run.' || p_state, NULL,
    CASE WHEN p_error IS NULL THEN '{}' ELSE json_build_object('error', p_error) END);
  PERFORM hansa.run_ended(p_tenant, v_run.id);
  RETURN v_ended;
END $$;

-- Cancels a run: at once when nobody works on it, else by asking its worker. The caller has it locked.
CREATE OR REPLACE FUNCTION hansa.run_stop(p_tenant uuid, v_run hansa.runs) RETURNS hansa.runs LANGUAGE plpgsql AS $$
BEGIN
  IF v_run.state IN ('queued', 'waiting', 'suspended', 'needs_review') THEN
    v_run := hansa.run_end(p_tenant, v_run, 'canceled', NULL);
  ELSIF v_run.state = 'running' AND v_run.cancel_requested_at IS NULL THEN
    UPDATE hansa.runs SET cancel_requested_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = v_run.id RETURNING * INTO v_run;
    PERFORM hansa.log_one(p_tenant, v_run.session_id, v_run.id, 'run.cancel_requested', NULL, '{}');
  END IF;
  RETURN v_run;
END $$;

-- Cancels a run for a person, or for the run that called it. NULL: no such run.
CREATE OR REPLACE FUNCTION hansa.run_cancel(p_tenant uuid, p_run uuid) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN NULL; END IF;
  RETURN hansa.run_json(hansa.run_stop(p_tenant, v_run));
END $$;

-- Makes way in a session for a new run: all its runs that have not ended are canceled; with p_rollback they are also left out of
-- what later runs are told was said before.
CREATE OR REPLACE FUNCTION hansa.session_interrupt(p_tenant uuid, p_session uuid, p_rollback boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs;
BEGIN
  PERFORM hansa.agents_lock(p_tenant, (SELECT ARRAY[s.agent] FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = p_session));
  -- The last first, so that none is let go only to be canceled.
  FOR v_run IN SELECT * FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.session_id = p_session
      AND r.queued_seq >= (SELECT a.queued_seq FROM hansa.sessions s JOIN hansa.runs a ON a.tenant_id = s.tenant_id AND a.id = s.active_run
        WHERE s.tenant_id = p_tenant AND s.id = p_session)
      AND r.state NOT IN ('completed', 'failed', 'canceled') ORDER BY r.queued_seq DESC FOR UPDATE
  LOOP
    UPDATE hansa.runs SET interrupted = NOT p_rollback, rolled_back = p_rollback WHERE tenant_id = p_tenant AND id = v_run.id
      RETURNING * INTO v_run;
    PERFORM hansa.run_stop(p_tenant, v_run);
  END LOOP;
END $$;

-- Holds a run that no worker drives any more. The caller has it locked.
CREATE OR REPLACE FUNCTION hansa.run_park(p_tenant uuid, v_run hansa.runs, p_by text) RETURNS hansa.runs LANGUAGE plpgsql AS $$
DECLARE v_held hansa.runs;
BEGIN
  UPDATE hansa.runs SET state = 'suspended', gate = NULL, suspended_by = p_by, suspend_requested_at = NULL
    WHERE tenant_id = p_tenant AND id = v_run.id RETURNING * INTO v_held;
  PERFORM hansa.slot_leave(p_tenant, v_run.id);
  PERFORM hansa.log_one(p_tenant, v_run.session_id, v_run.id, 'run.suspended', NULL, json_build_object('by', p_by));
  RETURN v_held;
END $$;

-- Lets a run go on that was held, or was to be: at once, or when its time has come if it waits for that. The caller has it locked.
CREATE OR REPLACE FUNCTION hansa.run_continue(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_kind text;
BEGIN
  SELECT w.kind INTO v_kind FROM hansa.waits w WHERE w.tenant_id = p_tenant AND w.run_id = p_run AND w.kind IN ('start', 'retry');
  IF NOT FOUND THEN
    PERFORM hansa.run_ready(p_tenant, p_run);
  ELSE
    UPDATE hansa.runs SET suspended_by = NULL, state = CASE v_kind WHEN 'start' THEN 'queued' ELSE 'waiting' END,
      gate = CASE v_kind WHEN 'start' THEN 'time' END WHERE tenant_id = p_tenant AND id = p_run;
    PERFORM hansa.slot_leave(p_tenant, p_run);
  END IF;
END $$;

-- Holds a run: at once, or as soon as its worker has heard. NULL: no such run.
CREATE OR REPLACE FUNCTION hansa.run_suspend(p_tenant uuid, p_run uuid) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN NULL; END IF;
  IF v_run.state = 'waiting' OR (v_run.state = 'queued' AND v_run.gate IS DISTINCT FROM 'session') THEN
    v_run := hansa.run_park(p_tenant, v_run, 'run');
  ELSIF v_run.state = 'suspended' THEN
    UPDATE hansa.runs SET suspended_by = 'run' WHERE tenant_id = p_tenant AND id = p_run RETURNING * INTO v_run;
  ELSIF v_run.state IN ('running', 'queued') AND v_run.suspend_requested_at IS NULL THEN  -- one behind others is held when its turn has come
    UPDATE hansa.runs SET suspend_requested_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_run RETURNING * INTO v_run;
  END IF;
  RETURN hansa.run_json(v_run);
END $$;

-- Stops a run whose worker has let go of it, because someone wants it, its agent or its tenant held; if nobody does any more, it goes on.
-- A call of a model that was stopped is settled.
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
  IF EXISTS (SELECT FROM hansa.reservations v WHERE v.tenant_id = p_tenant AND v.run_id = p_run) THEN
    PERFORM hansa.usage_settle(p_tenant, true, '[]', ARRAY[p_run], ARRAY[p_epoch + 1]);
  END IF;
  RETURN true;
END $$;

-- Lets a suspended run go on, or decides about a call of which nobody knows whether it was made: `done` (with what it answered),
-- `retry` (it is made again) or `fail`. `outcome`: resumed, or why not: the state, or `as_missing`, `as_unasked`, `agent_suspended`,
-- `tenant_suspended`.
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

-- A new run, in a session of its own, that has done what another had done up to an event of its log, and goes on from there.
-- `p_at`: the last number to be taken over; `p_by`: who forks. `outcome`: accepted, no_run, at_outside, or why its agent takes no new runs.
-- The new session is in the namespace of the old one, whose past it shows, and keeps the revision of the run that is forked; one that checks a revision is not.
CREATE OR REPLACE FUNCTION hansa.run_fork(p_tenant uuid, p_region text, p_run uuid, p_at bigint, p_new_run uuid, p_new_session uuid,
  p_by json DEFAULT NULL)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_new hansa.runs; v_last bigint; v_refused text; v_pool text;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN QUERY SELECT 'no_run', NULL::json; RETURN; END IF;
  SELECT CASE WHEN (SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region) THEN 'region_cordoned' WHEN t.suspended THEN 'tenant_suspended'
      WHEN a.name IS NULL THEN 'no_agent' WHEN a.suspended THEN 'agent_suspended'
      WHEN (SELECT s.smoke FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = v_run.session_id) THEN 'smoke_session' END, a.pool INTO v_refused, v_pool
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_run.agent WHERE t.tenant_id = p_tenant;
  IF v_refused IS NOT NULL THEN RETURN QUERY SELECT v_refused, to_json(v_run.agent); RETURN; END IF;
  SELECT max(e.seq) INTO v_last FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id AND e.seq >= v_run.queued_seq AND e.run_id = p_run;
  IF p_at < v_run.queued_seq OR p_at > v_last THEN
    RETURN QUERY SELECT 'at_outside', json_build_array(v_run.queued_seq, v_last); RETURN;
  END IF;
  INSERT INTO hansa.sessions (tenant_id, id, agent, newest_run, active_run, forked_from, forked_seq, revision, namespace)
    SELECT p_tenant, p_new_session, v_run.agent, 1, p_new_run, v_run.session_id, v_run.queued_seq, v_run.revision, s.namespace
    FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = v_run.session_id;
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, priority, input, depth, started_by)
    VALUES (p_tenant, p_new_run, p_new_session, 1, v_run.agent, v_run.revision, 'queued', 'session', v_pool, v_run.priority, v_run.input, 0, p_by);
  -- Only steps with their result are taken over; a call that was begun or approved and not made is the new run's to do and to ask for.
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, step, data)
    SELECT p_tenant, p_new_session, row_number() OVER (ORDER BY e.seq), p_new_run, e.type, e.step,
      CASE WHEN e.type <> 'run.queued' THEN e.data
        WHEN p_by IS NULL THEN json_build_object('input', v_run.input, 'forked_from', json_build_object('run_id', p_run, 'seq', p_at))
        ELSE json_build_object('input', v_run.input, 'by', p_by, 'forked_from', json_build_object('run_id', p_run, 'seq', p_at)) END
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
