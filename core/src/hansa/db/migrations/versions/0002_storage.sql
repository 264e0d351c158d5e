-- How many bytes of large values a tenant keeps, and may keep.

ALTER TABLE hansa.tenants ADD COLUMN storage_bytes bigint;
GRANT UPDATE (storage_bytes) ON hansa.tenants TO hansa_app;

-- Counted as values come and go, over several shards, so that writers of one tenant seldom wait for each other; who reads adds them up.
CREATE TABLE hansa.storage (
  tenant_id uuid NOT NULL,
  shard smallint NOT NULL,
  bytes bigint NOT NULL,
  PRIMARY KEY (tenant_id, shard)
) WITH (fillfactor = 50);

-- What is there already. The owner sees the values of all tenants for this one statement.
ALTER TABLE hansa.values NO FORCE ROW LEVEL SECURITY;
INSERT INTO hansa.storage (tenant_id, shard, bytes) SELECT v.tenant_id, 0, sum(v.size) FROM hansa.values v GROUP BY v.tenant_id;
ALTER TABLE hansa.values FORCE ROW LEVEL SECURITY;

ALTER TABLE hansa.storage ENABLE ROW LEVEL SECURITY;
ALTER TABLE hansa.storage FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON hansa.storage TO hansa_app, hansa_owner
  USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
CREATE POLICY system ON hansa.storage TO hansa_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON hansa.storage TO hansa_app, hansa_system;

CREATE FUNCTION hansa.storage_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO hansa.storage AS s (tenant_id, shard, bytes)
    SELECT c.tenant_id, pg_backend_pid() % 16, sum(CASE TG_OP WHEN 'DELETE' THEN -c.size ELSE c.size END) FROM changed c GROUP BY c.tenant_id
    ORDER BY c.tenant_id ON CONFLICT (tenant_id, shard) DO UPDATE SET bytes = s.bytes + excluded.bytes;
  RETURN NULL;
END $$;
CREATE TRIGGER storage_more AFTER INSERT ON hansa.values REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION hansa.storage_count();
CREATE TRIGGER storage_less AFTER DELETE ON hansa.values REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION hansa.storage_count();

-- Why a tenant may not keep so many bytes more, as JSON; NULL: it may.
CREATE FUNCTION hansa.storage_refusal(p_tenant uuid, p_more bigint) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('limit', 'storageBytes', 'used', u.bytes, 'bound', t.storage_bytes, 'needed', p_more)
  FROM hansa.tenants t CROSS JOIN LATERAL (SELECT coalesce(sum(s.bytes), 0)::bigint AS bytes FROM hansa.storage s WHERE s.tenant_id = p_tenant) u
  WHERE t.tenant_id = p_tenant AND t.storage_bytes IS NOT NULL AND u.bytes + p_more > t.storage_bytes
$$;

-- Keeps values that somebody sends, as values_put does, unless they are more than the tenant may keep.
CREATE FUNCTION hansa.values_keep(p_tenant uuid, p_digests bytea[], p_sizes bigint[], p_bodies text[])
RETURNS TABLE (refused json, wanted bytea[]) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF EXISTS (SELECT FROM hansa.tenants t WHERE t.tenant_id = p_tenant AND t.storage_bytes IS NOT NULL) THEN
    refused := hansa.storage_refusal(p_tenant, (SELECT coalesce(sum(a.size), 0)::bigint FROM unnest(p_digests, p_sizes) AS a(digest, size)
      WHERE NOT EXISTS (SELECT FROM hansa.values v WHERE v.tenant_id = p_tenant AND v.digest = a.digest)));
  END IF;
  IF refused IS NULL THEN wanted := hansa.values_put(p_tenant, p_digests, p_sizes, p_bodies); END IF;
  RETURN NEXT;
END $$;
