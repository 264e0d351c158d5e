-- Driving runs: claim, renew, release, load, write. The first three are the system's, over all tenants, and read no content. What is
-- called all the time is planned once (plan_cache_mode): planning anew for so and so many writes would cost more than making them.

-- Takes up to p_limit runs of a pool for a worker: runs whose lease has run out first, then ready ones, tenant by tenant.
-- Fair by deficit round robin: the turn goes round the tenants that have ready runs, in the order of their ids, and each may take as
-- many as its weight in its turn. Whose turn it was (p_turn) and what is left of it (p_credit) the worker keeps between claims; the
-- last row, without an id, gives them back. Each visit is one probe of an index, and visits are bounded, so the cost grows neither
-- with the backlog nor with the number of tenants.
CREATE OR REPLACE FUNCTION hansa.run_claim(p_worker text, p_limit integer, p_lease interval, p_pool text, p_turn uuid, p_credit integer)
RETURNS TABLE (tenant_id uuid, id uuid, session_id uuid, epoch integer, turn uuid, credit integer) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v_left integer := p_limit; v_turn uuid := p_turn; v_credit integer := p_credit; v_tenant uuid; v_weight integer; v_bound integer;
  v_room integer; v_taken integer; v_lap integer := 0; v_of_lap integer := 0; v_longer integer := 1; v_visits integer := 0;
BEGIN
  RETURN QUERY
    WITH lost AS (
      SELECT r.tenant_id, r.id FROM hansa.runs r WHERE r.state = 'running' AND r.lease_until < clock_timestamp() AND r.pool = p_pool
      ORDER BY r.lease_until LIMIT v_left FOR UPDATE SKIP LOCKED)
    UPDATE hansa.runs r SET epoch = r.epoch + 1, takeovers = r.takeovers + 1, writes = 0, worker = p_worker,
      active = r.active + (least(r.lease_until, clock_timestamp()) - r.claimed_at), claimed_at = clock_timestamp(),
      lease_until = clock_timestamp() + p_lease
    FROM lost WHERE r.tenant_id = lost.tenant_id AND r.id = lost.id
    RETURNING r.tenant_id, r.id, r.session_id, r.epoch, NULL::uuid, NULL::integer;
  GET DIAGNOSTICS v_taken = ROW_COUNT;
  v_left := v_left - v_taken;
  WHILE v_left > 0 AND v_visits < 16 + 4 * p_limit LOOP
    IF v_credit <= 0 THEN
      SELECT r.tenant_id INTO v_tenant FROM hansa.runs r
        WHERE r.state = 'queued' AND r.gate IS NULL AND r.pool = p_pool AND r.tenant_id > v_turn ORDER BY r.tenant_id LIMIT 1;
      IF NOT FOUND THEN
        v_lap := v_lap + 1;
        EXIT WHEN v_lap > 1 AND v_of_lap = 0;
        -- After a full round turns are longer, so that a few tenants fill a batch in a few visits.
        IF v_lap > 1 THEN v_longer := v_longer * 2; END IF;
        v_of_lap := 0;
        SELECT r.tenant_id INTO v_tenant FROM hansa.runs r
          WHERE r.state = 'queued' AND r.gate IS NULL AND r.pool = p_pool ORDER BY r.tenant_id LIMIT 1;
        EXIT WHEN NOT FOUND;
      END IF;
      v_turn := v_tenant;
    END IF;
    v_visits := v_visits + 1;
    SELECT t.weight, t.concurrent_runs INTO v_weight, v_bound FROM hansa.tenants t WHERE t.tenant_id = v_turn;
    IF v_credit <= 0 THEN v_credit := coalesce(v_weight, 1) * v_longer; END IF;
    v_room := least(v_left, v_credit);
    IF v_bound IS NOT NULL THEN
      -- One claim at a time counts what a bounded tenant has running; another that comes meanwhile passes on.
      IF NOT pg_try_advisory_xact_lock(hashtextextended('hansa.claim.' || v_turn, 0)) THEN v_bound := 0; END IF;
      SELECT least(v_room, greatest(0, v_bound - count(*))) INTO v_room FROM (
        SELECT FROM hansa.runs r WHERE r.tenant_id = v_turn AND r.state = 'running' LIMIT v_bound) n;
    END IF;
    v_taken := 0;
    IF v_room > 0 THEN
      RETURN QUERY
        WITH picked AS (
          SELECT r.tenant_id, r.id FROM hansa.runs r
          WHERE r.state = 'queued' AND r.gate IS NULL AND r.pool = p_pool AND r.tenant_id = v_turn
          ORDER BY r.priority DESC, r.id LIMIT v_room FOR UPDATE SKIP LOCKED)
        UPDATE hansa.runs r SET state = 'running', epoch = r.epoch + 1, writes = 0, worker = p_worker, claimed_at = clock_timestamp(),
          lease_until = clock_timestamp() + p_lease, started_at = coalesce(r.started_at, clock_timestamp())
        FROM picked WHERE r.tenant_id = picked.tenant_id AND r.id = picked.id
        RETURNING r.tenant_id, r.id, r.session_id, r.epoch, NULL::uuid, NULL::integer;
      GET DIAGNOSTICS v_taken = ROW_COUNT;
    END IF;
    v_left := v_left - v_taken;
    v_of_lap := v_of_lap + v_taken;
    v_credit := CASE WHEN v_taken < v_room OR v_room = 0 THEN 0 ELSE v_credit - v_taken END;
  END LOOP;
  RETURN QUERY SELECT NULL::uuid, NULL::uuid, NULL::uuid, NULL::integer, v_turn, v_credit;
END $$;

-- Prolongs leases; what is missing from the answer is no longer this worker's. `wish`: what someone wants of the run, of its agent or of its
-- tenant. By the system.
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

-- Gives runs back, to be claimed again after p_pause: by a worker that is told to stop, or that can't have what a run needs. It is no
-- loss, and the pause is no time that the run was driven. By the system.
CREATE OR REPLACE FUNCTION hansa.run_release(p_tenants uuid[], p_runs uuid[], p_epochs integer[], p_pause interval DEFAULT '0 seconds')
RETURNS integer LANGUAGE sql AS $$
  WITH mine AS (
    SELECT r.tenant_id, r.id FROM hansa.runs r JOIN unnest(p_tenants, p_runs, p_epochs) AS m(tenant_id, id, epoch)
      ON r.tenant_id = m.tenant_id AND r.id = m.id AND r.epoch = m.epoch
    WHERE r.state = 'running' ORDER BY r.tenant_id, r.id FOR UPDATE OF r),
  released AS (
    UPDATE hansa.runs r SET lease_until = clock_timestamp() + p_pause, takeovers = greatest(r.takeovers - 1, -1),
      active = r.active + (clock_timestamp() - r.claimed_at), claimed_at = clock_timestamp() + p_pause
    FROM mine WHERE r.tenant_id = mine.tenant_id AND r.id = mine.id RETURNING 1)
  SELECT count(*)::integer FROM released
$$;

-- The writes of running runs of one tenant, many in one transaction: events, usage and, with a state, how a run goes on: its end,
-- or `waiting`. `p_writes`: [{session, run, epoch, number, input_tokens, output_tokens, state, output, error, entries: [{type, step, data}],
-- waits: [see wait_begin], spends: [what its steps cost, see usage_settle]}]; output, error, data and each wait are JSON text in a string, for
-- json_to_recordset refuses a NUL in what it reads. A write's number counts the writes of its epoch from 1, so that one whose answer was lost
-- can be sent again and is done once. `p_digests`, `p_sizes`, `p_bodies`: the large values that the events refer to (see values_put). A run
-- that is missing from the answer is fenced: someone else owns it. `state` in the answer is the run's own: still `running` when what it would
-- wait for has come meanwhile; `metered`: whether the tenant has a budget now, so that its workers reserve from the next step on. The lease is
-- prolonged by run_renew alone: an index hangs on it. Rows are found one by one (LIMIT 1) and changed where they were found (ctid; they are
-- locked): a plan made while the tables were empty would else read all that a tenant has.
CREATE OR REPLACE FUNCTION hansa.run_write(p_tenant uuid, p_writes json, p_digests bytea[], p_sizes bigint[], p_bodies text[])
RETURNS TABLE (run uuid, seq bigint, state text, metered boolean) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v_sessions uuid[]; v_runs uuid[]; v_epochs integer[]; v_numbers integer[]; v_input bigint[]; v_output bigint[]; v_states text[]; v_outputs text[];
  v_errors text[]; v_entries json[]; v_waits json[]; v_agents text[]; v_done uuid[]; v_last bigint[]; v_now text[]; v_each record; v_run hansa.runs;
  v_simple boolean := true; v_metered boolean; v_spends json[]; v_paid bigint;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF cardinality(p_digests) > 0 THEN PERFORM hansa.values_put(p_tenant, p_digests, p_sizes, p_bodies); END IF;
  SELECT array_agg(a.session), array_agg(a.run), array_agg(a.epoch), array_agg(a.number), array_agg(a.input_tokens), array_agg(a.output_tokens),
      array_agg(a.state), array_agg(a.output), array_agg(a.error), array_agg(a.entries), array_agg(a.waits),
      array_agg(a.spends), count(a.spends)
    INTO v_sessions, v_runs, v_epochs, v_numbers, v_input, v_output, v_states, v_outputs, v_errors, v_entries, v_waits, v_spends, v_paid
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
    IF v_metered OR v_paid > 0 THEN PERFORM hansa.usage_written(p_tenant, v_metered, v_runs, v_epochs, v_spends, v_done); END IF;
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
  IF v_metered OR v_paid > 0 THEN PERFORM hansa.usage_written(p_tenant, v_metered, v_runs, v_epochs, v_spends, v_done); END IF;
  RETURN QUERY SELECT a.run, f.last_seq, f.state, v_metered FROM unnest(v_runs, v_epochs, v_numbers) AS a(run, epoch, number)
    CROSS JOIN LATERAL (SELECT r.state, (SELECT s.last_seq FROM hansa.sessions s WHERE s.tenant_id = p_tenant AND s.id = r.session_id)
      FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run AND r.epoch = a.epoch AND r.writes = a.number LIMIT 1) f(state, last_seq);
END $$;

-- All that a worker needs to go on with runs it has claimed, of one tenant; those missing from the answer are fenced. `world` names
-- the state of all objects: manifests are asked for (run_world) only when the worker does not know it yet. `history` and `steps` are
-- NULL where there can't be any. Also who started each run, whether its tenant is suspended, and whether it is `metered`; what an earlier
-- claim of these runs had reserved is settled, for nobody else will.
CREATE OR REPLACE FUNCTION hansa.run_load(p_tenant uuid, p_runs uuid[], p_epochs integer[])
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

-- What objects say of an agent's revision now: its manifest, all providers, its tool servers, the agents it may call.
CREATE OR REPLACE FUNCTION hansa.run_world(p_tenant uuid, p_agent text, p_revision integer) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'version', (SELECT t.objects_version FROM hansa.tenants t WHERE t.tenant_id = p_tenant),
    'manifest', a.manifest,
    'providers', coalesce((SELECT json_agg(o.manifest ORDER BY o.name) FROM hansa.objects o
      WHERE o.tenant_id = p_tenant AND o.kind = 'ModelProvider'), '[]'),
    'tool_servers', coalesce((SELECT json_agg(json_build_object('manifest', o.manifest, 'status', o.status) ORDER BY o.name) FROM hansa.objects o
      WHERE o.tenant_id = p_tenant AND o.kind = 'ToolServer' AND o.name IN (
        SELECT u.value ->> 'toolServer' FROM json_array_elements(a.manifest -> 'spec' -> 'tools') u)), '[]'),
    'agents', coalesce((SELECT json_agg(json_build_object('name', o.name, 'description', coalesce(o.manifest -> 'spec' ->> 'description', '')) ORDER BY o.name)
      FROM hansa.objects o WHERE o.tenant_id = p_tenant AND o.kind = 'Agent' AND o.name IN (
        SELECT u.value ->> 'agent' FROM json_array_elements(a.manifest -> 'spec' -> 'tools') u)), '[]'))
  FROM hansa.agent_revisions a WHERE a.tenant_id = p_tenant AND a.agent = p_agent AND a.revision = p_revision
$$;

-- What was said before in the session, and before its fork in the session it was forked from: inputs and outputs, oldest first. An
-- interrupted run has said nothing; one that was rolled back never was.
CREATE OR REPLACE FUNCTION hansa.run_history(p_tenant uuid, v_run hansa.runs) RETURNS json LANGUAGE sql STABLE AS $$
  WITH RECURSIVE line AS (
    SELECT v_run.session_id AS session, v_run.queued_seq AS before, 0 AS level
    UNION ALL
    SELECT s.forked_from, s.forked_seq, level + 1 FROM line l JOIN hansa.sessions s ON s.tenant_id = p_tenant AND s.id = l.session
    WHERE s.forked_from IS NOT NULL AND level < 16)
  SELECT coalesce((SELECT json_agg(json_build_array(h.input, h.output) ORDER BY h.level DESC, h.queued_seq) FROM (
    SELECT l.level, r.queued_seq, r.input, r.output FROM line l JOIN hansa.runs r ON r.tenant_id = p_tenant AND r.session_id = l.session
      AND r.queued_seq < l.before AND NOT r.rolled_back AND (r.state = 'completed' OR r.interrupted)
    ORDER BY l.level, r.queued_seq DESC LIMIT 50) h), '[]')
$$;

-- The recorded steps of a run.
CREATE OR REPLACE FUNCTION hansa.run_steps(p_tenant uuid, v_run hansa.runs) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT json_agg(json_build_object('type', e.type, 'step', e.step, 'data', e.data) ORDER BY e.seq) FROM hansa.events e
    WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id AND e.seq > v_run.queued_seq AND e.run_id = v_run.id
      AND e.step IS NOT NULL), '[]')
$$;
