-- Revisions of agents that are checked before they serve, and sessions that keep theirs. Run as hansa_owner.
-- The row of an agent in `agents` is the lock of its rollouts: who decides about one holds it. So it is taken where agents are: after
-- sessions and before runs (see 0001_log.sql).

-- `revision`: the one that serves; 0: none does yet. `checking`: a revision that was applied after it is being checked.
ALTER TABLE hansa.agents ADD COLUMN checking boolean NOT NULL DEFAULT false;
-- `revision`: what its runs are on; NULL: of an earlier release. `smoke`: it checks that revision, and is no customer's.
ALTER TABLE hansa.sessions ADD COLUMN revision integer, ADD COLUMN smoke boolean NOT NULL DEFAULT false;
ALTER TABLE hansa.waits DROP CONSTRAINT waits_kind_check,
  ADD CONSTRAINT waits_kind_check CHECK (kind IN ('start', 'timer', 'retry', 'child', 'approval', 'event', 'budget', 'rollout')) NOT VALID;

-- Revisions that ask to be checked; of all others there is no row: they serve at once. `digest` is that of the spec but for `suspend`. `concurrency`, `pool` and `bound` come into force with the revision. `seconds`: how long a check may
-- take, until `deadline`; time in which it waits for a worker, or is held, does not count. `owner`: as in agents, of this revision.
CREATE TABLE hansa.rollouts (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  agent text NOT NULL,
  revision integer NOT NULL,
  digest bytea NOT NULL,
  state text NOT NULL CHECK (state IN ('checking', 'served', 'refused', 'superseded')),
  reason text NOT NULL,
  message text NOT NULL,
  smoke_run uuid,
  seconds integer NOT NULL,
  deadline timestamptz,
  concurrency text NOT NULL,
  pool text NOT NULL,
  bound integer,
  owner json,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, agent, revision)
);
CREATE UNIQUE INDEX rollouts_checking ON hansa.rollouts (tenant_id, agent) WHERE state = 'checking';
ALTER TABLE hansa.rollouts ENABLE ROW LEVEL SECURITY;
ALTER TABLE hansa.rollouts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON hansa.rollouts TO hansa_app, hansa_owner
  USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
GRANT SELECT, INSERT, UPDATE ON hansa.rollouts TO hansa_app;

-- What is known of a revision that was to be checked, or of the newest one; NULL: nothing had to be.
CREATE FUNCTION hansa.rollout_json(p_tenant uuid, p_agent text, p_revision integer) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('agent', l.agent, 'revision', l.revision, 'state', l.state, 'reason', l.reason, 'message', l.message, 'smoke_run', l.smoke_run,
    'changed_at', l.changed_at)
  FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND (p_revision IS NULL OR l.revision = p_revision)
  ORDER BY l.revision DESC LIMIT 1
$$;

-- No revision of an agent is being checked any more: another one was applied, or the agent is deleted. The run of the check is canceled
-- in a transaction of its own, for who is here holds the agent and may wait for no run.
CREATE FUNCTION hansa.rollout_stop(p_tenant uuid, p_agent text) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE FUNCTION hansa.rollout_begin(p_tenant uuid, p_agent text, p_revision integer, p_digest bytea, p_seconds integer, p_suspended boolean,
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
CREATE FUNCTION hansa.rollout_again(p_tenant uuid, p_agent text, p_run uuid) RETURNS text LANGUAGE plpgsql AS $$
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
-- refused: in a suspended tenant it is held like all runs, and goes on with them. It takes the next slot of its agent.
CREATE FUNCTION hansa.rollout_start(p_tenant uuid, p_agent text, p_revision integer, p_run uuid, p_session uuid, p_input json, p_by json)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v hansa.rollouts;
BEGIN
  PERFORM FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent FOR UPDATE;
  SELECT * INTO v FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent AND l.revision = p_revision AND l.smoke_run = p_run
    AND l.state = 'checking' AND NOT EXISTS (SELECT FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = p_run);
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run, revision, smoke)
    VALUES (p_tenant, p_session, p_agent, 1, 1, p_run, p_revision, true);
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
CREATE FUNCTION hansa.rollout_decide(p_tenant uuid, v hansa.rollouts, p_state text, p_reason text, p_message text) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE FUNCTION hansa.rollout_of(p_tenant uuid, v_run hansa.runs) RETURNS hansa.rollouts LANGUAGE sql AS $$
  SELECT * FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = v_run.agent AND l.revision = v_run.revision AND l.smoke_run = v_run.id
    AND l.state = 'checking'
$$;

-- The run that checks a revision has ended, in this transaction: the revision serves from now on, or is refused. Whether the answer was
-- right its worker has said: else the run has failed.
CREATE FUNCTION hansa.rollout_end(p_tenant uuid, v_run hansa.runs) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE FUNCTION hansa.rollout_look(p_tenant uuid, v_run hansa.runs) RETURNS text LANGUAGE plpgsql AS $$
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

-- Who applied an agent last: it bounds the runs of the revision that it applied. Whether that is another one.
CREATE FUNCTION hansa.agent_owned(p_tenant uuid, p_agent text, p_owner json) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_revision integer;
BEGIN
  SELECT max(l.revision) INTO v_revision FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent
    AND l.revision >= (SELECT a.revision FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent);
  IF v_revision IS NULL THEN
    UPDATE hansa.agents SET owner = p_owner WHERE tenant_id = p_tenant AND name = p_agent AND owner::text IS DISTINCT FROM p_owner::text;
  ELSE
    UPDATE hansa.rollouts SET owner = p_owner
      WHERE tenant_id = p_tenant AND agent = p_agent AND revision = v_revision AND owner::text IS DISTINCT FROM p_owner::text;
  END IF;
  RETURN FOUND;
END $$;

-- What replaces functions of earlier schemas.

-- Replaces agents_lock of 0001_log.sql: also those with a revision that is checked, for the end of its run changes what serves.
CREATE OR REPLACE FUNCTION hansa.agents_lock(p_tenant uuid, p_agents text[]) RETURNS void LANGUAGE sql AS $$
  SELECT FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = ANY (p_agents) AND (a.bound IS NOT NULL OR a.held > 0 OR a.checking)
    ORDER BY a.name FOR UPDATE
$$;

-- Replaces waits_drop of 0001_waits.sql: the end of a run that checks a revision decides about it.
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

-- Replaces wait_expire of 0002_metering.sql: with the time of a check.
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

-- Replaces agent_changed of 0001_control.sql: whatever revision of the agent was being checked is not any more. Revision 0: none serves.
CREATE OR REPLACE FUNCTION hansa.agent_changed(p_tenant uuid, p_agent text, p_revision integer, p_suspended boolean, p_concurrency text, p_pool text,
  p_bound integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_run uuid; v_told boolean := p_suspended;
BEGIN
  PERFORM hansa.rollout_stop(p_tenant, p_agent);
  UPDATE hansa.agents SET revision = p_revision, suspended = p_suspended, concurrency = p_concurrency, pool = p_pool, bound = p_bound
    WHERE tenant_id = p_tenant AND name = p_agent;
  IF NOT FOUND THEN  -- new, or here again while runs of the agent that was deleted go on: who ends one now waits, or has ended it
    PERFORM FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.agent = p_agent AND (r.slot OR r.state = 'suspended') ORDER BY r.id FOR UPDATE;
    INSERT INTO hansa.agents (tenant_id, name, revision, suspended, concurrency, pool, bound, held)
      VALUES (p_tenant, p_agent, p_revision, p_suspended, p_concurrency, p_pool, p_bound,
        (SELECT count(*) FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.agent = p_agent AND r.slot));
  END IF;
  PERFORM hansa.slots_fill(p_tenant, p_agent);
  IF NOT p_suspended THEN
    FOR v_run IN SELECT id FROM hansa.runs WHERE tenant_id = p_tenant AND agent = p_agent AND state = 'suspended' AND suspended_by = 'agent'
      ORDER BY id FOR UPDATE
    LOOP
      PERFORM hansa.run_continue(p_tenant, v_run);
      v_told := true;
    END LOOP;
  END IF;
  RETURN v_told;
END $$;

-- Replaces agent_deleted of 0001_control.sql, likewise.
CREATE OR REPLACE FUNCTION hansa.agent_deleted(p_tenant uuid, p_agent text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM hansa.rollout_stop(p_tenant, p_agent);
  DELETE FROM hansa.agents WHERE tenant_id = p_tenant AND name = p_agent;
  PERFORM hansa.slots_fill(p_tenant, p_agent);
END $$;

-- Replaces run_start of 0002_engine.sql: a session keeps the revision that it was begun with, unless `p_new` names another one: then it goes on
-- with that. A revision that was checked and has not passed can't be named, and nobody speaks in a session that checks one.
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
    IF v_session.smoke THEN RETURN QUERY SELECT 'smoke_session', NULL::json; RETURN; END IF;
    IF v_session.revision IS NULL THEN  -- of an earlier release: it goes on as it last did
      v_session.revision := (SELECT r.revision FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.session_id = v_given ORDER BY r.queued_seq DESC LIMIT 1);
    END IF;
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
  v_revision := coalesce((p_new ->> 'revision')::integer, v_session.revision, v_agent.revision);
  IF v_revision = 0 THEN RETURN QUERY SELECT 'not_served', hansa.rollout_json(p_tenant, v_name, NULL); RETURN; END IF;
  IF v_revision NOT IN (v_agent.revision, coalesce(v_session.revision, 0)) THEN
    IF NOT EXISTS (SELECT FROM hansa.agent_revisions r WHERE r.tenant_id = p_tenant AND r.agent = v_name AND r.revision = v_revision) THEN
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
    INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run, revision)
      VALUES (p_tenant, v_session.id, v_name, 1, 1, v_id, v_revision);
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

-- Replaces run_start_many of 0002_engine.sql, likewise.
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
      WHERE NOT g.suspended AND g.bound IS NULL AND g.revision > 0 AND coalesce(a.revision, g.revision) = g.revision AND a.start_at IS NULL
        AND (a.key IS NULL OR (SELECT k.key FROM hansa.idempotency_keys k
          WHERE k.tenant_id = p_tenant AND k.principal = a.principal AND k.route = a.route AND k.key = a.key) IS NULL)),
    opened AS (
      INSERT INTO hansa.sessions (tenant_id, id, agent, last_seq, newest_run, active_run, revision)
        SELECT p_tenant, u.new_session_id, u.agent, 1, 1, u.id, u.newest FROM usual u),
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

-- Replaces run_fork of 0002_identity.sql: the new session keeps the revision of the run that is forked; one that checks a revision is not.
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
  INSERT INTO hansa.sessions (tenant_id, id, agent, newest_run, active_run, forked_from, forked_seq, revision)
    VALUES (p_tenant, p_new_session, v_run.agent, 1, p_new_run, v_run.session_id, v_run.queued_seq, v_run.revision);
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
