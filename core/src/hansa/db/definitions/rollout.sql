-- Revisions of agents that are checked before they serve.
-- The row of an agent in `agents` is the lock of its rollouts: who decides about one holds it. So it is taken where agents are: after
-- sessions and before runs (see log.sql).

-- What is known of a revision that was to be checked, or of the newest one; NULL: nothing had to be.
CREATE OR REPLACE FUNCTION hansa.rollout_json(p_tenant uuid, p_agent text, p_revision integer) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('agent', l.agent, 'revision', l.revision, 'state', l.state, 'reason', l.reason, 'message', l.message, 'smoke_run', l.smoke_run,
    'changed_at', l.changed_at)
  FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND (p_revision IS NULL OR l.revision = p_revision)
  ORDER BY l.revision DESC LIMIT 1
$$;

-- No revision of an agent is being checked any more: another one was applied, or the agent is deleted. The run of the check is canceled
-- in a transaction of its own, for who is here holds the agent and may wait for no run.
CREATE OR REPLACE FUNCTION hansa.rollout_stop(p_tenant uuid, p_agent text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_run uuid;
BEGIN
  PERFORM FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent AND a.checking FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  UPDATE hansa.agents SET checking = false WHERE tenant_id = p_tenant AND name = p_agent;
  UPDATE hansa.rollouts SET state = 'superseded', reason = 'Superseded', changed_at = clock_timestamp(),
      message = 'another revision was applied, or the agent was deleted, before its check had ended'
    WHERE tenant_id = p_tenant AND agent = p_agent AND state = 'checking' RETURNING smoke_run INTO v_run;
  PERFORM hansa.outbox_put(p_tenant, md5(v_run || '.cancel')::uuid, 'run.cancel', v_run::text, json_build_object('id', v_run)::text);
END $$;

-- A revision that asks for a check was applied. One whose spec has passed a check before serves at once: going back is quick. Else the
-- run `p_run` is to check it (message rollout.begin), and what serves goes on serving. `suspend` is obeyed in any case.
CREATE OR REPLACE FUNCTION hansa.rollout_begin(p_tenant uuid, p_agent text, p_revision integer, p_digest bytea, p_seconds integer, p_suspended boolean,
  p_concurrency text, p_pool text, p_bound integer, p_run uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_agent hansa.agents; v_state text; v_passed boolean;
BEGIN
  SELECT * INTO v_agent FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent FOR UPDATE;
  IF FOUND THEN
    SELECT l.state INTO v_state FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND l.revision = p_revision;
    IF v_state IN ('checking', 'refused', 'served') THEN RETURN v_state; END IF;  -- no more than its labels were changed
  END IF;
  PERFORM hansa.rollout_stop(p_tenant, p_agent);
  v_passed := EXISTS (SELECT FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND l.digest = p_digest AND l.state = 'served');
  INSERT INTO hansa.rollouts AS l (tenant_id, agent, revision, digest, state, reason, message, smoke_run, seconds, concurrency, pool, bound)
    SELECT p_tenant, p_agent, p_revision, p_digest, n.state, n.reason, n.message, n.run, p_seconds, p_concurrency, p_pool, p_bound
    FROM (SELECT 'served' AS state, 'PassedBefore' AS reason, 'the same spec has passed its check before' AS message, NULL::uuid AS run WHERE v_passed
      UNION ALL SELECT 'checking', 'Checking', '', p_run WHERE NOT v_passed) n
    ON CONFLICT (tenant_id, agent, revision) DO UPDATE SET state = excluded.state, reason = excluded.reason, message = excluded.message,
      smoke_run = excluded.smoke_run, seconds = excluded.seconds, deadline = NULL, changed_at = clock_timestamp();
  IF v_passed THEN
    PERFORM hansa.agent_changed(p_tenant, p_agent, p_revision, p_suspended, p_concurrency, hansa.pool_of(p_tenant, p_pool), p_bound);
    RETURN 'served';
  END IF;
  IF coalesce(v_agent.revision, 0) = 0 THEN
    PERFORM hansa.agent_changed(p_tenant, p_agent, 0, p_suspended, p_concurrency, hansa.pool_of(p_tenant, p_pool), p_bound);
  ELSE
    PERFORM hansa.agent_changed(p_tenant, p_agent, v_agent.revision, p_suspended, v_agent.concurrency, v_agent.pool, v_agent.bound);
  END IF;
  UPDATE hansa.agents SET checking = true WHERE tenant_id = p_tenant AND name = p_agent;
  PERFORM hansa.outbox_put(p_tenant, p_run, 'rollout.begin', p_run::text, json_build_object('agent', p_agent, 'revision', p_revision)::text);
  RETURN 'checking';
END $$;

-- Checks the newest revision of an agent once more, if that was refused, or has no run although it is being checked: `begun`. Else its
-- state; NULL: it serves, or there is no such agent.
CREATE OR REPLACE FUNCTION hansa.rollout_again(p_tenant uuid, p_agent text, p_run uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v hansa.rollouts; v_serving integer; v_checking boolean;
BEGIN
  SELECT a.revision, a.checking INTO v_serving, v_checking FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent FOR UPDATE;
  SELECT * INTO v FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND l.revision > v_serving ORDER BY l.revision DESC LIMIT 1;
  IF v.state IS NULL OR v.state NOT IN ('refused', 'checking')
      OR v.state = 'checking' AND EXISTS (SELECT FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = v.smoke_run) THEN
    RETURN v.state;
  END IF;
  IF v.state = 'refused' AND v_checking THEN RETURN 'checking'; END IF;
  UPDATE hansa.rollouts SET state = 'checking', reason = 'Checking', message = '', smoke_run = p_run, deadline = NULL, changed_at = clock_timestamp()
    WHERE tenant_id = p_tenant AND agent = p_agent AND revision = v.revision;
  UPDATE hansa.agents SET checking = true WHERE tenant_id = p_tenant AND name = p_agent;
  PERFORM hansa.outbox_put(p_tenant, p_run, 'rollout.begin', p_run::text, json_build_object('agent', p_agent, 'revision', v.revision)::text);
  RETURN 'begun';
END $$;

-- Starts the run that checks a revision, in a session of its own; false: that is not wanted any more, or done. It is accepted also where others are
-- refused: in a suspended tenant it is held like all runs, and goes on with them. It takes the next slot of its agent, and is in its namespace.
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

-- Decides about a revision that is being checked. The caller holds its agent.
CREATE OR REPLACE FUNCTION hansa.rollout_decide(p_tenant uuid, v hansa.rollouts, p_state text, p_reason text, p_message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE hansa.rollouts SET state = p_state, reason = p_reason, message = p_message, changed_at = clock_timestamp()
    WHERE tenant_id = p_tenant AND agent = v.agent AND revision = v.revision;
  UPDATE hansa.agents SET checking = false WHERE tenant_id = p_tenant AND name = v.agent;
  IF p_state = 'served' THEN
    UPDATE hansa.agents SET revision = v.revision, concurrency = v.concurrency, pool = hansa.pool_of(p_tenant, v.pool), bound = v.bound
      WHERE tenant_id = p_tenant AND name = v.agent;
    PERFORM hansa.slots_fill(p_tenant, v.agent);
  END IF;
END $$;

-- What a run was to check: its rollout, as long as that is being checked by this run.
CREATE OR REPLACE FUNCTION hansa.rollout_of(p_tenant uuid, v_run hansa.runs) RETURNS hansa.rollouts LANGUAGE sql AS $$
  SELECT * FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = v_run.agent AND l.revision = v_run.revision AND l.smoke_run = v_run.id
    AND l.state = 'checking'
$$;

-- The run that checks a revision has ended, in this transaction: the revision serves from now on, or is refused. Whether the answer was
-- right its worker has said: else the run has failed.
CREATE OR REPLACE FUNCTION hansa.rollout_end(p_tenant uuid, v_run hansa.runs) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v hansa.rollouts := hansa.rollout_of(p_tenant, v_run);
BEGIN
  IF v.tenant_id IS NULL THEN RETURN; END IF;
  CASE v_run.state
    WHEN 'completed' THEN PERFORM hansa.rollout_decide(p_tenant, v, 'served', 'Passed', 'its check has passed');
    WHEN 'failed' THEN
      PERFORM hansa.rollout_decide(p_tenant, v, 'refused', 'SmokeFailed', format('its run %s failed: %s: %s', v_run.id,
        v_run.error ->> 'code', left(v_run.error ->> 'detail', 1000)));
    ELSE PERFORM hansa.rollout_decide(p_tenant, v, 'refused', 'SmokeCanceled', format('its run %s was canceled', v_run.id));
  END CASE;
END $$;

-- The time of a check has come: it is over, unless the run waits for a worker or is held; then it has all of its time again. The caller has
-- the run locked.
CREATE OR REPLACE FUNCTION hansa.rollout_look(p_tenant uuid, v_run hansa.runs) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v hansa.rollouts := hansa.rollout_of(p_tenant, v_run); v_again timestamptz;
BEGIN
  -- While there was no worker nobody has looked either.
  v.deadline := greatest(v.deadline, v_run.started_at + make_interval(secs => v.seconds));
  IF v.tenant_id IS NOT NULL AND v_run.state IN ('queued', 'suspended') THEN
    UPDATE hansa.rollouts SET deadline = clock_timestamp() + make_interval(secs => seconds)
      WHERE tenant_id = p_tenant AND agent = v.agent AND revision = v.revision;
    v_again := clock_timestamp() + make_interval(secs => least(v.seconds, 60));
  ELSIF v.deadline > clock_timestamp() THEN
    v_again := v.deadline;
  END IF;
  IF v_again IS NOT NULL THEN
    UPDATE hansa.waits SET look_at = v_again WHERE tenant_id = p_tenant AND run_id = v_run.id AND step = 'rollout';
    RETURN 'checking';
  END IF;
  DELETE FROM hansa.waits WHERE tenant_id = p_tenant AND run_id = v_run.id AND step = 'rollout';
  IF v.tenant_id IS NOT NULL THEN
    PERFORM hansa.rollout_decide(p_tenant, v, 'refused', 'Expired', format('its run %s had not ended after %s s; it was %s', v_run.id, v.seconds,
      CASE v_run.state WHEN 'running' THEN 'worked on' WHEN 'needs_review' THEN 'in need of review' ELSE v_run.state END));
  END IF;
  PERFORM hansa.run_stop(p_tenant, v_run);
  RETURN 'gone';
END $$;
