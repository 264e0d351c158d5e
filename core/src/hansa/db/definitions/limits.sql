-- How much a tenant may ask of the API and send, how much of its limits is used, and whom that was told.

-- Admits as many of `p_wanted` requests as the tenant's bound leaves, and counts up to `p_ahead` more that are still to come, so that who
-- asked need not ask for each. Never more than the bound in any second and one second's worth at once, whichever process asks (the generic
-- cell rate algorithm, ITU-T I.371): who asked uses what was counted ahead within `lease` seconds of asking or never, and that much of a
-- second's worth is kept back here. Nothing is counted ahead out of the last half of a second's worth: near its bound nothing of a tenant's
-- is lost. Below 100 a second nothing is counted ahead or kept back. `pause`: seconds until the next one could be admitted.
CREATE OR REPLACE FUNCTION hansa.requests_take(p_tenant uuid, p_wanted integer, p_ahead integer)
RETURNS TABLE (admitted integer, bound integer, pause double precision, ahead integer, lease double precision) LANGUAGE plpgsql AS $$
DECLARE v_now double precision; v_due double precision;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT t.requests_per_second INTO bound FROM hansa.tenants t WHERE t.tenant_id = p_tenant;
  lease := CASE WHEN bound >= 100 THEN 0.05 ELSE 0 END;
  IF bound IS NULL THEN RETURN QUERY SELECT p_wanted, bound, 0.0::double precision, 0, lease; RETURN; END IF;
  INSERT INTO hansa.request_rates (tenant_id, due) VALUES (p_tenant, 0) ON CONFLICT DO NOTHING;
  SELECT r.due INTO v_due FROM hansa.request_rates r WHERE r.tenant_id = p_tenant FOR UPDATE;
  v_now := extract(epoch FROM clock_timestamp());  -- read once the row is ours: no two batches have the same moment
  -- Never more than a second ahead, but for a clock that was put back: that is not made up for by anyone's waiting.
  v_due := least(greatest(v_due, v_now), v_now + 1);
  -- A little more than nothing: a third of a second three times is a second, also in binary. A smaller bound, which keeps nothing back,
  -- may have left less than nothing.
  admitted := greatest(least(p_wanted, floor(bound * (1 - lease - (v_due - v_now)) + 1e-4)::integer), 0);
  v_due := v_due + admitted::double precision / bound;
  ahead := CASE WHEN lease > 0 THEN least(p_ahead, greatest(floor(bound * (0.5 - lease - (v_due - v_now))), 0)::integer) ELSE 0 END;
  v_due := v_due + ahead::double precision / bound;
  UPDATE hansa.request_rates r SET due = v_due WHERE r.tenant_id = p_tenant;
  pause := greatest(v_due + 1.0 / bound - (1 - lease) - v_now, 0);
  RETURN NEXT;
END $$;

-- Counts a message that is about to be sent; NULL. Once the tenant has sent as many today as it may, counts nothing and says so, as JSON.
-- In the transaction that sends it, or in one before: never more are sent than were counted. `p_id`: of one that may have come before; it
-- counts once.
CREATE OR REPLACE FUNCTION hansa.message_take(p_tenant uuid, p_id uuid DEFAULT NULL) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_bound bigint; v_sent bigint; v_day date;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT t.messages_per_day INTO v_bound FROM hansa.tenants t WHERE t.tenant_id = p_tenant;
  IF v_bound IS NULL OR EXISTS (SELECT FROM hansa.inbox i WHERE i.tenant_id = p_tenant AND i.id = p_id) THEN RETURN NULL; END IF;
  INSERT INTO hansa.message_counts (tenant_id, day, sent) VALUES (p_tenant, '-infinity', 0) ON CONFLICT DO NOTHING;
  SELECT m.day, m.sent INTO v_day, v_sent FROM hansa.message_counts m WHERE m.tenant_id = p_tenant FOR UPDATE;
  -- Read once the row is ours, and never back: a day that is over stays over.
  IF (clock_timestamp() AT TIME ZONE 'UTC')::date > v_day THEN v_day := (clock_timestamp() AT TIME ZONE 'UTC')::date; v_sent := 0; END IF;
  IF v_sent >= v_bound THEN
    RETURN json_build_object('used', v_sent, 'bound', v_bound, 'resets_at', hansa.period_end(v_day, 'day'));
  END IF;
  UPDATE hansa.message_counts m SET day = v_day, sent = v_sent + 1 WHERE m.tenant_id = p_tenant;
  RETURN NULL;
END $$;

-- Limits of tenants that are used up bit by bit, how much of each is used now, and how that is called: `level` as in limit_levels, 0 below.
CREATE OR REPLACE VIEW hansa.limits WITH (security_invoker = true) AS
  SELECT l.tenant_id, l.name, l.used, l.bound, (CASE WHEN l.used >= l.bound THEN 2 WHEN 100.0 * l.used >= 1.0 * l.warn_at * l.bound THEN 1 ELSE 0 END)::smallint AS level
  FROM (
    SELECT b.tenant_id, 'budget' AS name, CASE WHEN b.begun >= date_trunc(b.period, n.today::timestamp)::date THEN b.spent ELSE 0 END AS used,
      b.amount AS bound, b.warn_at FROM hansa.budgets b, (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) n WHERE b.amount IS NOT NULL
    UNION ALL
    SELECT b.tenant_id, 'tokensPerDay', CASE WHEN b.day >= (clock_timestamp() AT TIME ZONE 'UTC')::date THEN b.tokens ELSE 0 END, b.tokens_per_day,
      b.warn_at FROM hansa.budgets b WHERE b.tokens_per_day IS NOT NULL
    UNION ALL
    SELECT t.tenant_id, 'messagesPerDay', CASE WHEN m.day >= (clock_timestamp() AT TIME ZONE 'UTC')::date THEN m.sent ELSE 0 END, t.messages_per_day, 80
      FROM hansa.tenants t LEFT JOIN hansa.message_counts m ON m.tenant_id = t.tenant_id WHERE t.messages_per_day IS NOT NULL
    UNION ALL
    SELECT t.tenant_id, 'storageBytes', (SELECT coalesce(sum(s.bytes), 0)::bigint FROM hansa.storage s WHERE s.tenant_id = t.tenant_id), t.storage_bytes, 80
      FROM hansa.tenants t WHERE t.storage_bytes IS NOT NULL) l;
GRANT SELECT ON hansa.limits TO hansa_app, hansa_system;

-- Tenants whose limits are not at the level that was told of them. For the system.
CREATE OR REPLACE FUNCTION hansa.limits_untold(p_limit integer) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
  SELECT DISTINCT tenant_id FROM (SELECT * FROM hansa.limits WHERE level > 0) n FULL JOIN hansa.limit_levels l USING (tenant_id, name)
  WHERE n.level IS DISTINCT FROM l.level AND tenant_id IN (SELECT t.tenant_id FROM hansa.tenants t WHERE t.state = 'active') LIMIT p_limit
$$;

-- Keeps the levels of a tenant's limits as they are now; those that rose, each once whoever asks at the same time.
CREATE OR REPLACE FUNCTION hansa.limits_tell(p_tenant uuid) RETURNS TABLE (name text, used bigint, bound bigint, level smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  DELETE FROM hansa.limit_levels t WHERE t.tenant_id = p_tenant AND NOT EXISTS (
    SELECT FROM hansa.limits n WHERE n.tenant_id = p_tenant AND n.name = t.name AND n.level > 0);
  UPDATE hansa.limit_levels t SET level = n.level FROM hansa.limits n
    WHERE t.tenant_id = p_tenant AND n.tenant_id = p_tenant AND n.name = t.name AND n.level BETWEEN 1 AND t.level - 1;
  RETURN QUERY WITH now AS MATERIALIZED (SELECT * FROM hansa.limits n WHERE n.tenant_id = p_tenant AND n.level > 0),
    risen AS (
      INSERT INTO hansa.limit_levels AS t (tenant_id, name, level) SELECT n.tenant_id, n.name, n.level FROM now n ORDER BY n.name
      ON CONFLICT (tenant_id, name) DO UPDATE SET level = excluded.level WHERE t.level < excluded.level
      RETURNING t.name)
    SELECT n.name, n.used, n.bound, n.level FROM now n JOIN risen r ON r.name = n.name ORDER BY n.name;
END $$;
