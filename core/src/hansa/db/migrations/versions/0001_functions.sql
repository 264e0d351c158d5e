-- The engine's verbs, one round trip each. All run with the rights of their caller, so row-level security holds in them;
-- those called by the app set the tenant for their own transaction first.

CREATE FUNCTION hansa.run_json(r hansa.runs) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', r.id, 'session_id', r.session_id, 'agent', r.agent, 'revision', r.revision, 'state', r.state,
    'input', r.input, 'output', r.output, 'error', r.error,
    'usage', json_build_object('input_tokens', r.input_tokens, 'output_tokens', r.output_tokens),
    'epoch', r.epoch, 'created_at', r.created_at, 'started_at', r.started_at, 'finished_at', r.finished_at)
$$;

-- Appends events to a session's log without a gap: the session's row is locked by the update, so numbers are given in
-- commit order. Returns the last number.
CREATE FUNCTION hansa.log_append(p_tenant uuid, p_session uuid, p_run uuid, p_types text[], p_steps text[], p_data text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_last bigint; v_count integer := cardinality(p_types);
BEGIN
  UPDATE hansa.sessions SET last_seq = last_seq + v_count WHERE tenant_id = p_tenant AND id = p_session RETURNING last_seq INTO v_last;
  IF NOT FOUND THEN RAISE EXCEPTION 'session % is not there', p_session; END IF;
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, step, data)
    SELECT p_tenant, p_session, v_last - v_count + e.n, p_run, e.type, e.step, e.data::json
    FROM unnest(p_types, p_steps, p_data) WITH ORDINALITY AS e(type, step, data, n);
  RETURN v_last;
END $$;

-- The session of a run, locked. Every verb that writes both locks the session first and runs after it, so that no two of them
-- ever wait for each other. NULL: no such run.
CREATE FUNCTION hansa.session_lock(p_tenant uuid, p_run uuid) RETURNS uuid LANGUAGE sql AS $$
  SELECT s.id FROM hansa.runs r JOIN hansa.sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id
  WHERE r.tenant_id = p_tenant AND r.id = p_run FOR UPDATE OF s
$$;

-- Lets the session's next queued run be claimed, after its active run has ended.
CREATE FUNCTION hansa.session_advance(p_tenant uuid, p_session uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_next uuid;
BEGIN
  SELECT id INTO v_next FROM hansa.runs WHERE tenant_id = p_tenant AND session_id = p_session AND state = 'queued' ORDER BY queued_seq LIMIT 1;
  IF FOUND THEN UPDATE hansa.runs SET ready = true WHERE tenant_id = p_tenant AND id = v_next; END IF;
  UPDATE hansa.sessions SET active_run = v_next WHERE tenant_id = p_tenant AND id = p_session;
END $$;

-- Accepts a run: admission, idempotency, session, run and first event in one transaction. `outcome` is accepted, replayed
-- or the reason of a refusal; `answer` is the run as JSON (or the time of first use when a key is used again wrongly).
CREATE FUNCTION hansa.run_start(p_tenant uuid, p_principal text, p_route text, p_key text, p_digest bytea, p_region text, p_agent text,
  p_revision integer, p_session uuid, p_new_session uuid, p_run uuid, p_input text)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE v_session hansa.sessions; v_run hansa.runs; v_old hansa.idempotency_keys; v_revision integer; v_suspended boolean; v_agent text := p_agent;
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
  IF EXISTS (SELECT FROM hansa.regions WHERE name = p_region AND cordoned) THEN RETURN QUERY SELECT 'region_cordoned', NULL::json; RETURN; END IF;
  IF EXISTS (SELECT FROM hansa.tenants WHERE tenant_id = p_tenant AND suspended) THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
  IF p_session IS NOT NULL THEN
    SELECT * INTO v_session FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = p_session FOR UPDATE;
    IF NOT FOUND THEN RETURN QUERY SELECT 'no_session', NULL::json; RETURN; END IF;
    IF v_agent IS NULL THEN v_agent := v_session.agent; END IF;
    IF v_session.agent <> v_agent THEN RETURN QUERY SELECT 'other_agent', to_json(v_session.agent); RETURN; END IF;
  END IF;
  SELECT coalesce((o.manifest -> 'spec' ->> 'suspend')::boolean, false) INTO v_suspended FROM hansa.objects o
    WHERE o.tenant_id = p_tenant AND o.kind = 'Agent' AND o.name = v_agent;
  IF NOT FOUND THEN RETURN QUERY SELECT 'no_agent', NULL::json; RETURN; END IF;
  IF v_suspended THEN RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN; END IF;
  SELECT r.revision INTO v_revision FROM hansa.agent_revisions r
    WHERE r.tenant_id = p_tenant AND r.agent = v_agent AND (p_revision IS NULL OR r.revision = p_revision) ORDER BY r.revision DESC LIMIT 1;
  IF NOT FOUND THEN RETURN QUERY SELECT 'no_revision', NULL::json; RETURN; END IF;
  IF p_session IS NULL THEN
    INSERT INTO hansa.sessions (tenant_id, id, agent) VALUES (p_tenant, p_new_session, v_agent) RETURNING * INTO v_session;
  END IF;
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, ready, input)
    VALUES (p_tenant, p_run, v_session.id, v_session.last_seq + 1, v_agent, v_revision, 'queued', v_session.active_run IS NULL, p_input::json)
    RETURNING * INTO v_run;
  IF v_session.active_run IS NULL THEN
    UPDATE hansa.sessions SET active_run = p_run WHERE tenant_id = p_tenant AND id = v_session.id;
  END IF;
  PERFORM hansa.log_append(p_tenant, v_session.id, p_run, ARRAY['run.queued'], ARRAY[NULL::text], ARRAY[json_build_object('input', v_run.input)::text]);
  answer := hansa.run_json(v_run);
  IF p_key IS NOT NULL THEN
    INSERT INTO hansa.idempotency_keys (tenant_id, principal, route, key, digest, status, answer)
      VALUES (p_tenant, p_principal, p_route, p_key, p_digest, 202, answer);
  END IF;
  outcome := 'accepted';
  RETURN NEXT;
END $$;

-- Takes up to p_limit runs for a worker: runs whose lease has run out first, then ready ones by age. Called by the system.
CREATE FUNCTION hansa.run_claim(p_worker text, p_limit integer, p_lease interval)
RETURNS TABLE (tenant_id uuid, id uuid, epoch integer) LANGUAGE sql AS $$
  WITH lost AS (
    SELECT r.tenant_id, r.id, 1 AS taken FROM hansa.runs r WHERE r.state = 'running' AND r.lease_until < clock_timestamp()
    ORDER BY r.lease_until LIMIT p_limit FOR UPDATE SKIP LOCKED
  ), fresh AS (
    SELECT r.tenant_id, r.id, 0 AS taken FROM hansa.runs r WHERE r.state = 'queued' AND r.ready
    ORDER BY r.id LIMIT p_limit FOR UPDATE SKIP LOCKED
  ), picked AS (SELECT * FROM (SELECT * FROM lost UNION ALL SELECT * FROM fresh) b ORDER BY taken DESC LIMIT p_limit)
  UPDATE hansa.runs r SET state = 'running', epoch = r.epoch + 1, takeovers = r.takeovers + p.taken, writes = 0, worker = p_worker,
    lease_until = clock_timestamp() + p_lease, started_at = coalesce(r.started_at, clock_timestamp())
  FROM picked p WHERE r.tenant_id = p.tenant_id AND r.id = p.id
  RETURNING r.tenant_id, r.id, r.epoch
$$;

-- Prolongs leases; what is missing from the answer is no longer this worker's. Called by the system.
CREATE FUNCTION hansa.run_renew(p_tenants uuid[], p_runs uuid[], p_epochs integer[], p_lease interval)
RETURNS TABLE (id uuid, cancel boolean) LANGUAGE sql AS $$
  UPDATE hansa.runs r SET lease_until = clock_timestamp() + p_lease
  FROM unnest(p_tenants, p_runs, p_epochs) AS m(tenant_id, id, epoch)
  WHERE r.tenant_id = m.tenant_id AND r.id = m.id AND r.epoch = m.epoch AND r.state = 'running'
  RETURNING r.id, r.cancel_requested_at IS NOT NULL
$$;

-- Gives runs back at once, for a worker that is told to stop. Called by the system.
CREATE FUNCTION hansa.run_release(p_tenants uuid[], p_runs uuid[], p_epochs integer[]) RETURNS integer LANGUAGE sql AS $$
  WITH released AS (
    UPDATE hansa.runs r SET lease_until = clock_timestamp(), takeovers = greatest(r.takeovers - 1, -1)
    FROM unnest(p_tenants, p_runs, p_epochs) AS m(tenant_id, id, epoch)
    WHERE r.tenant_id = m.tenant_id AND r.id = m.id AND r.epoch = m.epoch AND r.state = 'running' RETURNING 1)
  SELECT count(*)::integer FROM released
$$;

-- The one write of a running run: events, usage, lease and, with p_state, the end. p_write counts the writes of this epoch from
-- 1, so that a write whose answer was lost can be sent again and is done once. NULL: fenced, someone else owns the run.
CREATE FUNCTION hansa.run_append(p_tenant uuid, p_run uuid, p_epoch integer, p_write integer, p_lease interval, p_types text[], p_steps text[], p_data text[],
  p_input_tokens bigint, p_output_tokens bigint, p_state text, p_output text, p_error text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_session uuid; v_last bigint;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_session := hansa.session_lock(p_tenant, p_run);
  UPDATE hansa.runs SET
      lease_until = CASE WHEN p_state IS NULL THEN clock_timestamp() + p_lease END,
      takeovers = 0, writes = p_write,
      input_tokens = input_tokens + p_input_tokens, output_tokens = output_tokens + p_output_tokens,
      state = coalesce(p_state, state), output = p_output::json, error = p_error::json,
      finished_at = CASE WHEN p_state IS NOT NULL THEN clock_timestamp() END
    WHERE tenant_id = p_tenant AND id = p_run AND epoch = p_epoch AND writes = p_write - 1 AND state = 'running';
  IF NOT FOUND THEN
    RETURN (SELECT s.last_seq FROM hansa.runs r JOIN hansa.sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id
      WHERE r.tenant_id = p_tenant AND r.id = p_run AND r.epoch = p_epoch AND r.writes = p_write);
  END IF;
  v_last := hansa.log_append(p_tenant, v_session, p_run, p_types, p_steps, p_data);
  IF p_state IS NOT NULL THEN PERFORM hansa.session_advance(p_tenant, v_session); END IF;
  RETURN v_last;
END $$;

-- All that a worker needs to go on with a run it has claimed, and the event that says so. NULL: fenced.
CREATE FUNCTION hansa.run_load(p_tenant uuid, p_run uuid, p_epoch integer, p_worker text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_last bigint;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  PERFORM hansa.session_lock(p_tenant, p_run);
  SELECT * INTO v_run FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = p_run AND r.epoch = p_epoch AND r.state = 'running' FOR UPDATE;
  IF NOT FOUND THEN RETURN NULL; END IF;
  v_last := hansa.log_append(p_tenant, v_run.session_id, p_run, ARRAY[CASE WHEN p_epoch = 1 THEN 'run.started' ELSE 'run.resumed' END],
    ARRAY[NULL::text], ARRAY[json_build_object('epoch', p_epoch, 'worker', p_worker)::text]);
  RETURN json_build_object(
    'run', hansa.run_json(v_run), 'takeovers', v_run.takeovers, 'cancel', v_run.cancel_requested_at IS NOT NULL, 'seq', v_last,
    'elapsed', extract(epoch FROM clock_timestamp() - v_run.started_at)::float8,
    'context', hansa.run_context(p_tenant, v_run));
END $$;

-- What a run was given and what it has done, for execution and for replay alike.
CREATE FUNCTION hansa.run_context(p_tenant uuid, v_run hansa.runs) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'manifest', (SELECT a.manifest FROM hansa.agent_revisions a
      WHERE a.tenant_id = p_tenant AND a.agent = v_run.agent AND a.revision = v_run.revision),
    'providers', coalesce((SELECT json_agg(o.manifest ORDER BY o.name) FROM hansa.objects o
      WHERE o.tenant_id = p_tenant AND o.kind = 'ModelProvider'), '[]'),
    'tool_servers', coalesce((SELECT json_agg(json_build_object('manifest', o.manifest, 'status', o.status) ORDER BY o.name) FROM hansa.objects o
      WHERE o.tenant_id = p_tenant AND o.kind = 'ToolServer' AND o.name IN (
        SELECT u.value ->> 'toolServer' FROM hansa.agent_revisions a, json_array_elements(a.manifest -> 'spec' -> 'tools') u
        WHERE a.tenant_id = p_tenant AND a.agent = v_run.agent AND a.revision = v_run.revision)), '[]'),
    'history', coalesce((SELECT json_agg(json_build_array(h.input, h.output) ORDER BY h.queued_seq) FROM (
      SELECT r.queued_seq, r.input, r.output FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.session_id = v_run.session_id
        AND r.queued_seq < v_run.queued_seq AND r.state = 'completed' ORDER BY r.queued_seq DESC LIMIT 50) h), '[]'),
    'steps', coalesce((SELECT json_agg(json_build_object('type', e.type, 'step', e.step, 'data', e.data) ORDER BY e.seq) FROM hansa.events e
      WHERE e.tenant_id = p_tenant AND e.run_id = v_run.id AND e.step IS NOT NULL), '[]'))
$$;

-- Cancels a run: at once when nobody works on it, else by asking its worker. NULL: no such run.
CREATE FUNCTION hansa.run_cancel(p_tenant uuid, p_run uuid) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_active uuid;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  PERFORM hansa.session_lock(p_tenant, p_run);
  SELECT * INTO v_run FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = p_run FOR UPDATE;
  IF NOT FOUND THEN RETURN NULL; END IF;
  IF v_run.state IN ('queued', 'needs_review') THEN
    UPDATE hansa.runs SET state = 'canceled', finished_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_run RETURNING * INTO v_run;
    PERFORM hansa.log_append(p_tenant, v_run.session_id, p_run, ARRAY['run.canceled'], ARRAY[NULL::text], ARRAY['{}']);
    SELECT active_run INTO v_active FROM hansa.sessions WHERE tenant_id = p_tenant AND id = v_run.session_id;
    IF v_active = p_run THEN PERFORM hansa.session_advance(p_tenant, v_run.session_id); END IF;
  ELSIF v_run.state = 'running' AND v_run.cancel_requested_at IS NULL THEN
    UPDATE hansa.runs SET cancel_requested_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_run RETURNING * INTO v_run;
    PERFORM hansa.log_append(p_tenant, v_run.session_id, p_run, ARRAY['run.cancel_requested'], ARRAY[NULL::text], ARRAY['{}']);
  END IF;
  RETURN hansa.run_json(v_run);
END $$;
