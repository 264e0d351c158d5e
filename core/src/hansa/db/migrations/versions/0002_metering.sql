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
