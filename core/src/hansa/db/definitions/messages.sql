-- Outbox, inbox and dead letters: what is sent is a row until its receiver's transaction has it. Only relays, one at a time, move rows
-- between new, held and flight, and remove delivered ones; only receivers make a row delivered. That division is what keeps the order
-- without a lock for senders.

-- Sends a message, as part of the caller's transaction; true, or false when this id is under way already. Messages of one key
-- are received one after the other in the order of their senders' commits; NULL: no order. The payload is JSON text.
CREATE OR REPLACE FUNCTION hansa.outbox_put(p_tenant uuid, p_id uuid, p_kind text, p_key text, p_payload text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF octet_length(p_payload) > 1048576 THEN
    RAISE EXCEPTION 'the payload of message % (%) has % bytes, and a message may have 1048576', p_id, p_kind, octet_length(p_payload)
      USING ERRCODE = 'program_limit_exceeded', HINT = 'Send the id of something that is stored.';
  END IF;
  INSERT INTO hansa.outbox (tenant_id, id, kind, key, payload) VALUES (p_tenant, p_id, p_kind, p_key, p_payload::json)
    ON CONFLICT (tenant_id, id) WHERE state <> 'delivered' DO NOTHING;
  RETURN FOUND;
END $$;

-- The relay's one decision: what is published now. Returns {"due": [[tenant, id, position, tries], ...], "more": whether to ask again
-- at once}. One statement, so that a relay which freezes can't hold the lock; and what it decides may be lost in a crash, hence no
-- waiting for the disk: it would be decided again. The planner is told to walk the small indexes in their order, since what it knows of
-- a table that fills and empties all the time is always old.
CREATE OR REPLACE FUNCTION hansa.relay_claim(p_limit integer, p_window integer) RETURNS json LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE v_due json[] := '{}'; v_some json[]; v_now timestamptz; v_room integer; v_count integer; v_more boolean := false;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('hansa.relay', 0));
  PERFORM set_config('synchronous_commit', 'off', true);
  v_now := clock_timestamp();
  -- What is delivered goes, and the next of its key takes its place, unless one that came late is in flight: then that one's end
  -- will see to it.
  WITH gone AS (
    DELETE FROM hansa.outbox o WHERE (o.tenant_id, o.position) IN (
      SELECT d.tenant_id, d.position FROM hansa.outbox d WHERE d.state = 'delivered' ORDER BY d.position LIMIT p_limit)
    RETURNING o.tenant_id, o.key
  ), next AS (
    SELECT h.tenant_id, h.position FROM (SELECT DISTINCT tenant_id, key FROM gone WHERE key IS NOT NULL) k CROSS JOIN LATERAL (
      SELECT w.tenant_id, w.position FROM hansa.outbox w WHERE w.tenant_id = k.tenant_id AND w.key = k.key AND w.state = 'held'
      ORDER BY w.position LIMIT 1) h
    WHERE NOT EXISTS (SELECT FROM hansa.outbox f WHERE f.tenant_id = k.tenant_id AND f.key = k.key AND f.state = 'flight')
  ), promoted AS (
    UPDATE hansa.outbox o SET state = 'flight', tries = 1, due_at = v_now + interval '2 seconds' FROM next n
    WHERE o.tenant_id = n.tenant_id AND o.position = n.position RETURNING o.tenant_id, o.id, o.position, o.tries
  )
  SELECT (SELECT count(*) FROM gone), (SELECT array_agg(json_build_array(p.tenant_id, p.id, p.position, p.tries)) FROM promoted p)
    INTO v_count, v_some;
  v_due := v_due || coalesce(v_some, '{}');
  v_more := v_count = p_limit;
  -- What should have arrived by now is sent again; what is being handled at this moment is locked, and left alone.
  WITH again AS (
    UPDATE hansa.outbox o SET tries = o.tries + 1, due_at = v_now + interval '2 seconds' * least(o.tries + 1, 5)
    WHERE (o.tenant_id, o.position) IN (
      SELECT l.tenant_id, l.position FROM hansa.outbox l WHERE l.state = 'flight' AND l.due_at <= v_now
      ORDER BY l.due_at LIMIT p_limit FOR UPDATE SKIP LOCKED)
    RETURNING o.tenant_id, o.id, o.position, o.tries
  )
  SELECT array_agg(json_build_array(a.tenant_id, a.id, a.position, a.tries)) INTO v_some FROM again a;
  v_due := v_due || coalesce(v_some, '{}');
  -- New ones fly when there is room and nothing of their key is before them.
  v_room := least(p_limit, p_window - (SELECT count(*) FROM (SELECT FROM hansa.outbox f WHERE f.state = 'flight' LIMIT p_window) f));
  IF v_room > 0 THEN
    WITH fresh AS (
      SELECT n.tenant_id, n.position, n.key FROM hansa.outbox n WHERE n.state = 'new' ORDER BY n.position LIMIT v_room
    ), judged AS (
      SELECT f.tenant_id, f.position, f.key IS NULL OR (
        row_number() OVER (PARTITION BY f.tenant_id, f.key ORDER BY f.position) = 1
        AND NOT EXISTS (SELECT FROM hansa.outbox b WHERE b.tenant_id = f.tenant_id AND b.key = f.key AND b.state = 'flight')
        AND NOT EXISTS (SELECT FROM hansa.outbox b WHERE b.tenant_id = f.tenant_id AND b.key = f.key AND b.state = 'held')) AS free
      FROM fresh f
    ), moved AS (
      UPDATE hansa.outbox o SET state = CASE WHEN j.free THEN 'flight' ELSE 'held' END, tries = CASE WHEN j.free THEN 1 ELSE 0 END,
        due_at = CASE WHEN j.free THEN v_now + interval '2 seconds' END
      FROM judged j WHERE o.tenant_id = j.tenant_id AND o.position = j.position RETURNING o.tenant_id, o.id, o.position, o.tries, o.state
    )
    SELECT count(*), array_agg(json_build_array(m.tenant_id, m.id, m.position, m.tries) ORDER BY m.position) FILTER (WHERE m.state = 'flight')
      INTO v_count, v_some FROM moved m;
    v_due := v_due || coalesce(v_some, '{}');
    v_more := v_more OR v_count = v_room;
  END IF;
  RETURN json_build_object('due', array_to_json(v_due), 'more', v_more);
END $$;

-- JetStream has them: the next look is after p_patience, longer each time. Rows that are being handled are locked, and need it not.
CREATE OR REPLACE FUNCTION hansa.relay_sent(p_tenants uuid[], p_positions bigint[], p_patience interval) RETURNS void LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  UPDATE hansa.outbox o SET due_at = clock_timestamp() + p_patience * least(o.tries, 5) WHERE (o.tenant_id, o.position) IN (
    SELECT s.tenant_id, s.position FROM unnest(p_tenants, p_positions) AS m(tenant_id, position)
    JOIN hansa.outbox s ON s.tenant_id = m.tenant_id AND s.position = m.position WHERE s.state = 'flight' FOR UPDATE OF s SKIP LOCKED);
END $$;

-- JetStream has lost everything: all that is in flight is due at once. As many rows as the window has, at most.
CREATE OR REPLACE FUNCTION hansa.relay_rewind() RETURNS void LANGUAGE sql SET enable_seqscan = off AS $$
  UPDATE hansa.outbox o SET due_at = clock_timestamp() WHERE (o.tenant_id, o.position) IN (
    SELECT f.tenant_id, f.position FROM hansa.outbox f WHERE f.state = 'flight' FOR UPDATE SKIP LOCKED)
$$;

-- Opens a receiver's transaction: the message, made delivered, unless it has been before. `outcome`: new | done (acknowledge, and
-- that is all) | busy (someone is at it now: come back). `followed`: others of its key wait for it.
CREATE OR REPLACE FUNCTION hansa.message_accept(p_tenant uuid, p_id uuid)
RETURNS TABLE (outcome text, kind text, key text, payload text, followed boolean) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE v hansa.outbox;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended(concat_ws(chr(31), 'hansa.message', p_tenant, p_id), 0)) THEN
    RETURN QUERY SELECT 'busy', NULL, NULL, NULL, false; RETURN;
  END IF;
  UPDATE hansa.outbox o SET state = 'delivered' WHERE o.tenant_id = p_tenant AND o.id = p_id AND o.state = 'flight' RETURNING * INTO v;
  IF NOT FOUND THEN RETURN QUERY SELECT 'done', NULL, NULL, NULL, false; RETURN; END IF;
  followed := v.key IS NOT NULL AND EXISTS (SELECT FROM hansa.outbox h WHERE h.tenant_id = p_tenant AND h.key = v.key AND h.state = 'held');
  INSERT INTO hansa.inbox AS i (tenant_id, id, handled_at) VALUES (p_tenant, p_id, clock_timestamp())
    ON CONFLICT (tenant_id, id) DO UPDATE SET handled_at = excluded.handled_at WHERE i.handled_at IS NULL;
  IF NOT FOUND THEN RETURN QUERY SELECT 'done', v.kind, v.key, NULL, followed; RETURN; END IF;
  RETURN QUERY SELECT 'new', v.kind, v.key, v.payload::text, followed;
END $$;

-- Counts an attempt that failed or was never heard of again. NULL: it is done; -1: someone is at it now.
CREATE OR REPLACE FUNCTION hansa.message_count(p_tenant uuid, p_id uuid) RETURNS integer LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE v_attempts integer;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended(concat_ws(chr(31), 'hansa.message', p_tenant, p_id), 0)) THEN RETURN -1; END IF;
  IF NOT EXISTS (SELECT FROM hansa.outbox o WHERE o.tenant_id = p_tenant AND o.id = p_id AND o.state = 'flight') THEN RETURN NULL; END IF;
  INSERT INTO hansa.inbox AS i (tenant_id, id, attempts) VALUES (p_tenant, p_id, 1)
    ON CONFLICT (tenant_id, id) DO UPDATE SET attempts = i.attempts + 1 WHERE i.handled_at IS NULL RETURNING attempts INTO v_attempts;
  RETURN coalesce(v_attempts, 0);
END $$;

-- Puts a message aside for people and frees its key; false when it is done.
CREATE OR REPLACE FUNCTION hansa.message_bury(p_tenant uuid, p_id uuid, p_reason text) RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE v hansa.outbox; v_attempts integer;
BEGIN
  UPDATE hansa.outbox o SET state = 'delivered' WHERE o.tenant_id = p_tenant AND o.id = p_id AND o.state = 'flight' RETURNING * INTO v;
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO hansa.inbox AS i (tenant_id, id, handled_at) VALUES (p_tenant, p_id, clock_timestamp())
    ON CONFLICT (tenant_id, id) DO UPDATE SET handled_at = excluded.handled_at WHERE i.handled_at IS NULL RETURNING attempts INTO v_attempts;
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO hansa.dead_letters (tenant_id, id, kind, key, payload, attempts, reason, created_at)
    VALUES (p_tenant, p_id, v.kind, v.key, v.payload, v_attempts, p_reason, v.created_at);
  RETURN true;
END $$;

-- Sends a dead letter again, at the end of its key; false when there is none of this id.
CREATE OR REPLACE FUNCTION hansa.dead_letter_retry(p_tenant uuid, p_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v hansa.dead_letters;
BEGIN
  DELETE FROM hansa.dead_letters d WHERE d.tenant_id = p_tenant AND d.id = p_id RETURNING * INTO v;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE hansa.inbox i SET attempts = 0, handled_at = NULL WHERE i.tenant_id = p_tenant AND i.id = p_id;
  PERFORM hansa.outbox_put(p_tenant, p_id, v.kind, v.key, v.payload::text);
  RETURN true;
END $$;
