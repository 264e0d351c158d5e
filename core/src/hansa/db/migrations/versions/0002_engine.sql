-- Verbs of the engine that who started a run, budgets and suspended tenants change alike: each replaces that of the first schema.

-- Replaces run_start of 0001_accept.sql: `p_new` may have `started_by`, which is kept of the run and told by its first event; no run is
-- accepted when nothing is left to spend. A run that another one called is accepted also in a suspended tenant, where it is held like
-- its caller; refused, it would be a failure that the caller finds when both go on.
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
  SELECT t.suspended AS tenant_suspended, t.metered, t.storage_bytes, coalesce((SELECT g.cordoned FROM hansa.regions g WHERE g.name = p_region), false) AS cordoned,
      a.name, a.suspended, a.concurrency, a.pool, a.bound IS NOT NULL AS bounded, a.revision
    INTO v_agent
    FROM hansa.tenants t LEFT JOIN hansa.agents a ON a.tenant_id = t.tenant_id AND a.name = v_name
    WHERE t.tenant_id = p_tenant;
  IF v_agent.cordoned THEN RETURN QUERY SELECT 'region_cordoned', NULL::json; RETURN; END IF;
  IF v_agent.tenant_suspended AND p_new ->> 'parent_run' IS NULL THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
  IF v_agent.name IS NULL THEN RETURN QUERY SELECT 'no_agent', NULL::json; RETURN; END IF;
  IF v_agent.suspended THEN RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN; END IF;
  IF v_agent.metered THEN
    answer := hansa.budget_refusal(p_tenant, v_name);
    IF answer IS NOT NULL THEN outcome := 'budget_spent'; RETURN NEXT; RETURN; END IF;
  END IF;
  IF v_agent.storage_bytes IS NOT NULL THEN
    answer := hansa.storage_refusal(p_tenant, 1);
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

-- Replaces run_load of 0001_drive.sql: also who started each run, whether its tenant is suspended, and whether it is `metered`; what an
-- earlier claim of these runs had reserved is settled, for nobody else will.
DROP FUNCTION hansa.run_load(uuid, uuid[], integer[]);
CREATE FUNCTION hansa.run_load(p_tenant uuid, p_runs uuid[], p_epochs integer[])
RETURNS TABLE (run uuid, agent text, revision integer, input json, takeovers integer, attempt integer, depth smallint, wish text,
  active float8, world bigint, history json, steps json, started_by json, metered boolean)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF EXISTS (SELECT FROM hansa.reservations v WHERE v.tenant_id = p_tenant AND v.run_id = ANY (p_runs)) THEN
    PERFORM hansa.usage_settle(p_tenant, true, '[]', p_runs, p_epochs);
  END IF;
  RETURN QUERY
    SELECT r.id, r.agent, r.revision, r.input, r.takeovers, r.attempt, r.depth,
      CASE WHEN r.cancel_requested_at IS NOT NULL THEN 'cancel' WHEN r.suspend_requested_at IS NOT NULL THEN 'suspend'
        WHEN t.suspended THEN 'suspend_tenant' WHEN g.suspended THEN 'suspend_agent' END,
      extract(epoch FROM r.active)::float8, t.objects_version,
      CASE WHEN r.queued_seq > 1 OR s.forked_from IS NOT NULL THEN hansa.run_history(p_tenant, r) END,
      CASE WHEN r.epoch > 1 THEN hansa.run_steps(p_tenant, r) END, r.started_by, t.metered
    FROM unnest(p_runs, p_epochs) AS a(run, epoch)
    CROSS JOIN LATERAL (SELECT * FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run AND r.epoch = a.epoch AND r.state = 'running' LIMIT 1) r
    CROSS JOIN LATERAL (SELECT s.forked_from FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id LIMIT 1) s
    LEFT JOIN LATERAL (SELECT g.suspended FROM hansa.agents g WHERE g.tenant_id = p_tenant AND g.name = r.agent LIMIT 1) g ON true
    CROSS JOIN (SELECT t.objects_version, t.metered, t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) t;
END $$;

-- Stops a run whose worker has let go of it. Replaces run_hold of 0001_control.sql: also because its tenant is suspended, and a call of a
-- model that was stopped is settled.
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
