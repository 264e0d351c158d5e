-- Agents as the engine knows them and as they are read: what is shown of one, and all that its status follows from, in one statement.

-- An agent's object has changed: what starting its runs needs to know, its bound on runs at once, and whether they are held. Returns
-- whether runs of it are to be told. A bound counts the runs that become ready after it was set. Whatever revision of the agent was being
-- checked is not any more. Revision 0: none serves.
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

-- An agent's object is gone: none of its runs starts, those that were queued are not held up by its bound, and no revision of it is being
-- checked any more.
CREATE OR REPLACE FUNCTION hansa.agent_deleted(p_tenant uuid, p_agent text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM hansa.rollout_stop(p_tenant, p_agent);
  DELETE FROM hansa.agents WHERE tenant_id = p_tenant AND name = p_agent;
  PERFORM hansa.slots_fill(p_tenant, p_agent);
END $$;

-- Who applied an agent last: it bounds the runs of the revision that it applied, and of an agent that is new those of all revisions, which may
-- be older than it is. Whether that is another one.
CREATE OR REPLACE FUNCTION hansa.agent_owned(p_tenant uuid, p_agent text, p_owner json) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_revision integer;
BEGIN
  SELECT max(l.revision) INTO v_revision FROM hansa.rollouts l WHERE l.tenant_id = p_tenant AND l.agent = p_agent
    AND l.revision >= (SELECT a.revision FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = p_agent);
  IF v_revision IS NULL THEN
    UPDATE hansa.agents SET owner = p_owner WHERE tenant_id = p_tenant AND name = p_agent AND owner::text IS DISTINCT FROM p_owner::text;
  ELSE
    UPDATE hansa.agents SET owner = p_owner WHERE tenant_id = p_tenant AND name = p_agent AND owner IS NULL AND revision IN (0, v_revision);
    UPDATE hansa.rollouts SET owner = p_owner
      WHERE tenant_id = p_tenant AND agent = p_agent AND revision = v_revision AND owner::text IS DISTINCT FROM p_owner::text;
  END IF;
  RETURN FOUND;
END $$;

-- The elements of a JSON array; none of anything else, as in a manifest that a newer version wrote.
CREATE OR REPLACE FUNCTION hansa.elements(p json) RETURNS SETOF json LANGUAGE sql IMMUTABLE AS $$
  SELECT value FROM json_array_elements(CASE json_typeof(p) WHEN 'array' THEN p ELSE '[]' END)
$$;

-- An agent as people see it, but for its status; `p_serving` 0: no revision serves.
CREATE OR REPLACE FUNCTION hansa.agent_json(o hansa.objects, p_serving integer) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('name', o.name, 'revision', nullif(p_serving, 0), 'generation', o.generation, 'manager', o.manager,
    'origin', o.origin, 'commit', o.commit, 'source', o.source, 'applied_by', o.applied_by,
    'description', coalesce(o.manifest -> 'spec' ->> 'description', ''),
    'runtime', coalesce(o.manifest -> 'spec' -> 'runtime' ->> 'name', 'loop'),
    'model', coalesce(o.manifest -> 'spec' -> 'model' ->> 'alias', o.manifest -> 'spec' -> 'model' ->> 'ref'),
    'suspended', coalesce((o.manifest -> 'spec' ->> 'suspend')::boolean, false),
    'created_at', o.created_at, 'updated_at', o.updated_at, 'manifest', o.manifest)
$$;

-- What the status of agents follows from, of those that are there: `facts` of each, and what is `around` them all. Of ModelProviders those
-- that offer what one of them names; all, where what one names is offered by none, for then it is told what there is.
CREATE OR REPLACE FUNCTION hansa.agents_told(p_tenant uuid, p_names text[]) RETURNS json LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN (WITH mine AS MATERIALIZED (
      SELECT o.*, o.manifest #> '{spec,model}' AS model, o.manifest #> '{spec,tools}' AS tools FROM hansa.objects o
      WHERE o.tenant_id = p_tenant AND o.kind = 'Agent' AND o.name = ANY (p_names)),
    wanted AS MATERIALIZED (
      SELECT c.choice ->> 'alias' AS alias, c.choice ->> 'ref' AS ref FROM mine m
      CROSS JOIN LATERAL (SELECT m.model UNION ALL SELECT f.fallback FROM hansa.elements(m.model -> 'fallbacks') f(fallback)) c(choice)),
    -- Taking a manifest apart takes long: of those alone in which the words stand.
    near AS MATERIALIZED (
      SELECT w.alias, w.ref, p.name, p.manifest FROM (SELECT DISTINCT alias, ref FROM wanted) w JOIN hansa.objects p
        ON p.tenant_id = p_tenant AND p.kind = 'ModelProvider' AND (split_part(w.ref, '/', 1) = p.name OR strpos(p.manifest::text, '"' || w.alias || '"') > 0)),
    offered AS MATERIALIZED (
      SELECT n.name, n.alias, n.ref FROM near n CROSS JOIN LATERAL hansa.elements(n.manifest #> '{spec,models}') l(model)
      WHERE n.ref = n.name || '/' || (l.model ->> 'name') OR n.alias IN (SELECT a #>> '{}' FROM hansa.elements(l.model -> 'aliases') a)),
    used AS MATERIALIZED (
      SELECT u ->> 'toolServer' AS server, u ->> 'agent' AS agent FROM mine m CROSS JOIN LATERAL hansa.elements(m.tools) u)
    SELECT json_build_object(
      'facts', coalesce((
        SELECT json_agg(json_build_object('name', o.name, 'generation', o.generation, 'updated_at', o.updated_at, 'manifest', o.manifest,
          'source', json_build_object('manager', o.manager, 'origin', o.origin, 'commit', o.commit, 'file', o.source -> 'file',
            'line', o.source -> 'line', 'column', o.source -> 'column'),
          'desired', n.revision, 'desired_at', n.created_at, 'serving', coalesce(a.revision, 0), 'rollout', l.body))
        FROM mine o LEFT JOIN LATERAL (SELECT a.revision FROM hansa.agents a WHERE a.tenant_id = p_tenant AND a.name = o.name LIMIT 1) a ON true
        CROSS JOIN LATERAL (SELECT r.revision, r.created_at FROM hansa.agent_revisions r
          WHERE r.tenant_id = p_tenant AND r.agent = o.name ORDER BY r.revision DESC LIMIT 1) n
        LEFT JOIN LATERAL (SELECT json_build_object('state', l.state, 'reason', l.reason, 'message', l.message, 'changed_at', l.changed_at,
            'smoke_run', l.smoke_run, 'run_state', r.state, 'suspended_by', r.suspended_by, 'gate', r.gate) AS body
          FROM hansa.rollouts l LEFT JOIN hansa.runs r ON r.tenant_id = p_tenant AND r.id = l.smoke_run
          WHERE l.tenant_id = p_tenant AND l.agent = o.name AND l.revision = n.revision LIMIT 1) l ON true), '[]'),
      'around', json_build_object(
        'providers', coalesce((SELECT json_agg(o.manifest ORDER BY o.name) FROM hansa.objects o
          WHERE o.tenant_id = p_tenant AND o.kind = 'ModelProvider' AND (o.name = ANY (ARRAY(SELECT f.name FROM offered f)) OR EXISTS (
            SELECT FROM wanted w WHERE coalesce(w.alias, w.ref) IS NOT NULL AND NOT EXISTS (
              SELECT FROM offered f WHERE f.alias = w.alias OR f.ref = w.ref)))), '[]'),
        'servers', coalesce((SELECT json_agg(json_build_object('manifest', o.manifest, 'status', o.status)) FROM hansa.objects o
          WHERE o.tenant_id = p_tenant AND o.kind = 'ToolServer' AND o.name = ANY (ARRAY(SELECT u.server FROM used u))), '[]'),
        'agents', coalesce((SELECT json_agg(o.name) FROM hansa.objects o
          WHERE o.tenant_id = p_tenant AND o.kind = 'Agent' AND o.name = ANY (ARRAY(SELECT u.agent FROM used u))), '[]'),
        'allowed', (SELECT o.manifest -> 'spec' -> 'allowed' FROM hansa.objects o WHERE o.tenant_id = p_tenant AND o.kind = 'Tenant' LIMIT 1),
        'changed_at', (SELECT max(o.updated_at) FROM hansa.objects o
          WHERE o.tenant_id = p_tenant AND o.kind IN ('ModelProvider', 'ToolServer', 'Tenant')))));
END $$;

-- An agent as people see it, and what its status follows from; no row: it is not there.
CREATE OR REPLACE FUNCTION hansa.agent_read(p_tenant uuid, p_name text) RETURNS TABLE (body json, told json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  RETURN QUERY SELECT hansa.agent_json(o, a.revision), hansa.agents_told(p_tenant, ARRAY[p_name])
    FROM hansa.objects o JOIN hansa.agents a ON a.tenant_id = o.tenant_id AND a.name = o.name
    WHERE o.tenant_id = p_tenant AND o.kind = 'Agent' AND o.name = p_name;
END $$;
