-- Accepting runs: admission, idempotency, session, run and first event in one transaction.

-- Accepts one run. `p_new`: {id, agent, revision, session_id, new_session_id, priority, start_at, parent_run, parent_step, depth,
-- started_by, within}; without session_id in a session of its own; `started_by` is kept of the run and told by its first event. `outcome` is
-- accepted, replayed or the reason of a refusal; `answer` is the run as JSON, or a detail of the refusal (the time of first use when a key
-- is used again wrongly). No run is accepted when nothing is left to spend. A run that another one called is accepted also in a suspended
-- tenant, where it is held like its caller; refused, it would be a failure that the caller finds when both go on. A session keeps the
-- revision that it was begun with, unless `p_new` names another one: then it goes on with that. A revision that was checked and has not
-- passed can't be named, and nobody speaks in a session that checks one. `within`: the namespaces in which the run may be, left out: all;
-- `elsewhere`: its agent stands in another one. A session in another one is not there, nor is a revision of an agent that stood in
-- another one then.
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

-- Accepts several runs of one tenant in one transaction. Only for runs in sessions of their own: it would take one session's lock while
-- it holds another's slot. What is usual (an agent that takes runs and has no bound, to be begun at once, under a new key or none) is
-- done for all of them together, everything else for each by itself, as above, in the order of their agents, since each may lock its
-- own; so is who is let in in some namespaces only. Sub-selects and LIMIT 1 keep the planner from reading all that a tenant has.
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
