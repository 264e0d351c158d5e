-- Who started a run, and on whose behalf: on the run, in its first event, and handed on to the agents that it calls.

-- {name, kind, on_behalf_of, may}: `may` is as much of what the starter may do as means something within a run; NULL: not known, for
-- the run was accepted by a release that did not keep it.
ALTER TABLE hansa.runs ADD COLUMN started_by json;

-- What the first event of a run says.
CREATE FUNCTION hansa.queued_json(p_input json, p_by json) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN p_by IS NULL THEN json_build_object('input', p_input) ELSE json_build_object('input', p_input, 'by', p_by) END
$$;

-- Replaces run_start of 0001_accept.sql: `p_new` may have `started_by`, which is kept of the run and told by its first event.
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
  IF v_agent.tenant_suspended THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
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
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, priority, input, parent_run, parent_step, depth,
      started_by)
    VALUES (p_tenant, v_id, v_session.id, v_session.last_seq + 1, v_name, v_revision, 'queued', v_gate, v_agent.pool,
      coalesce((p_new ->> 'priority')::smallint, 0), p_input, (p_new ->> 'parent_run')::uuid, p_new ->> 'parent_step',
      coalesce((p_new ->> 'depth')::smallint, 0), p_new -> 'started_by')
    RETURNING * INTO v_run;
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data)
    VALUES (p_tenant, v_session.id, v_run.queued_seq, v_run.id, 'run.queued', hansa.queued_json(v_run.input, v_run.started_by));
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

-- Replaces run_start_many of 0001_accept.sql, likewise.
CREATE OR REPLACE FUNCTION hansa.run_start_many(p_tenant uuid, p_region text, p_principals text[], p_routes text[], p_keys text[], p_digests bytea[],
  p_new text[], p_inputs text[])
RETURNS TABLE (n integer, outcome text, answer json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE v_free boolean[]; v_open boolean; v_done integer[] := '{}'; v_each record;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  -- By itself, before anything is read: who held a key has committed what the next statement sees.
  v_free := ARRAY(SELECT k.key IS NULL OR (k.place = 1 AND
      pg_try_advisory_xact_lock(hashtextextended(concat_ws(chr(31), p_tenant, k.principal, k.route, k.key), 0)))
    FROM (SELECT a.*, row_number() OVER (PARTITION BY a.principal, a.route, a.key ORDER BY a.n) AS place
      FROM unnest(p_principals, p_routes, p_keys) WITH ORDINALITY AS a(principal, route, key, n)) k ORDER BY k.n);
  v_open := EXISTS (SELECT FROM hansa.tenants t WHERE t.tenant_id = p_tenant AND NOT t.suspended)
    AND NOT EXISTS (SELECT FROM hansa.regions g WHERE g.name = p_region AND g.cordoned);
  FOR v_each IN
    WITH asked AS MATERIALIZED (
      SELECT a.n, a.principal, a.route, a.key, a.digest, a.input::json AS input, j.*
      FROM unnest(p_principals, p_routes, p_keys, p_digests, p_new, p_inputs) WITH ORDINALITY AS a(principal, route, key, digest, new, input, n)
      CROSS JOIN LATERAL json_to_record(a.new::json) AS j(id uuid, new_session_id uuid, agent text, revision integer, priority smallint,
        start_at text, parent_run uuid, parent_step text, depth smallint,
        started_by json)
      WHERE v_open AND v_free[a.n]),
    usual AS MATERIALIZED (
      SELECT a.*, g.pool, g.revision AS newest
      FROM asked a CROSS JOIN LATERAL (SELECT * FROM hansa.agents g WHERE g.tenant_id = p_tenant AND g.name = a.agent LIMIT 1) g
      WHERE NOT g.suspended AND g.bound IS NULL AND coalesce(a.revision, g.revision) = g.revision AND a.start_at IS NULL
        AND (a.key IS NULL OR (SELECT k.key FROM hansa.idempotency_keys k
          WHERE k.tenant_id = p_tenant AND k.principal = a.principal AND k.route = a.route AND k.key = a.key) IS NULL)),
    opened AS (
      INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run)
        SELECT p_tenant, u.new_session_id, u.agent, 1, 1, u.id FROM usual u),
    accepted AS (
      INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, pool, priority, input, parent_run, parent_step, depth,
          started_by)
        SELECT p_tenant, u.id, u.new_session_id, 1, u.agent, u.newest, 'queued', u.pool, coalesce(u.priority, 0), u.input,
          u.parent_run, u.parent_step, coalesce(u.depth, 0), u.started_by FROM usual u
        RETURNING id, hansa.run_json(runs) AS answer),
    logged AS (
      INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data)
        SELECT p_tenant, u.new_session_id, 1, u.id, 'run.queued', hansa.queued_json(u.input, u.started_by) FROM usual u),
    kept AS (
      INSERT INTO hansa.idempotency_keys (tenant_id, principal, route, key, digest, status, answer)
        SELECT p_tenant, u.principal, u.route, u.key, u.digest, 202, a.answer FROM usual u JOIN accepted a ON a.id = u.id WHERE u.key IS NOT NULL)
    SELECT u.n, u.new_session_id AS session, u.input, a.answer FROM usual u JOIN accepted a ON a.id = u.id
  LOOP
    PERFORM hansa.values_refer(p_tenant, v_each.session, ARRAY[v_each.input::text]);
    v_done := v_done || v_each.n::integer;
    RETURN QUERY SELECT v_each.n::integer, 'accepted', v_each.answer;
  END LOOP;
  IF cardinality(v_done) = cardinality(p_new) THEN RETURN; END IF;
  FOR v_each IN SELECT a.n::integer AS i FROM unnest(p_new::json[]) WITH ORDINALITY AS a(new, n)
    WHERE a.n <> ALL (v_done) ORDER BY a.new ->> 'agent', a.n
  LOOP
    RETURN QUERY SELECT v_each.i, s.outcome, s.answer
      FROM hansa.run_start(p_tenant, p_principals[v_each.i], p_routes[v_each.i], p_keys[v_each.i], p_digests[v_each.i], p_region,
        p_new[v_each.i]::json, p_inputs[v_each.i]::json) s;
  END LOOP;
END $$;

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

-- Replaces run_load of 0001_drive.sql: also says who started each run.
DROP FUNCTION hansa.run_load(uuid, uuid[], integer[]);
CREATE FUNCTION hansa.run_load(p_tenant uuid, p_runs uuid[], p_epochs integer[])
RETURNS TABLE (run uuid, agent text, revision integer, input json, takeovers integer, attempt integer, depth smallint, wish text,
  active float8, world bigint, history json, steps json, started_by json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT r.id, r.agent, r.revision, r.input, r.takeovers, r.attempt, r.depth,
      CASE WHEN r.cancel_requested_at IS NOT NULL THEN 'cancel' WHEN r.suspend_requested_at IS NOT NULL THEN 'suspend'
        WHEN g.suspended THEN 'suspend_agent' END,
      extract(epoch FROM r.active)::float8, t.objects_version,
      CASE WHEN r.queued_seq > 1 OR s.forked_from IS NOT NULL THEN hansa.run_history(p_tenant, r) END,
      CASE WHEN r.epoch > 1 THEN hansa.run_steps(p_tenant, r) END, r.started_by
    FROM unnest(p_runs, p_epochs) AS a(run, epoch)
    CROSS JOIN LATERAL (SELECT * FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run AND r.epoch = a.epoch AND r.state = 'running' LIMIT 1) r
    CROSS JOIN LATERAL (SELECT s.forked_from FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id LIMIT 1) s
    LEFT JOIN LATERAL (SELECT g.suspended FROM hansa.agents g WHERE g.tenant_id = p_tenant AND g.name = r.agent LIMIT 1) g ON true
    CROSS JOIN (SELECT t.objects_version FROM hansa.tenants t WHERE t.tenant_id = p_tenant) t;
END $$;

-- Replaces run_fork of 0001_control.sql: `p_by` is who forks. Older code calls it without.
DROP FUNCTION hansa.run_fork(uuid, text, uuid, bigint, uuid, uuid);
CREATE FUNCTION hansa.run_fork(p_tenant uuid, p_region text, p_run uuid, p_at bigint, p_new_run uuid, p_new_session uuid,
  p_by json DEFAULT NULL)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_new hansa.runs; v_last bigint; v_refused text;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN QUERY SELECT 'no_run', NULL::json; RETURN; END IF;
  SELECT CASE WHEN (SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region) THEN 'region_cordoned' WHEN t.suspended THEN 'tenant_suspended'
      WHEN a.name IS NULL THEN 'no_agent' WHEN a.suspended THEN 'agent_suspended' END INTO v_refused
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_run.agent WHERE t.tenant_id = p_tenant;
  IF v_refused IS NOT NULL THEN RETURN QUERY SELECT v_refused, to_json(v_run.agent); RETURN; END IF;
  SELECT max(e.seq) INTO v_last FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id AND e.seq >= v_run.queued_seq AND e.run_id = p_run;
  IF p_at < v_run.queued_seq OR p_at > v_last THEN
    RETURN QUERY SELECT 'at_outside', json_build_array(v_run.queued_seq, v_last); RETURN;
  END IF;
  INSERT INTO hansa.sessions (tenant_id, id, agent, newest_run, active_run, forked_from, forked_seq)
    VALUES (p_tenant, p_new_session, v_run.agent, 1, p_new_run, v_run.session_id, v_run.queued_seq);
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, priority, input, depth, started_by)
    VALUES (p_tenant, p_new_run, p_new_session, 1, v_run.agent, v_run.revision, 'queued', 'session', v_run.pool, v_run.priority, v_run.input, 0, p_by);
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
