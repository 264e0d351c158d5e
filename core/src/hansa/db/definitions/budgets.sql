-- What a tenant may spend, in millionths of its budget's currency; days, weeks and months are those of UTC, by the clock of the database.
-- Before a model is asked, the most that its answer can cost is reserved; the write of the answer settles that to what it did cost, in
-- the same transaction. So what is spent and what is reserved never exceed the budget together, whoever asks at the same time.
-- A tenant's row of `budgets` is locked after all other rows but those of `usage`.

-- When the period ends that began on a day.
CREATE OR REPLACE FUNCTION hansa.period_end(p_begun date, p_period text) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
  SELECT (p_begun + ('1 ' || p_period)::interval) AT TIME ZONE 'UTC'
$$;

-- A tenant's budget, locked, as of now: when a period or a day is over, the next one has begun. NULL fields: it has none.
CREATE OR REPLACE FUNCTION hansa.budget_lock(p_tenant uuid) RETURNS hansa.budgets LANGUAGE plpgsql AS $$
DECLARE v_found hansa.budgets; v_today date; v_begun date;
BEGIN
  SELECT * INTO v_found FROM hansa.budgets b WHERE b.tenant_id = p_tenant FOR UPDATE;
  IF NOT FOUND THEN RETURN v_found; END IF;
  v_today := (clock_timestamp() AT TIME ZONE 'UTC')::date;  -- read once the row is ours: time does not go back from one to the next
  v_begun := date_trunc(v_found.period, v_today::timestamp)::date;
  IF v_begun > v_found.begun OR v_today > v_found.day THEN
    UPDATE hansa.budgets b SET spent = CASE WHEN v_begun > b.begun THEN 0 ELSE b.spent END, begun = greatest(b.begun, v_begun),
        tokens = CASE WHEN v_today > b.day THEN 0 ELSE b.tokens END, day = greatest(b.day, v_today), version = b.version + 1
      WHERE b.tenant_id = p_tenant RETURNING * INTO v_found;
  END IF;
  RETURN v_found;
END $$;

-- Whether an agent may be answered by a model without a price.
CREATE OR REPLACE FUNCTION hansa.agent_is_free(p_tenant uuid, p_agent text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM hansa.objects a
    CROSS JOIN LATERAL (SELECT a.manifest -> 'spec' -> 'model' AS model UNION ALL
      SELECT f.value FROM json_array_elements(a.manifest -> 'spec' -> 'model' -> 'fallbacks') f) c
    JOIN hansa.objects p ON p.tenant_id = p_tenant AND p.kind = 'ModelProvider'
    CROSS JOIN LATERAL json_array_elements(p.manifest -> 'spec' -> 'models') m
    WHERE a.tenant_id = p_tenant AND a.kind = 'Agent' AND a.name = p_agent
      AND coalesce((m.value -> 'prices' ->> 'input')::float8, 0) = 0 AND coalesce((m.value -> 'prices' ->> 'output')::float8, 0) = 0
      AND (c.model ->> 'ref' = p.name || '/' || (m.value ->> 'name')
        OR c.model ->> 'alias' IN (SELECT l.value FROM json_array_elements_text(m.value -> 'aliases') l)))
$$;

-- Why a tenant that has a budget may start no run of an agent now (NULL: of any), as JSON; NULL: it may. Only a budget that is used up
-- refuses runs, and only one that rejects: what is left may be enough for a cheaper model. A model without a price is held up by no money.
CREATE OR REPLACE FUNCTION hansa.budget_refusal(p_tenant uuid, p_agent text) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN b.spent >= b.amount AND b.begun >= date_trunc(b.period, n.today::timestamp)::date
      AND (p_agent IS NULL OR NOT hansa.agent_is_free(p_tenant, p_agent)) THEN json_build_object('limit', 'budget', 'used', b.spent,
      'bound', b.amount, 'currency', b.currency, 'period', b.period, 'resets_at', hansa.period_end(b.begun, b.period))
    WHEN b.tokens >= b.tokens_per_day AND b.day >= n.today THEN json_build_object('limit', 'tokensPerDay', 'used', b.tokens,
      'bound', b.tokens_per_day, 'currency', '', 'period', 'day', 'resets_at', hansa.period_end(b.day, 'day')) END
  FROM hansa.budgets b, (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) n
  WHERE b.tenant_id = p_tenant AND b.on_limit = 'reject'
$$;

-- Counts what calls of models have cost, and gives back what was reserved for them. `p_spends`: [{run, step, agent, model, calls, input_tokens,
-- output_tokens, cost, lost_calls, lost_tokens, lost_cost}] of steps that are over; besides, all that is still reserved for the runs `p_left`
-- under claims older than `p_before`: those calls are lost.
CREATE OR REPLACE FUNCTION hansa.usage_settle(p_tenant uuid, p_metered boolean, p_spends json, p_left uuid[], p_before integer[]) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE v_budget hansa.budgets; v_cost bigint; v_tokens bigint; v_held bigint; v_tokens_held bigint;
BEGIN
  IF p_metered THEN v_budget := hansa.budget_lock(p_tenant); END IF;
  WITH said AS MATERIALIZED (
    SELECT a.* FROM json_to_recordset(p_spends) AS a(run uuid, step text, agent text, model text, calls bigint, input_tokens bigint,
      output_tokens bigint, cost bigint, lost_calls bigint, lost_tokens bigint, lost_cost bigint)),
  over AS (
    DELETE FROM hansa.reservations v WHERE p_metered AND v.tenant_id = p_tenant AND v.run_id = ANY (p_left || ARRAY(SELECT s.run FROM said s))
      AND (EXISTS (SELECT FROM said s WHERE s.run = v.run_id AND s.step = v.step)
        OR EXISTS (SELECT FROM unnest(p_left, p_before) AS l(run, before) WHERE l.run = v.run_id AND v.epoch < l.before))
      RETURNING v.*),
  items AS (
    SELECT s.agent, s.model, s.calls, s.input_tokens, s.output_tokens, s.cost, s.lost_calls, s.lost_tokens, s.lost_cost FROM said s
    UNION ALL
    SELECT o.agent, o.model, 0, 0, 0, 0, 1, o.tokens, o.cost FROM over o
      WHERE NOT EXISTS (SELECT FROM said s WHERE s.run = o.run_id AND s.step = o.step)),
  counted AS MATERIALIZED (
    SELECT i.agent, i.model, sum(i.calls)::bigint AS calls, sum(i.input_tokens)::bigint AS input_tokens, sum(i.output_tokens)::bigint AS output_tokens,
      sum(i.cost)::bigint AS cost, sum(i.lost_calls)::bigint AS lost_calls,
      coalesce(sum(i.lost_tokens) FILTER (WHERE v_budget.charges_lost), 0)::bigint AS lost_tokens,
      coalesce(sum(i.lost_cost) FILTER (WHERE v_budget.charges_lost), 0)::bigint AS lost_cost
    FROM items i GROUP BY i.agent, i.model ORDER BY i.agent, i.model),
  kept AS (
    INSERT INTO hansa.usage AS u (tenant_id, day, agent, model, shard, calls, input_tokens, output_tokens, cost, lost_calls, lost_tokens, lost_cost)
      SELECT p_tenant, coalesce(v_budget.day, (clock_timestamp() AT TIME ZONE 'UTC')::date), c.agent, c.model, pg_backend_pid() % 16,
        c.calls, c.input_tokens, c.output_tokens, c.cost, c.lost_calls, c.lost_tokens, c.lost_cost FROM counted c
      ON CONFLICT (tenant_id, day, agent, model, shard) DO UPDATE SET calls = u.calls + excluded.calls,
        input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
        cost = u.cost + excluded.cost, lost_calls = u.lost_calls + excluded.lost_calls, lost_tokens = u.lost_tokens + excluded.lost_tokens,
        lost_cost = u.lost_cost + excluded.lost_cost)
  SELECT coalesce(sum(c.cost + c.lost_cost), 0), coalesce(sum(c.input_tokens + c.output_tokens + c.lost_tokens), 0),
      (SELECT coalesce(sum(o.cost), 0) FROM over o), (SELECT coalesce(sum(o.tokens), 0) FROM over o)
    INTO v_cost, v_tokens, v_held, v_tokens_held FROM counted c;
  IF v_budget.tenant_id IS NOT NULL THEN
    UPDATE hansa.budgets b SET spent = b.spent + v_cost, tokens = b.tokens + v_tokens, reserved = b.reserved - v_held,
      tokens_reserved = b.tokens_reserved - v_tokens_held WHERE b.tenant_id = p_tenant;
  END IF;
END $$;

-- What a batch of writes has cost: see run_write. Of runs that are not driven any more, nothing stays reserved.
CREATE OR REPLACE FUNCTION hansa.usage_written(p_tenant uuid, p_metered boolean, p_runs uuid[], p_epochs integer[], p_spends json[], p_done uuid[])
RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE v_spends json; v_left uuid[]; v_before integer[];
BEGIN
  SELECT json_agg(s.value) INTO v_spends FROM unnest(p_runs, p_spends) AS a(run, spends) CROSS JOIN LATERAL json_array_elements(a.spends) AS s
    WHERE a.run = ANY (p_done);
  IF p_metered THEN
    SELECT array_agg(a.run), array_agg(a.epoch + 1) INTO v_left, v_before FROM unnest(p_runs, p_epochs) AS a(run, epoch)
      WHERE a.run = ANY (p_done) AND EXISTS (SELECT FROM hansa.reservations v WHERE v.tenant_id = p_tenant AND v.run_id = a.run)
        AND (SELECT r.state FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = a.run) <> 'running';
  END IF;
  IF v_spends IS NOT NULL OR v_left IS NOT NULL THEN
    PERFORM hansa.usage_settle(p_tenant, p_metered, coalesce(v_spends, '[]'), coalesce(v_left, '{}'), coalesce(v_before, '{}'));
  END IF;
END $$;

-- Settles what is reserved for runs that are not driven any more as they were then: their calls are lost. Who holds a lease that is over is
-- fenced first, so that it can't spend what others are given now. Waits for nobody: a run that someone has locked is left out.
CREATE OR REPLACE FUNCTION hansa.reservations_lapse(p_tenant uuid, p_asking uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_left uuid[]; v_before integer[];
BEGIN
  UPDATE hansa.runs r SET epoch = r.epoch + 1 FROM (
    SELECT l.id FROM hansa.runs l WHERE l.tenant_id = p_tenant AND l.state = 'running' AND l.lease_until < clock_timestamp()
      AND l.id IN (SELECT v.run_id FROM hansa.reservations v WHERE v.tenant_id = p_tenant) AND l.id <> ALL (p_asking)
      ORDER BY l.id FOR UPDATE SKIP LOCKED) f
    WHERE r.tenant_id = p_tenant AND r.id = f.id;
  SELECT array_agg(r.id), array_agg(CASE r.state WHEN 'running' THEN r.epoch ELSE r.epoch + 1 END) INTO v_left, v_before FROM hansa.runs r
    WHERE r.tenant_id = p_tenant AND r.id IN (SELECT v.run_id FROM hansa.reservations v WHERE v.tenant_id = p_tenant
      AND (v.epoch < r.epoch OR r.state <> 'running'));
  IF v_left IS NOT NULL THEN PERFORM hansa.usage_settle(p_tenant, true, '[]', v_left, v_before); END IF;
END $$;

-- Reserves the most that calls of models can cost. `p_asks`: [{run, epoch, step, agent, model, input_tokens, output_tokens, least, input_price,
-- output_price, currency, lost_tokens, lost_cost, last}]: at most so many tokens in and out, at prices in millionths a token; `lost_*`: what earlier attempts
-- of this step may have cost. A step has one reservation, which a further attempt changes.
-- `outcome`: granted, with at most `output_tokens`, which are fewer than asked for, but not below `least`, when more do not fit; wait: others
-- have reserved what is missing and will hardly need it, come again (but not for an ask that is the `last`); refused; fenced.
CREATE OR REPLACE FUNCTION hansa.budget_reserve(p_tenant uuid, p_asks json)
RETURNS TABLE (n integer, outcome text, output_tokens bigint, told json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  v hansa.budgets; v_runs uuid[]; v_ask record; v_mine hansa.reservations; v_cost bigint; v_out bigint; v_room bigint; v_tokens_room bigint;
  v_lapsed boolean := false; v_others boolean; v_limit text;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT array_agg(DISTINCT a.run) INTO v_runs FROM json_to_recordset(p_asks) AS a(run uuid);
  -- Who takes a run over afterwards finds what is reserved here, and gives it back.
  PERFORM FROM hansa.runs r WHERE r.tenant_id = p_tenant AND r.id = ANY (v_runs) ORDER BY r.id FOR SHARE;
  v := hansa.budget_lock(p_tenant);
  FOR v_ask IN
    SELECT row_number() OVER ()::integer AS n, a.*, (SELECT r.state = 'running' AND r.epoch = a.epoch FROM hansa.runs r
        WHERE r.tenant_id = p_tenant AND r.id = a.run) AS owned
    FROM json_to_recordset(p_asks) AS a(run uuid, epoch integer, step text, agent text, model text, input_tokens bigint, output_tokens bigint,
      least bigint, input_price float8, output_price float8, currency text, lost_tokens bigint, lost_cost bigint, last boolean)
  LOOP
    n := v_ask.n; output_tokens := v_ask.output_tokens; told := NULL;
    IF v_ask.owned IS NOT TRUE THEN outcome := 'fenced'; RETURN NEXT; CONTINUE; END IF;
    IF v.amount IS NULL AND v.tokens_per_day IS NULL THEN outcome := 'granted'; RETURN NEXT; CONTINUE; END IF;
    IF v.amount IS NOT NULL AND v_ask.currency <> v.currency AND v_ask.input_price + v_ask.output_price > 0 THEN
      outcome := 'refused'; told := json_build_object('limit', 'currency', 'currency', v.currency, 'other', v_ask.currency);
      RETURN NEXT; CONTINUE;
    END IF;
    IF NOT v.charges_lost THEN v_ask.lost_tokens := 0; v_ask.lost_cost := 0; END IF;
    SELECT * INTO v_mine FROM hansa.reservations m WHERE m.tenant_id = p_tenant AND m.run_id = v_ask.run AND m.step = v_ask.step;
    IF NOT FOUND THEN v_mine.cost := 0; v_mine.tokens := 0; END IF;
    LOOP
      v_out := v_ask.output_tokens;
      v_cost := ceil(v_ask.input_tokens * v_ask.input_price + v_out * v_ask.output_price);
      v_room := v.amount - v.spent - v.reserved + v_mine.cost - v_ask.lost_cost;
      v_tokens_room := v.tokens_per_day - v.tokens - v.tokens_reserved + v_mine.tokens - v_ask.lost_tokens;
      -- What costs nothing is held up by no budget.
      v_limit := CASE WHEN v_cost > 0 AND v_cost > v_room THEN 'budget' WHEN v_ask.input_tokens + v_out > v_tokens_room THEN 'tokensPerDay' END;
      EXIT WHEN v_limit IS NULL OR v_lapsed;
      PERFORM hansa.reservations_lapse(p_tenant, v_runs);
      v := hansa.budget_lock(p_tenant);
      v_lapsed := true;
    END LOOP;
    IF v_limit IS NOT NULL THEN
      v_others := CASE v_limit WHEN 'budget' THEN v.reserved > v_mine.cost ELSE v.tokens_reserved > v_mine.tokens END;
      told := json_build_object('limit', v_limit, 'on_limit', v.on_limit, 'version', v.version, 'currency', v.currency,
        'used', CASE v_limit WHEN 'budget' THEN v.spent ELSE v.tokens END, 'reserved', CASE v_limit WHEN 'budget' THEN v.reserved ELSE v.tokens_reserved END,
        'bound', CASE v_limit WHEN 'budget' THEN v.amount ELSE v.tokens_per_day END,
        'needed', CASE v_limit WHEN 'budget' THEN v_cost ELSE v_ask.input_tokens + v_out END,
        'period', CASE v_limit WHEN 'budget' THEN v.period ELSE 'day' END,
        'resets_at', CASE v_limit WHEN 'budget' THEN hansa.period_end(v.begun, v.period) ELSE hansa.period_end(v.day, 'day') END);
      IF v_others AND NOT v_ask.last THEN outcome := 'wait'; RETURN NEXT; CONTINUE; END IF;
      IF v_cost > 0 AND v_cost > v_room THEN
        v_out := CASE WHEN v_ask.output_price > 0 THEN floor((v_room - v_ask.input_tokens * v_ask.input_price) / v_ask.output_price) ELSE 0 END;
      END IF;
      v_out := least(v_out, v_tokens_room - v_ask.input_tokens);
      v_cost := ceil(v_ask.input_tokens * v_ask.input_price + v_out * v_ask.output_price);
      IF v_out < v_ask.least OR (v_cost > 0 AND v_cost > v_room) THEN outcome := 'refused'; RETURN NEXT; CONTINUE; END IF;
    END IF;
    INSERT INTO hansa.reservations AS m (tenant_id, run_id, step, epoch, agent, model, cost, tokens)
      VALUES (p_tenant, v_ask.run, v_ask.step, v_ask.epoch, v_ask.agent, v_ask.model, v_cost + v_ask.lost_cost,
        v_ask.input_tokens + v_out + v_ask.lost_tokens)
      ON CONFLICT (tenant_id, run_id, step) DO UPDATE SET epoch = excluded.epoch, model = excluded.model, cost = excluded.cost, tokens = excluded.tokens;
    UPDATE hansa.budgets b SET reserved = b.reserved + v_cost + v_ask.lost_cost - v_mine.cost,
        tokens_reserved = b.tokens_reserved + v_ask.input_tokens + v_out + v_ask.lost_tokens - v_mine.tokens
      WHERE b.tenant_id = p_tenant RETURNING * INTO v;
    outcome := 'granted'; output_tokens := v_out;
    RETURN NEXT;
  END LOOP;
END $$;

-- Holds a run that has nothing left to spend, until its budget's next period or a larger one; it goes on at once when that has come
-- meanwhile (`p_version`). `p_told`: as budget_reserve has told it.
CREATE OR REPLACE FUNCTION hansa.budget_hold(p_tenant uuid, p_run uuid, p_epoch integer, p_version bigint, p_told json) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_run hansa.runs; v_look timestamptz := p_told ->> 'resets_at';
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  v_run := hansa.run_lock(p_tenant, p_run);
  IF v_run.id IS NULL OR v_run.epoch <> p_epoch OR v_run.state <> 'running' THEN RETURN false; END IF;
  IF v_run.cancel_requested_at IS NOT NULL OR v_run.suspend_requested_at IS NOT NULL THEN RETURN hansa.run_hold(p_tenant, p_run, p_epoch); END IF;
  UPDATE hansa.runs SET state = 'suspended', gate = NULL, suspended_by = 'budget', active = active + (clock_timestamp() - claimed_at),
    claimed_at = clock_timestamp() WHERE tenant_id = p_tenant AND id = p_run;
  PERFORM hansa.slot_leave(p_tenant, p_run);
  PERFORM hansa.log_one(p_tenant, v_run.session_id, p_run, 'run.suspended', NULL, p_told);
  PERFORM hansa.usage_settle(p_tenant, true, '[]', ARRAY[p_run], ARRAY[p_epoch + 1]);
  -- The budget is locked now: who changes it afterwards finds this wait.
  IF (SELECT b.version FROM hansa.budgets b WHERE b.tenant_id = p_tenant) <> p_version THEN v_look := clock_timestamp(); END IF;
  INSERT INTO hansa.waits (tenant_id, run_id, step, kind, look_at) VALUES (p_tenant, p_run, 'budget', 'budget', v_look)
    ON CONFLICT (tenant_id, run_id, step) DO UPDATE SET look_at = excluded.look_at;
  RETURN true;
END $$;

-- Sets what a tenant may spend; what it has spent since the period began counts, also what it spent before it had a budget. Runs that
-- were held are looked at again. NULL: no bound.
CREATE OR REPLACE FUNCTION hansa.budget_set(p_tenant uuid, p_amount bigint, p_currency text, p_period text, p_on_limit text, p_charges_lost boolean,
  p_warn_at smallint, p_tokens bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v hansa.budgets; v_today date := (clock_timestamp() AT TIME ZONE 'UTC')::date; v_begun date;
BEGIN
  v := hansa.budget_lock(p_tenant);
  IF v.tenant_id IS NULL AND p_amount IS NULL AND p_tokens IS NULL THEN RETURN; END IF;
  IF (v.amount, v.currency, v.period, v.on_limit, v.charges_lost, v.warn_at, v.tokens_per_day)
      IS NOT DISTINCT FROM (p_amount, p_currency, p_period, p_on_limit, p_charges_lost, p_warn_at, p_tokens) THEN RETURN; END IF;
  v_begun := date_trunc(p_period, v_today::timestamp)::date;
  INSERT INTO hansa.budgets AS b (tenant_id, amount, currency, period, on_limit, charges_lost, warn_at, tokens_per_day, begun, day)
    VALUES (p_tenant, p_amount, p_currency, p_period, p_on_limit, p_charges_lost, p_warn_at, p_tokens, v_begun, v_today)
    ON CONFLICT (tenant_id) DO UPDATE SET amount = p_amount, currency = p_currency, period = p_period, on_limit = p_on_limit,
      charges_lost = p_charges_lost, warn_at = p_warn_at, tokens_per_day = p_tokens, begun = v_begun, version = b.version + 1;
  IF p_amount IS NULL AND p_tokens IS NULL THEN DELETE FROM hansa.reservations WHERE tenant_id = p_tenant; END IF;
  UPDATE hansa.budgets b SET
      spent = (SELECT coalesce(sum(u.cost + u.lost_cost), 0) FROM hansa.usage u WHERE u.tenant_id = p_tenant AND u.day >= b.begun),
      tokens = (SELECT coalesce(sum(u.input_tokens + u.output_tokens + u.lost_tokens), 0) FROM hansa.usage u WHERE u.tenant_id = p_tenant AND u.day >= b.day),
      reserved = (SELECT coalesce(sum(m.cost), 0) FROM hansa.reservations m WHERE m.tenant_id = p_tenant),
      tokens_reserved = (SELECT coalesce(sum(m.tokens), 0) FROM hansa.reservations m WHERE m.tenant_id = p_tenant)
    WHERE b.tenant_id = p_tenant;
  UPDATE hansa.tenants SET metered = p_amount IS NOT NULL OR p_tokens IS NOT NULL WHERE tenant_id = p_tenant;
  -- One that is locked is just being settled.
  UPDATE hansa.waits w SET look_at = clock_timestamp() FROM (
    SELECT f.run_id FROM hansa.waits f JOIN hansa.runs r ON r.tenant_id = f.tenant_id AND r.id = f.run_id
      WHERE f.tenant_id = p_tenant AND f.kind = 'budget' AND r.state = 'suspended' FOR UPDATE OF f SKIP LOCKED) l
    WHERE w.tenant_id = p_tenant AND w.run_id = l.run_id AND w.step = 'budget';
END $$;
