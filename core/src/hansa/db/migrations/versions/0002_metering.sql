-- The verbs of the engine that know of budgets: those of the first schema, changed.

-- Replaces that of 0001_drive.sql: with what its steps cost (`spends` of a write, see usage_settle), in the same transaction; `metered`:
-- whether the tenant has a budget now, so that its workers reserve from the next step on.
DROP FUNCTION hansa.run_write(uuid, json, bytea[], bigint[], text[]);
CREATE FUNCTION hansa.run_write(p_tenant uuid, p_writes json, p_digests bytea[], p_sizes bigint[], p_bodies text[])
RETURNS TABLE (run uuid, seq bigint, state text, metered boolean) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v_sessions uuid[]; v_runs uuid[]; v_epochs integer[]; v_numbers integer[]; v_input bigint[]; v_output bigint[]; v_states text[]; v_outputs text[];
  v_errors text[]; v_entries json[]; v_waits json[]; v_agents text[]; v_done uuid[]; v_last bigint[]; v_now text[]; v_each record; v_run hansa.runs;
  v_simple boolean := true; v_metered boolean; v_spends json[];
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF cardinality(p_digests) > 0 THEN PERFORM hansa.values_put(p_tenant, p_digests, p_sizes, p_bodies); END IF;
  SELECT array_agg(a.session), array_agg(a.run), array_agg(a.epoch), array_agg(a.number), array_agg(a.input_tokens), array_agg(a.output_tokens),
      array_agg(a.state), array_agg(a.output), array_agg(a.error), array_agg(a.entries), array_agg(a.waits),
      array_agg(a.spends)
    INTO v_sessions, v_runs, v_epochs, v_numbers, v_input, v_output, v_states, v_outputs, v_errors, v_entries, v_waits, v_spends
    FROM json_to_recordset(p_writes) AS a(session uuid, run uuid, epoch integer, number integer, input_tokens bigint, output_tokens bigint,
      state text, output text, error text, entries json, waits json, spends json);
  SELECT t.metered INTO v_metered FROM hansa.tenants t WHERE t.tenant_id = p_tenant;
  SELECT array_agg(DISTINCT l.agent) INTO v_agents FROM (
    SELECT s.agent FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = ANY (v_sessions) ORDER BY s.id FOR UPDATE) l;
  PERFORM hansa.agents_lock(p_tenant, v_agents);
  PERFORM FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = ANY (v_runs) ORDER BY r.id FOR UPDATE;
  WITH asked AS MATERIALIZED (
    SELECT a.*, r.at FROM unnest(v_sessions, v_runs, v_epochs, v_numbers, v_input, v_output, v_states, v_outputs, v_errors, v_entries)
      AS a(session, run, epoch, number, input_tokens, output_tokens, state, output, error, entries)
    CROSS JOIN LATERAL (SELECT r.ctid AS at, r.session_id, r.epoch, r.writes, r.state AS current FROM hansa.runs r
      WHERE r.tenant_id = p_tenant AND r.id = a.run LIMIT 1) r
    WHERE r.session_id = a.session AND r.epoch = a.epoch AND r.writes = a.number - 1 AND r.current = 'running'),
  done AS (
    UPDATE hansa.runs r SET takeovers = 0, writes = a.number,
        input_tokens = r.input_tokens + a.input_tokens, output_tokens = r.output_tokens + a.output_tokens,
        state = CASE WHEN a.state = 'waiting' AND r.woken THEN 'running' ELSE coalesce(a.state, r.state) END,
        woken = r.woken AND a.state IS DISTINCT FROM 'waiting',
        active = CASE WHEN a.state IS NULL THEN r.active ELSE r.active + (clock_timestamp() - r.claimed_at) END,
        claimed_at = CASE WHEN a.state IS NULL THEN r.claimed_at ELSE clock_timestamp() END,
        output = a.output::json, error = a.error::json,
        finished_at = CASE WHEN a.state IN ('completed', 'failed', 'canceled') THEN clock_timestamp() END
      FROM asked a WHERE r.ctid = a.at AND r.tenant_id = p_tenant
      RETURNING r.id, r.session_id, r.queued_seq, r.state, a.entries, json_array_length(a.entries) AS events,
        r.state <> 'running' AND (r.slot OR r.parent_run IS NOT NULL OR r.cancel_requested_at IS NOT NULL OR r.suspend_requested_at IS NOT NULL) AS follows),
  numbered AS (
    UPDATE hansa.sessions s SET last_seq = s.last_seq + d.events, active_at = clock_timestamp(),
        active_run = CASE WHEN d.state IN ('completed', 'failed', 'canceled') AND s.newest_run = d.queued_seq THEN NULL ELSE s.active_run END
      FROM (SELECT d.*, f.at FROM done d CROSS JOIN LATERAL (
        SELECT s.ctid AS at FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = d.session_id LIMIT 1) f) d
      WHERE s.ctid = d.at AND s.tenant_id = p_tenant
      RETURNING d.id, d.session_id, d.state, d.entries, d.events, s.last_seq,
        d.follows OR d.state NOT IN ('running', 'waiting') AND (s.active_run IS NOT NULL
          OR (SELECT w.run_id FROM hansa.waits w WHERE w.tenant_id = p_tenant AND w.run_id = d.id LIMIT 1) IS NOT NULL) AS follows),
  written AS (
    INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, step, data)
      SELECT p_tenant, m.session_id, m.last_seq - m.events + e.n, m.id, e.type, e.step, e.data::json FROM numbered m CROSS JOIN LATERAL
        ROWS FROM (json_to_recordset(m.entries) AS (type text, step text, data text)) WITH ORDINALITY AS e(type, step, data, n))
  SELECT array_agg(m.id), array_agg(m.last_seq), array_agg(m.state), coalesce(bool_and(NOT m.follows), false) INTO v_done, v_last, v_now, v_simple
    FROM numbered m;
  IF cardinality(p_digests) > 0 THEN
    PERFORM hansa.values_refer(p_tenant, a.session, ARRAY(SELECT e.data FROM json_to_recordset(a.entries) AS e(data text)))
      FROM unnest(v_sessions, v_runs, v_entries) AS a(session, run, entries) WHERE a.run = ANY (v_done);
  END IF;
  FOR v_each IN SELECT a.run, w.value::json AS wait FROM unnest(v_runs, v_waits) AS a(run, waits) CROSS JOIN LATERAL json_array_elements_text(a.waits) AS w
    WHERE a.run = ANY (v_done)
  LOOP
    v_simple := false;
    PERFORM hansa.wait_begin(p_tenant, v_each.run, v_each.wait);
  END LOOP;
  IF v_simple AND cardinality(v_done) = cardinality(v_runs) THEN
    PERFORM hansa.usage_written(p_tenant, v_metered, v_runs, v_epochs, v_spends, v_done);
    RETURN QUERY SELECT d.*, v_metered FROM unnest(v_done, v_last, v_now) AS d(run, seq, state);
    RETURN;
  END IF;
  -- Few writes change a state, and of these few have consequences; those are in the order of sessions too.
  FOR v_each IN SELECT r.id, r.state FROM unnest(v_sessions, v_runs, v_states) AS a(session, run, state)
    CROSS JOIN LATERAL (SELECT * FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run LIMIT 1) r
    WHERE a.state IS NOT NULL AND a.run = ANY (v_done) AND r.state <> 'running' ORDER BY a.session
  LOOP
    IF v_each.state IN ('completed', 'failed', 'canceled') THEN PERFORM hansa.run_ended(p_tenant, v_each.id);
    ELSE
      -- Its worker lets go of it: what someone wanted of it is done here, for nobody else will hear of it.
      SELECT * INTO v_run FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = v_each.id;
      IF v_run.cancel_requested_at IS NOT NULL THEN PERFORM hansa.run_end(p_tenant, v_run, 'canceled', NULL);
      ELSIF v_run.suspend_requested_at IS NOT NULL AND v_run.state = 'waiting' THEN PERFORM hansa.run_park(p_tenant, v_run, 'run');
      ELSE PERFORM hansa.slot_leave(p_tenant, v_each.id);
      END IF;
    END IF;
  END LOOP;
  PERFORM hansa.usage_written(p_tenant, v_metered, v_runs, v_epochs, v_spends, v_done);
  RETURN QUERY SELECT a.run, f.last_seq, f.state, v_metered FROM unnest(v_runs, v_epochs, v_numbers) AS a(run, epoch, number)
    CROSS JOIN LATERAL (SELECT r.state, (SELECT s.last_seq FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id)
      FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run AND r.epoch = a.epoch AND r.writes = a.number LIMIT 1) f(state, last_seq);
END $$;

-- Replaces that of 0001_drive.sql: what an earlier claim of these runs had reserved is settled, for nobody else will; and `metered`.
DROP FUNCTION hansa.run_load(uuid, uuid[], integer[]);
CREATE FUNCTION hansa.run_load(p_tenant uuid, p_runs uuid[], p_epochs integer[])
RETURNS TABLE (run uuid, agent text, revision integer, input json, takeovers integer, attempt integer, depth smallint, wish text,
  active float8, world bigint, history json, steps json, metered boolean) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF EXISTS (SELECT FROM hansa.reservations v WHERE v.tenant_id = p_tenant AND v.run_id = ANY (p_runs)) THEN
    PERFORM hansa.usage_settle(p_tenant, true, '[]', p_runs, p_epochs);
  END IF;
  RETURN QUERY
    SELECT r.id, r.agent, r.revision, r.input, r.takeovers, r.attempt, r.depth,
      CASE WHEN r.cancel_requested_at IS NOT NULL THEN 'cancel' WHEN r.suspend_requested_at IS NOT NULL THEN 'suspend'
        WHEN g.suspended THEN 'suspend_agent' END,
      extract(epoch FROM r.active)::float8, t.objects_version,
      CASE WHEN r.queued_seq > 1 OR s.forked_from IS NOT NULL THEN hansa.run_history(p_tenant, r) END,
      CASE WHEN r.epoch > 1 THEN hansa.run_steps(p_tenant, r) END, t.metered
    FROM unnest(p_runs, p_epochs) AS a(run, epoch)
    CROSS JOIN LATERAL (SELECT * FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run AND r.epoch = a.epoch AND r.state = 'running' LIMIT 1) r
    CROSS JOIN LATERAL (SELECT s.forked_from FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id LIMIT 1) s
    LEFT JOIN LATERAL (SELECT g.suspended FROM hansa.agents g WHERE g.tenant_id = p_tenant AND g.name = r.agent LIMIT 1) g ON true
    CROSS JOIN (SELECT t.objects_version, t.metered FROM hansa.tenants t WHERE t.tenant_id = p_tenant) t;
END $$;

-- Replaces that of 0001_control.sql: a call that was stopped is settled.
CREATE OR REPLACE FUNCTION hansa.run_hold(p_tenant uuid, p_run uuid, p_epoch integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL OR v_run.epoch <> p_epoch OR v_run.state <> 'running' THEN RETURN false; END IF;
  UPDATE hansa.runs SET active = active + (clock_timestamp() - claimed_at), claimed_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_run;
  IF v_run.cancel_requested_at IS NOT NULL THEN
    PERFORM hansa.run_end(p_tenant, v_run, 'canceled', NULL);
  ELSIF v_run.suspend_requested_at IS NOT NULL THEN
    PERFORM hansa.run_park(p_tenant, v_run, 'run');
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

-- Replaces that of 0001_waits.sql: with those who wait for their budget's next period, or for a larger one.
CREATE OR REPLACE FUNCTION hansa.wait_expire(p_tenant uuid, p_run uuid, p_step text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_wait hansa.waits;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT * INTO v_wait FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = p_run AND step = p_step;
  IF v_wait.kind = 'approval' THEN RETURN hansa.approval_settle(p_tenant, v_wait.key::uuid, 'expired', NULL, NULL, NULL); END IF;
  v_run := hansa.run_lock(p_tenant, p_run);
  SELECT * INTO v_wait FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = p_run AND step = p_step FOR UPDATE;
  IF NOT FOUND THEN RETURN 'gone'; END IF;
  CASE v_wait.kind
    WHEN 'timer' THEN RETURN hansa.wait_resolve(p_tenant, p_run, p_step, 'timer.fired', '{}');
    WHEN 'event' THEN RETURN hansa.wait_resolve(p_tenant, p_run, p_step, 'event.received', json_build_object('name', v_wait.key, 'expired', true));
    WHEN 'child' THEN RETURN 'gone';
    WHEN 'budget' THEN
      DELETE FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = p_run AND step = p_step;
      IF v_run.state <> 'suspended' OR v_run.suspended_by <> 'budget' THEN RETURN v_run.state; END IF;
      PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'run.continued', NULL, json_build_object('by', 'budget'));
      PERFORM hansa.run_continue(p_tenant, p_run);
      RETURN 'queued';
    ELSE
      -- Its worker is about to let go of it, and would leave it waiting for nothing: this is looked at again soon.
      IF v_wait.kind = 'retry' AND v_run.state = 'running' THEN RETURN 'running'; END IF;
      DELETE FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = p_run AND step = p_step;
      IF v_wait.kind = 'retry' THEN UPDATE hansa.runs SET attempt = attempt + 1 WHERE tenant_id = p_tenant AND id = p_run; END IF;
      IF v_run.state = 'waiting' OR (v_run.state = 'queued' AND v_run.gate = 'time') THEN
        PERFORM hansa.run_ready(p_tenant, p_run);
        RETURN 'queued';
      END IF;
      RETURN v_run.state;
  END CASE;
END $$;

-- Replaces that of 0001_accept.sql: no run is accepted when nothing is left to spend.
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
  SELECT t.suspended AS tenant_suspended, t.metered, coalesce((SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region), false) AS cordoned,
      a.name, a.suspended, a.concurrency, a.pool, a.bound IS NOT NULL AS bounded, a.revision
    INTO v_agent
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_name
    WHERE t.tenant_id = p_tenant;
  IF v_agent.cordoned THEN RETURN QUERY SELECT 'region_cordoned', NULL::json; RETURN; END IF;
  IF v_agent.tenant_suspended THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
  IF v_agent.name IS NULL THEN RETURN QUERY SELECT 'no_agent', NULL::json; RETURN; END IF;
  IF v_agent.suspended THEN RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN; END IF;
  IF v_agent.metered THEN
    answer := hansa.budget_refusal(p_tenant, v_name);
    IF answer IS NOT NULL THEN outcome := 'budget_spent'; RETURN NEXT; RETURN; END IF;
  END IF;
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

-- Replaces that of 0001_accept.sql, for the same reason.
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
      AND (NOT t.metered OR hansa.budget_refusal(p_tenant, NULL) IS NULL))
    AND NOT EXISTS (SELECT FROM hansa.regions g WHERE g.name = p_region AND g.cordoned);
  FOR v_each IN
    WITH asked AS MATERIALIZED (
      SELECT a.n, a.principal, a.route, a.key, a.digest, a.input::json AS input, j.*
      FROM unnest(p_principals, p_routes, p_keys, p_digests, p_new, p_inputs) WITH ORDINALITY AS a(principal, route, key, digest, new, input, n)
      CROSS JOIN LATERAL json_to_record(a.new::json) AS j(id uuid, new_session_id uuid, agent text, revision integer, priority smallint,
        start_at text, parent_run uuid, parent_step text, depth smallint)
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
      INSERT INTO hansa.runs (tenant_id, id, session_id, queued_seq, agent, revision, state, pool, priority, input, parent_run, parent_step, depth)
        SELECT p_tenant, u.id, u.new_session_id, 1, u.agent, u.newest, 'queued', u.pool, coalesce(u.priority, 0), u.input,
          u.parent_run, u.parent_step, coalesce(u.depth, 0) FROM usual u
        RETURNING id, hansa.run_json(runs) AS answer),
    logged AS (
      INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, data)
        SELECT p_tenant, u.new_session_id, 1, u.id, 'run.queued', json_build_object('input', u.input) FROM usual u),
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
