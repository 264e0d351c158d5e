-- A suspended tenant stands still: no run of it starts, and those that workers drive are held within one lease time. Run as hansa_owner.

-- A tenant is suspended or goes on. Returns whether workers are to be told. The caller's transaction has the tenant's row: who holds a run
-- at this moment has looked at it before, and its run is seen here as suspended.
CREATE FUNCTION hansa.tenant_changed(p_tenant uuid, p_suspended boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_run uuid; v_told boolean := p_suspended;
BEGIN
  UPDATE hansa.tenants SET suspended = p_suspended WHERE tenant_id = p_tenant;
  IF NOT p_suspended THEN
    FOR v_run IN SELECT id FROM hansa.runs WHERE tenant_id = p_tenant AND state = 'suspended' AND suspended_by = 'tenant' ORDER BY id FOR UPDATE LOOP
      PERFORM hansa.run_continue(p_tenant, v_run);
      v_told := true;
    END LOOP;
  END IF;
  RETURN v_told;
END $$;

-- In place of that in 0001_drive.sql: a wish for the runs of a suspended tenant.
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

-- In place of that in 0001_control.sql: `outcome` may be tenant_suspended.
CREATE OR REPLACE FUNCTION hansa.run_resume(p_tenant uuid, p_run uuid, p_as text, p_answer json, p_by text)
RETURNS TABLE (outcome text, answer json) LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_call json; v_step text;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL THEN RETURN QUERY SELECT 'no_run', NULL::json; RETURN; END IF;
  IF v_run.state = 'suspended' AND p_as IS NULL THEN
    IF (SELECT t.suspended FROM hansa.tenants t WHERE t.tenant_id = p_tenant) THEN RETURN QUERY SELECT 'tenant_suspended', NULL::json; RETURN; END IF;
    IF EXISTS (SELECT FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = v_run.agent AND a.suspended) THEN
      RETURN QUERY SELECT 'agent_suspended', NULL::json; RETURN;
    END IF;
    PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'run.continued', NULL, json_build_object('by', p_by));
    PERFORM hansa.run_continue(p_tenant, p_run);
  ELSIF v_run.suspend_requested_at IS NOT NULL AND v_run.state IN ('queued', 'running') AND p_as IS NULL THEN
    UPDATE hansa.runs SET suspend_requested_at = NULL WHERE tenant_id = p_tenant AND id = p_run;
  ELSIF v_run.state = 'suspended' THEN RETURN QUERY SELECT 'as_unasked', NULL::json; RETURN;
  ELSIF v_run.state = 'needs_review' AND p_as IS NULL THEN RETURN QUERY SELECT 'as_missing', NULL::json; RETURN;
  ELSIF v_run.state = 'needs_review' THEN
    SELECT e.data, e.data ->> 'step' INTO v_call, v_step FROM hansa.events e WHERE e.tenant_id = p_tenant AND e.session_id = v_run.session_id
      AND e.seq > v_run.queued_seq AND e.run_id = p_run AND e.type = 'run.needs_review' ORDER BY e.seq DESC LIMIT 1;
    PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'review.decided', v_step,
      json_build_object('decision', p_as, 'by', p_by, 'attempt', v_call -> 'attempt'));
    IF p_as = 'fail' THEN
      v_run := hansa.run_end(p_tenant, v_run, 'failed', json_build_object('code', 'review_failed',
        'detail', format('%s decided that the run fails at step %s, %s', p_by, v_step, v_call ->> 'name'), 'hint', ''));
      RETURN QUERY SELECT 'resumed', hansa.run_json(v_run); RETURN;
    ELSIF p_as = 'done' THEN
      PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'tool.completed', v_step, json_build_object(
        'name', v_call -> 'name', 'arguments', v_call -> 'arguments', 'content', p_answer, 'is_error', false, 'invalid_arguments', false));
    END IF;
    PERFORM hansa.run_ready(p_tenant, p_run);
  ELSE RETURN QUERY SELECT v_run.state, NULL::json; RETURN;
  END IF;
  SELECT * INTO v_run FROM hansa.runs WHERE tenant_id = p_tenant AND id = p_run;
  RETURN QUERY SELECT 'resumed', hansa.run_json(v_run);
END $$;
