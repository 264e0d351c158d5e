-- What all of the engine's verbs share. All verbs run with the rights of their caller, so row-level security holds in them; those
-- called by the app set the tenant for their own transaction first.
-- Locks are always taken in this order, so that no two verbs ever wait for each other: sessions by id, agents by name (only those with
-- a bound on runs at once, or with a revision that is checked), runs by id. One exception is safe: who ends runs that workers drive may take
-- an agent after them, since nobody who holds an agent waits for a run that is driven.

-- A run as the API shows it.
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

-- What the first event of a run says.
CREATE OR REPLACE FUNCTION hansa.queued_json(p_input json, p_by json) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN p_by IS NULL THEN json_build_object('input', p_input) ELSE json_build_object('input', p_input, 'by', p_by) END
$$;

-- Appends events to a session's log without a gap: the session's row is locked by the update, so numbers are given in
-- commit order. Returns the last number.
CREATE OR REPLACE FUNCTION hansa.log_append(p_tenant uuid, p_session uuid, p_run uuid, p_types text[], p_steps text[], p_data text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_last bigint; v_count integer := cardinality(p_types);
BEGIN
  UPDATE hansa.sessions SET last_seq = last_seq + v_count, active_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_session RETURNING last_seq INTO v_last;
  IF NOT FOUND THEN RAISE EXCEPTION 'session % is not there', p_session; END IF;
  INSERT INTO hansa.events (tenant_id, session_id, seq, run_id, type, step, data)
    SELECT p_tenant, p_session, v_last - v_count + e.n, p_run, e.type, e.step, e.data::json
    FROM unnest(p_types, p_steps, p_data) WITH ORDINALITY AS e(type, step, data, n);
  PERFORM hansa.values_refer(p_tenant, p_session, p_data);
  RETURN v_last;
END $$;

CREATE OR REPLACE FUNCTION hansa.log_one(p_tenant uuid, p_session uuid, p_run uuid, p_type text, p_step text, p_data json)
RETURNS bigint LANGUAGE sql AS $$
  SELECT hansa.log_append(p_tenant, p_session, p_run, ARRAY[p_type], ARRAY[p_step], ARRAY[p_data::text])
$$;

-- Locks those of some agents that have a bound on runs at once, or had one while a run got its slot: that is given back; and those with a
-- revision that is checked, for the end of its run changes what serves. Once in a transaction, after its sessions and before its runs: an
-- agent that is given a bound later would be locked in another order.
CREATE OR REPLACE FUNCTION hansa.agents_lock(p_tenant uuid, p_agents text[]) RETURNS void LANGUAGE sql AS $$
  SELECT FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = ANY (p_agents) AND (a.bound IS NOT NULL OR a.held > 0 OR a.checking)
    ORDER BY a.name FOR UPDATE
$$;

-- A run, with its session, its agent's bound and itself locked: once in a transaction. NULL fields: no such run.
CREATE OR REPLACE FUNCTION hansa.run_lock(p_tenant uuid, p_run uuid) RETURNS hansa.runs LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_agent text;
BEGIN
  SELECT s.agent INTO v_agent FROM hansa.runs r JOIN hansa.sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id
    WHERE r.tenant_id = p_tenant AND r.id = p_run FOR UPDATE OF s;
  PERFORM hansa.agents_lock(p_tenant, ARRAY[v_agent]);
  SELECT * INTO v_run FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = p_run FOR UPDATE;
  RETURN v_run;
END $$;

-- Lets a run be claimed, unless its agent has a bound on runs at once and no slot is free: then it waits at that gate. The caller
-- holds the run's session, has seen that nothing else is in the way, and has locked the agent if it had a bound then: one that was
-- given a bound since, and is locked by someone else, is not waited for. The run became ready before that.
CREATE OR REPLACE FUNCTION hansa.run_ready(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_slot hansa.agents; v_agent text; v_holds boolean;
BEGIN
  SELECT agent, slot INTO v_agent, v_holds FROM hansa.runs WHERE tenant_id = p_tenant AND id = p_run;
  IF NOT v_holds THEN
    SELECT * INTO v_slot FROM hansa.agents WHERE tenant_id = p_tenant AND name = v_agent AND bound IS NOT NULL FOR UPDATE SKIP LOCKED;
    IF FOUND AND v_slot.held >= v_slot.bound THEN
      UPDATE hansa.runs SET state = 'queued', gate = 'agent', woken = false, suspended_by = NULL WHERE tenant_id = p_tenant AND id = p_run;
      RETURN;
    END IF;
    IF FOUND THEN
      UPDATE hansa.agents SET held = held + 1 WHERE tenant_id = p_tenant AND name = v_agent;
      v_holds := true;
    END IF;
  END IF;
  UPDATE hansa.runs SET state = 'queued', gate = NULL, woken = false, slot = v_holds, suspended_by = NULL
    WHERE tenant_id = p_tenant AND id = p_run;
END $$;

-- Gives back the slot of a run that has ended or waits; whoever stands first at the agent's gate has it now.
CREATE OR REPLACE FUNCTION hansa.slot_leave(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_agent text; v_slot hansa.agents;
BEGIN
  UPDATE hansa.runs SET slot = false WHERE tenant_id = p_tenant AND id = p_run AND slot RETURNING agent INTO v_agent;
  IF NOT FOUND THEN RETURN; END IF;
  UPDATE hansa.agents SET held = held - 1 WHERE tenant_id = p_tenant AND name = v_agent;
  PERFORM hansa.slots_fill(p_tenant, v_agent);
END $$;

-- Lets runs through the gate of an agent while slots are free; none when its bound has come below what is held.
CREATE OR REPLACE FUNCTION hansa.slots_fill(p_tenant uuid, p_agent text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_slot hansa.agents; v_free integer; v_run uuid;
BEGIN
  SELECT * INTO v_slot FROM hansa.agents WHERE tenant_id = p_tenant AND name = p_agent AND bound IS NOT NULL FOR UPDATE;
  v_free := CASE WHEN FOUND THEN greatest(0, v_slot.bound - v_slot.held) ELSE 2147483647 END;
  FOR v_run IN SELECT id FROM hansa.runs WHERE tenant_id = p_tenant AND agent = p_agent AND state = 'queued' AND gate = 'agent'
    ORDER BY priority DESC, id LIMIT v_free FOR UPDATE
  LOOP
    UPDATE hansa.runs SET gate = NULL, woken = false, slot = v_slot.name IS NOT NULL WHERE tenant_id = p_tenant AND id = v_run;
    UPDATE hansa.agents SET held = held + 1 WHERE tenant_id = p_tenant AND name = p_agent AND bound IS NOT NULL;
  END LOOP;
END $$;

-- Lets the session's next queued run be claimed, after the run with number p_after has ended.
CREATE OR REPLACE FUNCTION hansa.session_advance(p_tenant uuid, p_session uuid, p_after bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_next uuid;
BEGIN
  SELECT id INTO v_next FROM hansa.runs WHERE tenant_id = p_tenant AND session_id = p_session AND queued_seq > p_after AND state = 'queued'
    ORDER BY queued_seq LIMIT 1;
  UPDATE hansa.sessions SET active_run = v_next WHERE tenant_id = p_tenant AND id = p_session;
  IF v_next IS NOT NULL THEN PERFORM hansa.run_ready(p_tenant, v_next); END IF;
END $$;

-- What follows from the end of a run, in the same transaction: its slot is free, nobody is asked for it any more, its parent hears of
-- it, the session goes on. The caller holds the session.
CREATE OR REPLACE FUNCTION hansa.run_ended(p_tenant uuid, p_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_active uuid;
BEGIN
  SELECT * INTO v_run FROM hansa.runs WHERE tenant_id = p_tenant AND id = p_run;
  PERFORM hansa.slot_leave(p_tenant, p_run);
  PERFORM hansa.waits_drop(p_tenant, v_run);
  IF v_run.parent_run IS NOT NULL THEN PERFORM hansa.child_return(p_tenant, v_run); END IF;
  SELECT active_run INTO v_active FROM hansa.sessions WHERE tenant_id = p_tenant AND id = v_run.session_id;
  IF v_active = p_run THEN PERFORM hansa.session_advance(p_tenant, v_run.session_id, v_run.queued_seq); END IF;
END $$;

-- Events of a session after a number, oldest first, as the API shows them; in one call, for those who read along.
CREATE OR REPLACE FUNCTION hansa.session_events(p_tenant uuid, p_session uuid, p_after bigint, p_limit integer)
RETURNS TABLE (seq bigint, run_id uuid, type text, body json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  RETURN QUERY SELECT e.seq, e.run_id, e.type, json_build_object('seq', e.seq, 'session_id', e.session_id, 'run_id', e.run_id, 'type', e.type,
      'step', e.step, 'data', e.data, 'at', e.at)
    FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = p_session AND e.seq > p_after ORDER BY e.seq LIMIT p_limit;
END $$;
