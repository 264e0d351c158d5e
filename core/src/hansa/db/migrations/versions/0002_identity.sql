-- Who started a run, and on whose behalf: on the run, in its first event, and handed on to the agents that it calls.

-- {name, kind, on_behalf_of, may}: `may` is as much of what the starter may do as means something within a run; NULL: not known, for
-- the run was accepted by a release that did not keep it.
ALTER TABLE hansa.runs ADD COLUMN started_by json;

-- What the first event of a run says.
CREATE FUNCTION hansa.queued_json(p_input json, p_by json) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN p_by IS NULL THEN json_build_object('input', p_input) ELSE json_build_object('input', p_input, 'by', p_by) END
$$;

-- Replaces run_json of 0001_log.sql: shows who started a run.
CREATE OR REPLACE FUNCTION hansa.run_json(r hansa.runs) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE v_waits json := '[]';
BEGIN
  IF r.state IN ('waiting', 'suspended') OR r.gate = 'time' THEN
    SELECT coalesce(json_agg(json_build_object('kind', w.kind, 'step', w.step, 'key', w.key, 'until', w.look_at) ORDER BY w.step), '[]') INTO v_waits
      FROM hansa.waits w WHERE w.tenant_id = r.tenant_id AND w.run_id = r.id;
  END IF;
  RETURN json_build_object(
    'id', r.id, 'session_id', r.session_id, 'agent', r.agent, 'revision', r.revision, 'state', r.state, 'priority', r.priority,
    'input', r.input, 'output', r.output, 'error', r.error,
    'usage', json_build_object('input_tokens', r.input_tokens, 'output_tokens', r.output_tokens),
    'epoch', r.epoch, 'attempt', r.attempt, 'parent_run', r.parent_run, 'suspended_by', r.suspended_by, 'started_by', r.started_by,
    'waits', v_waits, 'created_at', r.created_at, 'started_at', r.started_at, 'finished_at', r.finished_at);
END $$;

-- Replaces wait_begin of 0001_waits.sql: who calls an agent tells for whom, and hands on no more than it may itself (`data.may`).
CREATE OR REPLACE FUNCTION hansa.wait_begin(p_tenant uuid, p_run uuid, p_wait json) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_run hansa.runs; v_kind text := p_wait ->> 'kind'; v_key text := p_wait ->> 'key'; v_step text := p_wait ->> 'step'; v_letter hansa.mailbox;
  v_look timestamptz := clock_timestamp() + make_interval(secs => (p_wait ->> 'seconds')::float8);
BEGIN
  IF v_kind = 'publish' THEN
    PERFORM hansa.outbox_put(p_tenant, md5(p_run || '.' || v_step)::uuid, 'event.published', v_key,
      json_build_object('name', v_key, 'data', p_wait -> 'data' -> 'data')::text);
    RETURN;
  END IF;
  SELECT * INTO v_run FROM hansa.runs WHERE tenant_id = p_tenant AND id = p_run;
  IF v_kind = 'retry' THEN  -- which a worker that was lost may have begun to wait for
    DELETE FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = p_run AND kind = 'retry';
  END IF;
  INSERT INTO hansa.waits (tenant_id, run_id, step, kind, key, look_at) VALUES (p_tenant, p_run, v_step, v_kind, v_key, v_look);
  CASE v_kind
    WHEN 'approval' THEN
      INSERT INTO hansa.approvals (tenant_id, id, run_id, step, kind, subject, expires_at)
        VALUES (p_tenant, v_key::uuid, p_run, v_step, p_wait -> 'data' ->> 'kind', p_wait -> 'data' -> 'subject', v_look);
    WHEN 'child' THEN
      PERFORM hansa.outbox_put(p_tenant, v_key::uuid, 'run.call', p_run::text, json_build_object('id', v_key, 'agent', p_wait -> 'data' ->> 'agent',
        'input', p_wait -> 'data' -> 'input', 'parent_run', p_run, 'parent_step', v_step, 'depth', v_run.depth + 1, 'priority', v_run.priority,
        'started_by', json_build_object('name', 'agent:' || v_run.agent, 'kind', 'agent', 'on_behalf_of', v_run.started_by -> 'on_behalf_of',
          'may', p_wait -> 'data' -> 'may'))::text);
    WHEN 'event' THEN
      DELETE FROM hansa.mailbox m WHERE m.tenant_id = p_tenant AND m.session_id = v_run.session_id AND m.id = (
        SELECT f.id FROM hansa.mailbox f WHERE f.tenant_id = p_tenant AND f.session_id = v_run.session_id AND f.name = v_key ORDER BY f.id LIMIT 1)
        RETURNING m.* INTO v_letter;
      IF FOUND THEN
        PERFORM hansa.wait_resolve(p_tenant, p_run, v_step, 'event.received', json_build_object('name', v_key, 'data', v_letter.data));
      END IF;
    ELSE NULL;
  END CASE;
END $$;

-- Replaces run_fork of 0001_control.sql: `p_by` is who forks. Older code calls it without.
DROP FUNCTION hansa.run_fork(uuid, text, uuid, bigint, uuid, uuid);
CREATE FUNCTION hansa.run_fork(p_tenant uuid, p_region text, p_run uuid, p_at bigint, p_new_run uuid, p_new_session uuid,
  p_by json DEFAULT NULL)
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
