-- The log by weeks, and what retention takes away. Session ids are UUIDv7, so a range of ids is a range of time: a session's events
-- all lie in the partition of the week in which the session was opened.

-- The lowest id that is made at a time.
CREATE OR REPLACE FUNCTION hansa.id_floor(p_time timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex(floor(extract(epoch FROM p_time) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of this week and the next p_weeks, as far as they are missing; the number made. One that can't be had now,
-- because its rows lie in the default partition or the table is busy, is left out: nothing depends on it. This function and the next
-- have their owner's rights, since only an owner makes and drops tables; only the system calls them.
CREATE OR REPLACE FUNCTION hansa.log_partitions_make(p_weeks integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '1s' AS $$
DECLARE v_week timestamptz; v_name text; v_made integer := 0;
BEGIN
  FOR v_week IN SELECT date_trunc('week', now(), 'UTC') + n * interval '168 hours' FROM generate_series(0, p_weeks) AS n LOOP
    v_name := 'events_' || to_char(v_week AT TIME ZONE 'UTC', 'YYYYMMDD');
    CONTINUE WHEN to_regclass('hansa.' || v_name) IS NOT NULL;
    BEGIN
      -- Made apart and then attached: that does not stop those who write meanwhile.
      EXECUTE format('CREATE TABLE hansa.%I (LIKE hansa.events INCLUDING ALL)', v_name);
      EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_name);
      EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                     'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', v_name);
      EXECUTE format('ALTER TABLE hansa.events ATTACH PARTITION hansa.%I FOR VALUES FROM (%L) TO (%L)', v_name,
                     hansa.id_floor(v_week), hansa.id_floor(v_week + interval '168 hours'));
      v_made := v_made + 1;
    EXCEPTION WHEN lock_not_available OR check_violation OR duplicate_table OR unique_violation THEN
      NULL;
    END;
  END LOOP;
  RETURN v_made;
END $$;

-- Drops the partition of a week whose sessions are all gone; false: it is not there, not old, still needed, or busy now.
CREATE OR REPLACE FUNCTION hansa.log_partition_drop(p_week timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '500ms' AS $$
DECLARE v_name text := 'events_' || to_char(p_week AT TIME ZONE 'UTC', 'YYYYMMDD'); v_end timestamptz := p_week + interval '168 hours';
BEGIN
  IF to_regclass('hansa.' || v_name) IS NULL OR v_end > now() - interval '1 day' THEN RETURN false; END IF;
  LOCK TABLE ONLY hansa.events IN ACCESS EXCLUSIVE MODE;
  -- Seen under the lock: whoever writes events of such a session has written the session before, or must wait.
  IF EXISTS (SELECT FROM hansa.sessions WHERE id >= hansa.id_floor(p_week) AND id < hansa.id_floor(v_end)) THEN RETURN false; END IF;
  EXECUTE format('DROP TABLE hansa.%I', v_name);
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END $$;
REVOKE ALL ON FUNCTION hansa.log_partitions_make, hansa.log_partition_drop FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hansa.log_partitions_make, hansa.log_partition_drop TO hansa_system;

-- The steps of retention, each bounded, each a transaction of its own, all called by the system. One worker at a time does them.
CREATE OR REPLACE FUNCTION hansa.retention_lock() RETURNS boolean LANGUAGE sql AS $$
  SELECT pg_try_advisory_xact_lock(hashtextextended('hansa.retention', 0))
$$;

-- Looks at p_limit sessions after p_after and removes those without activity since p_before, with their runs. `last` is where to go
-- on, NULL at the end.
CREATE OR REPLACE FUNCTION hansa.retention_sessions(p_before timestamptz, p_after uuid, p_limit integer)
RETURNS TABLE (removed bigint, last uuid) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT hansa.retention_lock() THEN RETURN QUERY SELECT 0::bigint, NULL::uuid; RETURN; END IF;
  RETURN QUERY WITH looked AS (
    SELECT s.tenant_id, s.id, row_number() OVER (ORDER BY s.id) AS n FROM hansa.sessions s
    WHERE s.id > p_after AND s.id < hansa.id_floor(p_before) ORDER BY s.id LIMIT p_limit
  ), gone AS (
    DELETE FROM hansa.sessions s USING looked l WHERE s.tenant_id = l.tenant_id AND s.id = l.id AND s.active_at < p_before
    RETURNING s.tenant_id, s.id
  ), kept AS (
    INSERT INTO hansa.removed_sessions (tenant_id, session_id) SELECT g.tenant_id, g.id FROM gone g RETURNING 1
  )
  SELECT (SELECT count(*) FROM kept), (SELECT l.id FROM looked l WHERE l.n = p_limit);
END $$;

-- Drops the oldest partition that no session needs any more; whether there was one.
CREATE OR REPLACE FUNCTION hansa.retention_partition(p_before timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_week timestamptz;
BEGIN
  IF NOT hansa.retention_lock() THEN RETURN false; END IF;
  FOR v_week IN
    SELECT w.week FROM (SELECT to_date(substr(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS week FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'hansa.events'::regclass AND c.relname ~ '^events_\d{8}$') w
    WHERE w.week + interval '168 hours' <= p_before AND NOT EXISTS (SELECT FROM hansa.sessions s
      WHERE s.id >= hansa.id_floor(w.week) AND s.id < hansa.id_floor(w.week + interval '168 hours'))
    ORDER BY w.week
  LOOP
    IF hansa.log_partition_drop(v_week) THEN RETURN true; END IF;
  END LOOP;
  RETURN false;
END $$;

-- Removes up to p_limit events of removed sessions, and what their logs referred to; the number of rows and sessions done with.
CREATE OR REPLACE FUNCTION hansa.retention_events(p_limit integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_session hansa.removed_sessions; v_count bigint; v_done bigint := 0;
BEGIN
  IF NOT hansa.retention_lock() THEN RETURN 0; END IF;
  FOR v_session IN SELECT * FROM hansa.removed_sessions ORDER BY tenant_id, session_id LIMIT p_limit LOOP
    DELETE FROM hansa.events e WHERE e.tenant_id = v_session.tenant_id AND e.session_id = v_session.session_id AND e.seq IN (
      SELECT i.seq FROM hansa.events i WHERE i.tenant_id = v_session.tenant_id AND i.session_id = v_session.session_id LIMIT p_limit - v_done);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_done := v_done + v_count;
    EXIT WHEN v_done >= p_limit;
    DELETE FROM hansa.value_refs f WHERE f.tenant_id = v_session.tenant_id AND f.session_id = v_session.session_id;
    DELETE FROM hansa.removed_sessions q WHERE q.tenant_id = v_session.tenant_id AND q.session_id = v_session.session_id;
    v_done := v_done + 1;
    EXIT WHEN v_done >= p_limit;
  END LOOP;
  RETURN v_done;
END $$;

-- Looks at p_limit values after a tenant's digest and removes those that nobody refers to. Rows: the values removed that the artifact
-- store has, to be deleted there before this transaction commits; whoever wants to keep one anew waits for that. A last row, without
-- in_store, says where to go on.
CREATE OR REPLACE FUNCTION hansa.retention_values(p_tenant uuid, p_digest bytea, p_limit integer)
RETURNS TABLE (tenant_id uuid, digest bytea, in_store boolean) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT hansa.retention_lock() THEN RETURN; END IF;
  RETURN QUERY WITH looked AS (
    SELECT v.tenant_id, v.digest, row_number() OVER (ORDER BY v.tenant_id, v.digest) AS n FROM hansa.values v
    WHERE (v.tenant_id, v.digest) > (p_tenant, p_digest) ORDER BY v.tenant_id, v.digest LIMIT p_limit
  ), gone AS (
    DELETE FROM hansa.values v USING looked l WHERE v.tenant_id = l.tenant_id AND v.digest = l.digest
    RETURNING v.tenant_id, v.digest, v.in_store
  )
  SELECT g.tenant_id, g.digest, true FROM gone g WHERE g.in_store
  UNION ALL SELECT l.tenant_id, l.digest, NULL FROM looked l WHERE l.n = p_limit;
END $$;
