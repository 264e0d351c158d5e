-- The audit trail: who changed what, one chain of rows a tenant. A row's hash is the SHA-256 of the hash before it and of the row itself
-- as canonical JSON, so that a row that is changed, taken out, put in or moved breaks the chain from there on. By weeks, as the log is.

-- What was written stays, also for the owner; the trail of a tenant that is being deleted goes with the tenant. That it was deleted, and by
-- whom, stands in the trail of who did it. Only a superuser, or an owner who takes the trigger away, gets past this: that is what the chain
-- and the checkpoints outside are for.
CREATE OR REPLACE FUNCTION hansa.audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_user = 'hansa_owner' THEN
    IF hansa.tenant_condemned(OLD.tenant_id) THEN RETURN OLD; END IF;
  END IF;
  RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

-- A row as it is hashed. Keys are in order and nothing stands between them: this is canonical JSON if p_event is.
CREATE OR REPLACE FUNCTION hansa.audit_text(p_tenant uuid, p_seq bigint, p_at timestamptz, p_event json) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT '{"at":"' || to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '","event":' || p_event::text
    || ',"seq":' || p_seq || ',"tenant":"' || p_tenant || '"}'
$$;

-- Chains events to those of the connection's tenant, in the caller's transaction; the number of the last one. The tenant's other writers
-- wait for the end of that transaction, so it comes late in it. Times never go back, whatever the clock does: the rows of a week are one
-- piece of the chain.
CREATE OR REPLACE FUNCTION hansa.audit_append(p_events text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_head hansa.audit_heads; v_event text; v_tenant uuid := hansa.tenant();
BEGIN
  LOOP
    SELECT * INTO v_head FROM hansa.audit_heads WHERE tenant_id = v_tenant FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO hansa.audit_heads (tenant_id, seq, at, hash) VALUES (v_tenant, 0, '-infinity', decode(repeat('00', 32), 'hex'))
    ON CONFLICT DO NOTHING;
  END LOOP;
  FOREACH v_event IN ARRAY p_events LOOP
    v_head.seq := v_head.seq + 1;
    v_head.at := greatest(v_head.at, clock_timestamp());
    v_head.hash := sha256(v_head.hash || convert_to(hansa.audit_text(v_tenant, v_head.seq, v_head.at, v_event::json), 'UTF8'));
    INSERT INTO hansa.audit_events (tenant_id, seq, at, event, hash)
    VALUES (v_tenant, v_head.seq, v_head.at, v_event::json, v_head.hash);
  END LOOP;
  UPDATE hansa.audit_heads h SET seq = v_head.seq, at = v_head.at, hash = v_head.hash, pending_since = coalesce(h.pending_since, v_head.at)
  WHERE h.tenant_id = v_tenant;
  RETURN v_head.seq;
END $$;

-- Partitions of this week and the next p_weeks, as hansa.log_partitions_make makes those of the log, and for the same callers.
CREATE OR REPLACE FUNCTION hansa.audit_partitions_make(p_weeks integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '1s' AS $$
DECLARE v_week timestamptz; v_name text; v_made integer := 0;
BEGIN
  FOR v_week IN SELECT date_trunc('week', now(), 'UTC') + n * interval '168 hours' FROM generate_series(0, p_weeks) AS n LOOP
    v_name := 'audit_events_' || to_char(v_week AT TIME ZONE 'UTC', 'YYYYMMDD');
    CONTINUE WHEN to_regclass('hansa.' || v_name) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE hansa.%I (LIKE hansa.audit_events INCLUDING ALL)', v_name);
      EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_name);
      EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                     'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', v_name);
      EXECUTE format('CREATE TRIGGER stays_whole BEFORE TRUNCATE ON hansa.%I FOR EACH STATEMENT EXECUTE FUNCTION hansa.audit_stays()', v_name);
      EXECUTE format('ALTER TABLE hansa.audit_events ATTACH PARTITION hansa.%I FOR VALUES FROM (%L) TO (%L)', v_name, v_week,
                     v_week + interval '168 hours');
      v_made := v_made + 1;
    EXCEPTION WHEN lock_not_available OR check_violation OR duplicate_table OR unique_violation THEN
      NULL;
    END;
  END LOOP;
  RETURN v_made;
END $$;
REVOKE ALL ON FUNCTION hansa.audit_partitions_make FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hansa.audit_partitions_make TO hansa_system;

-- Checkpoints of these rows are outside.
CREATE OR REPLACE FUNCTION hansa.audit_sealed(p_tenants uuid[], p_seqs bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_end record;
BEGIN
  FOR v_end IN SELECT t.tenant, t.seq FROM unnest(p_tenants, p_seqs) AS t(tenant, seq) ORDER BY t.tenant LOOP
    UPDATE hansa.audit_heads h SET sealed_seq = greatest(h.sealed_seq, v_end.seq),
      pending_since = CASE WHEN h.seq > v_end.seq THEN clock_timestamp() END
    WHERE h.tenant_id = v_end.tenant;
  END LOOP;
END $$;

-- From when to when the rows of a partition are; of the default one: at any time.
CREATE OR REPLACE FUNCTION hansa.audit_partition_times(p_name text) RETURNS TABLE (since timestamptz, until timestamptz) LANGUAGE sql STABLE AS $$
  SELECT w.week, w.week + interval '168 hours'
  FROM (SELECT to_date(substring(p_name FROM '_(\d{8})$'), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS week) w WHERE w.week IS NOT NULL
  UNION ALL SELECT '-infinity', 'infinity' WHERE p_name !~ '_\d{8}$'
$$;

-- The partition to be removed next, if all that is in it is older than p_before: the oldest week, unless the default one has older rows.
CREATE OR REPLACE FUNCTION hansa.audit_partition_oldest(p_before timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN d.first < w.since OR w.since IS NULL THEN CASE WHEN d.last < p_before THEN 'hansa.audit_events_default' END ELSE w.name END
  FROM (SELECT min(e.at) AS first, max(e.at) AS last FROM hansa.audit_events_default e) d
  LEFT JOIN (SELECT 'hansa.' || c.relname AS name, t.since FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
    hansa.audit_partition_times(c.relname) t WHERE i.inhparent = 'hansa.audit_events'::regclass AND c.relname ~ '_\d{8}$' AND t.until <= p_before
    ORDER BY c.relname LIMIT 1) w ON true
$$;

-- The last row of each tenant in a partition.
CREATE OR REPLACE FUNCTION hansa.audit_partition_ends(p_name text) RETURNS TABLE (tenant_id uuid, seq bigint, at timestamptz, hash bytea)
LANGUAGE plpgsql STABLE AS $$
DECLARE v_since timestamptz; v_until timestamptz;
BEGIN
  SELECT t.since, t.until INTO v_since, v_until FROM hansa.audit_partition_times(p_name) t;
  RETURN QUERY SELECT DISTINCT ON (e.tenant_id) e.tenant_id, e.seq, e.at, e.hash FROM hansa.audit_events e
    WHERE e.tableoid = p_name::regclass AND e.at >= v_since AND e.at < v_until ORDER BY e.tenant_id, e.seq DESC;
END $$;

-- Drops a partition that is older than a day and of which each row lies at or before its tenant's anchor; false: not so, or busy now.
-- The default partition is made anew, empty.
CREATE OR REPLACE FUNCTION hansa.audit_partition_drop(p_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '500ms' AS $$
DECLARE v_table regclass := p_name::regclass; v_since timestamptz; v_until timestamptz;
BEGIN
  SELECT t.since, t.until INTO v_since, v_until FROM hansa.audit_partition_times(p_name) t;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = 'hansa.audit_events'::regclass AND i.inhrelid = v_table) THEN
    RETURN false;
  END IF;
  LOCK TABLE ONLY hansa.audit_events IN ACCESS EXCLUSIVE MODE;
  IF EXISTS (SELECT FROM hansa.audit_events e LEFT JOIN hansa.audit_anchors a ON a.tenant_id = e.tenant_id
             WHERE e.tableoid = v_table AND e.at >= v_since AND e.at < v_until
               AND (a.seq IS NULL OR a.seq < e.seq OR e.at > now() - interval '1 day')) THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE %s', v_table);
  IF p_name = 'hansa.audit_events_default' THEN
    CREATE TABLE hansa.audit_events_default PARTITION OF hansa.audit_events DEFAULT;
    ALTER TABLE hansa.audit_events_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON hansa.audit_events_default TO hansa_app, hansa_owner
      USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
    CREATE POLICY system_read ON hansa.audit_events_default FOR SELECT TO hansa_system USING (true);
    GRANT SELECT (tableoid, tenant_id, seq, at, hash) ON hansa.audit_events_default TO hansa_system;
    CREATE TRIGGER stays_whole BEFORE TRUNCATE ON hansa.audit_events_default FOR EACH STATEMENT EXECUTE FUNCTION hansa.audit_stays();
  END IF;
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END $$;
REVOKE ALL ON FUNCTION hansa.audit_partition_drop FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hansa.audit_partition_drop TO hansa_system;
