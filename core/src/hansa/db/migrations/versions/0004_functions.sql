-- What replaces functions of earlier schemas, so that sessions keep the namespace of their agent, and authority that holds in some namespaces
-- only goes no further. Run as hansa_owner.

-- Replaces run_start of 0003_rollout.sql. `p_new.within`: the namespaces in which the run may be, left out: all. `elsewhere`: its agent stands
-- in another one. A session in another one is not there, nor is a revision of an agent that stood in another one then.
CREATE OR REPLACE FUNCTION hansa.run_start(p_tenant uuid, p_principal text, p_route text, p_key text, p_digest bytea, p_region text, p_new json,
  p_input json)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE
  v_session hansa.sessions; v_run hansa.runs; v_old hansa.idempotency_keys; v_agent record; v_revision integer;
  v_name text := p_new ->> 'agent'; v_given uuid := p_new ->> 'session_id'; v_start timestamptz := p_new ->> 'start_at';
  v_gate text; v_id uuid := p_new ->> 'id';
  v_within text[];
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF p_new -> 'within' IS NOT NULL THEN v_within := ARRAY(SELECT json_array_elements_text(p_new -> 'within')); END IF;
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
    IF NOT FOUND OR NOT coalesce(v_within IS NULL OR v_session.namespace = ANY (v_within), false) THEN
      RETURN QUERY SELECT 'no_session', NULL::json; RETURN;
    END IF;
    v_name := coalesce(v_name, v_session.agent);
    IF v_session.agent <> v_name THEN RETURN QUERY SELECT 'other_agent', to_json(v_session.agent); RETURN; END IF;
    IF v_session.smoke THEN RETURN QUERY SELECT 'smoke_session', NULL::json; RETURN; END IF;
    IF v_session.revision IS NULL THEN  -- of an earlier release: it goes on as it last did
      v_session.revision := (SELECT r.revision FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.session_id = v_given ORDER BY r.queued_seq DESC LIMIT 1);
    END IF;
  END IF;
  SELECT t.suspended AS tenant_suspended, t.metered, t.storage_bytes, coalesce((SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region), false) AS cordoned,
      a.name, a.suspended, a.concurrency, a.pool, a.bound IS NOT NULL AS bounded, a.revision, a.namespace
    INTO v_agent
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_name
    WHERE t.tenant_id = p_tenant;
  IF v_agent.cordoned THEN RETURN QUERY SELECT 'region_cordoned', NULL::json; RETURN; END IF;
  IF v_agent.tenant_suspended AND p_new ->> 'parent_run' IS NULL THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
  IF v_agent.name IS NULL THEN RETURN QUERY SELECT 'no_agent', NULL::json; RETURN; END IF;
  IF NOT coalesce(v_within IS NULL OR v_agent.namespace = ANY (v_within), false) THEN RETURN QUERY SELECT 'elsewhere', NULL::json; RETURN; END IF;
  IF v_agent.suspended THEN RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN; END IF;
  IF v_agent.metered THEN
    answer := hansa.budget_refusal(p_tenant, v_name);
    IF answer IS NOT NULL THEN outcome := 'budget_spent'; RETURN NEXT; RETURN; END IF;
  END IF;
  IF v_agent.storage_bytes IS NOT NULL THEN
    answer := hansa.storage_refusal(p_tenant, 1);
    IF answer IS NOT NULL THEN outcome := 'budget_spent'; RETURN NEXT; RETURN; END IF;
  END IF;
  v_revision := coalesce((p_new ->> 'revision')::integer, v_session.revision, v_agent.revision);
  IF v_revision = 0 THEN RETURN QUERY SELECT 'not_served', hansa.rollout_json(p_tenant, v_name, NULL); RETURN; END IF;
  IF v_revision NOT IN (v_agent.revision, coalesce(v_session.revision, 0)) THEN
    IF NOT EXISTS (SELECT FROM hansa.agent_revisions r WHERE r.tenant_id = p_tenant AND r.agent = v_name AND r.revision = v_revision
        AND (v_within IS NULL OR coalesce(r.manifest -> 'metadata' ->> 'namespace',
          (SELECT t.name FROM hansa.tenants t WHERE t.tenant_id = p_tenant)) = ANY (v_within))) THEN
      RETURN QUERY SELECT 'no_revision', NULL::json; RETURN;
    END IF;
    answer := hansa.rollout_json(p_tenant, v_name, v_revision);
    IF answer ->> 'state' <> 'served' THEN outcome := 'not_served'; RETURN NEXT; RETURN; END IF;
    answer := NULL;
  END IF;
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
    INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run, revision, namespace)
      VALUES (p_tenant, v_session.id, v_name, 1, 1, v_id, v_revision, v_agent.namespace);
  ELSE
    UPDATE hansa.sessions SET last_seq = last_seq + 1, newest_run = last_seq + 1, active_at = clock_timestamp(), active_run = coalesce(active_run, v_id),
        revision = v_revision
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

-- Replaces run_start_many of 0003_rollout.sql, likewise: who is let in in some namespaces only is looked at one by one.
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
  v_open := EXISTS (SELECT FROM hansa.tenants t WHERE t.tenant_id = p_tenant AND NOT t.suspended
      AND (NOT t.metered OR hansa.budget_refusal(p_tenant, NULL) IS NULL)
      AND (t.storage_bytes IS NULL OR hansa.storage_refusal(p_tenant, 1) IS NULL))
    AND NOT EXISTS (SELECT FROM hansa.regions g WHERE g.name = p_region AND g.cordoned);
  FOR v_each IN
    WITH asked AS MATERIALIZED (
      SELECT a.n, a.principal, a.route, a.key, a.digest, a.input::json AS input, j.*
      FROM unnest(p_principals, p_routes, p_keys, p_digests, p_new, p_inputs) WITH ORDINALITY AS a(principal, route, key, digest, new, input, n)
      CROSS JOIN LATERAL json_to_record(a.new::json) AS j(id uuid, new_session_id uuid, agent text, revision integer, priority smallint,
        start_at text, parent_run uuid, parent_step text, depth smallint,
        started_by json, within json)
      WHERE v_open AND v_free[a.n]),
    usual AS MATERIALIZED (
      SELECT a.*, g.pool, g.revision AS newest, g.namespace
      FROM asked a CROSS JOIN LATERAL (SELECT * FROM hansa.agents g WHERE g.tenant_id = p_tenant AND g.name = a.agent LIMIT 1) g
      WHERE NOT g.suspended AND g.bound IS NULL AND g.revision > 0 AND coalesce(a.revision, g.revision) = g.revision AND a.start_at IS NULL AND a.within IS NULL
        AND (a.key IS NULL OR (SELECT k.key FROM hansa.idempotency_keys k
          WHERE k.tenant_id = p_tenant AND k.principal = a.principal AND k.route = a.route AND k.key = a.key) IS NULL)),
    opened AS (
      INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run, revision, namespace)
        SELECT p_tenant, u.new_session_id, u.agent, 1, 1, u.id, u.newest, u.namespace FROM usual u),
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

-- Replaces run_fork of 0003_rollout.sql: the new session is where that of the run is, for it shows what was done there.
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

-- Replaces rollout_start of 0003_rollout.sql, likewise: it is where its agent is.
CREATE OR REPLACE FUNCTION hansa.rollout_start(p_tenant uuid, p_agent text, p_revision integer, p_run uuid, p_session uuid, p_input json, p_by json)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v hansa.rollouts;
BEGIN
  PERFORM FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent FOR UPDATE;
  SELECT * INTO v FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND l.revision = p_revision AND l.smoke_run = p_run
    AND l.state = 'checking' AND NOT EXISTS (SELECT FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = p_run);
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run, revision, smoke, namespace)
    VALUES (p_tenant, p_session, p_agent, 1, 1, p_run, p_revision, true,
      (SELECT a.namespace FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent));
  INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, gate, pool, priority, input, started_by)
    VALUES (p_tenant, p_run, p_session, 1, p_agent, p_revision, 'queued', 'session', hansa.pool_of(p_tenant, v.pool), 100, p_input, p_by);
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data)
    VALUES (p_tenant, p_session, 1, p_run, 'run.queued', hansa.queued_json(p_input, p_by));
  PERFORM hansa.values_refer(p_tenant, p_session, ARRAY[p_input::text]);
  UPDATE hansa.rollouts SET deadline = clock_timestamp() + make_interval(secs => seconds) WHERE tenant_id = p_tenant AND agent = p_agent AND revision = p_revision;
  INSERT INTO hansa.waits (tenant_id, run_id, step, kind, look_at)
    VALUES (p_tenant, p_run, 'rollout', 'rollout', clock_timestamp() + make_interval(secs => least(v.seconds, 60)));
  PERFORM hansa.run_ready(p_tenant, p_run);
  RETURN true;
END $$;

-- Replaces wait_begin of 0002_identity.sql: who publishes an event says in which namespaces it may (`data.within`, left out: all).
CREATE OR REPLACE FUNCTION hansa.wait_begin(p_tenant uuid, p_run uuid, p_wait json) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_run hansa.runs; v_kind text := p_wait ->> 'kind'; v_key text := p_wait ->> 'key'; v_step text := p_wait ->> 'step'; v_letter hansa.mailbox;
  v_look timestamptz := clock_timestamp() + make_interval(secs => (p_wait ->> 'seconds')::float8);
BEGIN
  IF v_kind = 'publish' THEN
    PERFORM hansa.outbox_put(p_tenant, md5(p_run || '.' || v_step)::uuid, 'event.published', v_key,
      CASE WHEN p_wait -> 'data' -> 'within' IS NULL THEN json_build_object('name', v_key, 'data', p_wait -> 'data' -> 'data')
        ELSE json_build_object('name', v_key, 'data', p_wait -> 'data' -> 'data', 'within', p_wait -> 'data' -> 'within') END::text);
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

-- Replaces event_publish of 0001_waits.sql: only sessions in some namespaces hear it; without `p_within` all do, as older code has it.
DROP FUNCTION hansa.event_publish(uuid, text, json);
CREATE FUNCTION hansa.event_publish(p_tenant uuid, p_name text, p_data json, p_within text[] DEFAULT NULL) RETURNS TABLE (outcome text, run uuid) LANGUAGE plpgsql AS $$
DECLARE v_wait record; v_sessions uuid[];
BEGIN
  -- Who begins to wait after this is not waited upon: its session would be locked out of order.
  v_sessions := ARRAY(SELECT DISTINCT r.session_id FROM hansa.waits w JOIN hansa.runs r ON r.tenant_id = w.tenant_id AND r.id = w.run_id
    WHERE w.tenant_id = p_tenant AND w.kind = 'event' AND w.key = p_name AND (p_within IS NULL OR EXISTS (
      SELECT FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id AND s.namespace = ANY (p_within))));
  PERFORM FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = ANY (v_sessions) ORDER BY s.id FOR UPDATE;
  PERFORM hansa.agents_lock(p_tenant, (SELECT array_agg(DISTINCT s.agent) FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = ANY (v_sessions)));
  PERFORM FROM hansa.runs l WHERE l.tenant_id = p_tenant AND l.id IN (SELECT w.run_id FROM hansa.waits w JOIN hansa.runs r
      ON r.tenant_id = w.tenant_id AND r.id = w.run_id
      WHERE w.tenant_id = p_tenant AND w.kind = 'event' AND w.key = p_name AND r.session_id = ANY (v_sessions))
    ORDER BY l.id FOR UPDATE;
  FOR v_wait IN SELECT w.run_id, w.step FROM hansa.waits w JOIN hansa.runs r ON r.tenant_id = w.tenant_id AND r.id = w.run_id
    WHERE w.tenant_id = p_tenant AND w.kind = 'event' AND w.key = p_name AND r.session_id = ANY (v_sessions) ORDER BY r.session_id, w.step
  LOOP
    RETURN QUERY SELECT hansa.wait_resolve(p_tenant, v_wait.run_id, v_wait.step, 'event.received', json_build_object('name', p_name, 'data', p_data)),
      v_wait.run_id;
  END LOOP;
END $$;
