-- Waiting: for a time, a child, a person, an event. What is waited for is a row; the result is an event of the run's log, so that a
-- replay finds it there. A run with nothing else to do is `waiting` and costs no worker anything.

-- Begins to wait, in the transaction that writes the event that says so. `p_wait`: {step, kind, key, seconds, data}. Kind publish
-- waits for nothing: it sends an event to all runs of the tenant that wait for one of its name. Who calls an agent tells for whom, and
-- hands on no more than it may itself (`data.may`); who publishes says in which namespaces it may (`data.within`, left out: all).
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

-- Something has come that a run waits for: the result is written to its log, and it is woken. What became of it: `gone` (nobody waits
-- any more), `queued` (the doorbell is to be rung), `running` (its worker is to be told), else the state it stays in. The caller has
-- the run locked (run_lock).
CREATE OR REPLACE FUNCTION hansa.wait_resolve(p_tenant uuid, p_run uuid, p_step text, p_type text, p_data json) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs;
BEGIN
  SELECT * INTO v_run FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = p_run;
  IF NOT FOUND THEN RETURN 'gone'; END IF;
  DELETE FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = p_run AND step = p_step;
  IF NOT FOUND OR v_run.state IN ('completed', 'failed', 'canceled') THEN RETURN 'gone'; END IF;
  PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, p_type, p_step, p_data);
  -- A run that waits to be tried again finds the result in its log then.
  IF v_run.state = 'waiting' AND NOT EXISTS (SELECT FROM hansa.waits w WHERE w.tenant_id = p_tenant AND w.run_id = p_run AND w.kind = 'retry') THEN
    PERFORM hansa.run_ready(p_tenant, p_run);
    RETURN 'queued';
  END IF;
  UPDATE hansa.runs SET woken = true WHERE tenant_id = p_tenant AND id = p_run;
  RETURN v_run.state;
END $$;

-- An agent that a run called has returned. What became of it: see wait_resolve.
CREATE OR REPLACE FUNCTION hansa.run_returned(p_tenant uuid, p_run uuid, p_step text, p_data json) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM hansa.run_lock(p_tenant, p_run);
  RETURN hansa.wait_resolve(p_tenant, p_run, p_step, 'run.returned', p_data);
END $$;

-- What is due, over all tenants; looked at again after p_again unless it is settled by then. `next`: seconds until the next one.
-- Called by the system.
CREATE OR REPLACE FUNCTION hansa.waits_due(p_limit integer, p_again interval) RETURNS TABLE (tenant_id uuid, run_id uuid, step text, next float8)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH due AS (
      SELECT w.tenant_id, w.run_id, w.step FROM hansa.waits w WHERE w.look_at <= clock_timestamp() ORDER BY w.look_at LIMIT p_limit
      FOR UPDATE SKIP LOCKED)
    UPDATE hansa.waits w SET look_at = clock_timestamp() + p_again FROM due
    WHERE w.tenant_id = due.tenant_id AND w.run_id = due.run_id AND w.step = due.step
    RETURNING w.tenant_id, w.run_id, w.step, NULL::float8;
  RETURN QUERY SELECT NULL::uuid, NULL::uuid, NULL::text,
    (SELECT extract(epoch FROM w.look_at - clock_timestamp())::float8 FROM hansa.waits w WHERE w.look_at IS NOT NULL ORDER BY w.look_at LIMIT 1);
END $$;

-- The time of a wait has come: a timer is over, a run may start or try again, an approval or an event is given up, a budget has its next
-- period or is larger, a check of a revision is over.
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
    WHEN 'rollout' THEN RETURN hansa.rollout_look(p_tenant, v_run);
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

-- An approval is given, denied or answered by a person, or it expires: once. The state after it, or `gone`, or `conflict.<state>`.
CREATE OR REPLACE FUNCTION hansa.approval_settle(p_tenant uuid, p_id uuid, p_state text, p_by text, p_comment text, p_answer json)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_found hansa.approvals;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT * INTO v_found FROM hansa.approvals WHERE tenant_id = p_tenant AND id = p_id;
  IF NOT FOUND THEN RETURN 'gone'; END IF;
  PERFORM hansa.run_lock(p_tenant, v_found.run_id);
  UPDATE hansa.approvals SET state = p_state, decided_by = p_by, comment = p_comment, answer = p_answer, decided_at = clock_timestamp()
    WHERE tenant_id = p_tenant AND id = p_id AND state = 'pending' AND (p_state = 'expired' OR coalesce(expires_at > clock_timestamp(), true));
  IF NOT FOUND THEN
    RETURN (SELECT 'conflict.' || CASE WHEN a.state = 'pending' THEN 'expired' ELSE a.state END FROM hansa.approvals a
      WHERE a.tenant_id = p_tenant AND a.id = p_id);
  END IF;
  RETURN hansa.wait_resolve(p_tenant, v_found.run_id, v_found.step, 'approval.decided',
    json_build_object('approval_id', p_id, 'decision', p_state, 'by', p_by, 'comment', p_comment, 'answer', p_answer));
END $$;

-- Nobody is asked any more for a run that has ended: its waits go, open approvals are canceled, its children are told. The end of a run that
-- checks a revision decides about it.
CREATE OR REPLACE FUNCTION hansa.waits_drop(p_tenant uuid, v_run hansa.runs) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_wait hansa.waits;
BEGIN
  FOR v_wait IN DELETE FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = v_run.id RETURNING * LOOP
    IF v_wait.kind = 'approval' THEN
      UPDATE hansa.approvals SET state = 'canceled', decided_at = clock_timestamp()
        WHERE tenant_id = p_tenant AND id = v_wait.key::uuid AND state = 'pending';
    ELSIF v_wait.kind = 'child' THEN
      PERFORM hansa.outbox_put(p_tenant, md5(v_wait.key || '.cancel')::uuid, 'run.cancel', v_run.id::text, json_build_object('id', v_wait.key)::text);
    ELSIF v_wait.kind = 'rollout' THEN
      PERFORM hansa.rollout_end(p_tenant, v_run);
    END IF;
  END LOOP;
END $$;

-- Tells a run's parent how it ended.
CREATE OR REPLACE FUNCTION hansa.child_return(p_tenant uuid, v_run hansa.runs) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM hansa.outbox_put(p_tenant, md5(v_run.id || '.return')::uuid, 'run.returned', v_run.parent_run::text, json_build_object(
    'id', v_run.id, 'parent_run', v_run.parent_run, 'parent_step', v_run.parent_step, 'state', v_run.state, 'output', v_run.output,
    'error', v_run.error, 'usage', json_build_object('input_tokens', v_run.input_tokens, 'output_tokens', v_run.output_tokens))::text);
END $$;

-- An event for a session: its run that waits for it goes on, else it is kept until one does. What became of it: see wait_resolve,
-- or `kept`, or `no_session`.
CREATE OR REPLACE FUNCTION hansa.event_send(p_tenant uuid, p_session uuid, p_id uuid, p_name text, p_data json)
RETURNS TABLE (outcome text, run uuid) LANGUAGE plpgsql AS $$
DECLARE v_session hansa.sessions; v_wait hansa.waits;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT * INTO v_session FROM hansa.sessions WHERE tenant_id = p_tenant AND id = p_session FOR UPDATE;
  IF NOT FOUND THEN RETURN QUERY SELECT 'no_session', NULL::uuid; RETURN; END IF;
  PERFORM hansa.values_refer(p_tenant, p_session, ARRAY[p_data::text]);
  SELECT * INTO v_wait FROM hansa.waits w WHERE w.tenant_id = p_tenant AND w.run_id = v_session.active_run AND w.kind = 'event' AND w.key = p_name
    ORDER BY w.step LIMIT 1;
  IF FOUND THEN
    PERFORM hansa.run_lock(p_tenant, v_wait.run_id);
    RETURN QUERY SELECT hansa.wait_resolve(p_tenant, v_wait.run_id, v_wait.step, 'event.received', json_build_object('name', p_name, 'data', p_data)),
      v_wait.run_id;
    RETURN;
  END IF;
  INSERT INTO hansa.mailbox (tenant_id, session_id, id, name, data) VALUES (p_tenant, p_session, p_id, p_name, p_data) ON CONFLICT DO NOTHING;
  RETURN QUERY SELECT 'kept', NULL::uuid;
END $$;

-- An event for every run of the tenant that waits for one of its name now, in the order of their sessions; `p_within`: for those in
-- sessions of some namespaces.
CREATE OR REPLACE FUNCTION hansa.event_publish(p_tenant uuid, p_name text, p_data json, p_within text[] DEFAULT NULL) RETURNS TABLE (outcome text, run uuid) LANGUAGE plpgsql AS $$
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
