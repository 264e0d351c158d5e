-- Large values of the log, each once a tenant, by the SHA-256 of their canonical JSON; how many bytes of them a tenant keeps, and may keep.

-- Keeps values (a NULL body: in the artifact store). Many writers of one value do not wait for each other once it is there; one that
-- is just being removed is waited for and kept anew. Answers with the digests that the artifact store must have.
CREATE OR REPLACE FUNCTION hansa.values_put(p_tenant uuid, p_digests bytea[], p_sizes bigint[], p_bodies text[]) RETURNS bytea[] LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  LOOP
    INSERT INTO hansa.values (tenant_id, digest, size, in_store, body)
      SELECT p_tenant, v.digest, v.size, v.body IS NULL, v.body FROM unnest(p_digests, p_sizes, p_bodies) AS v(digest, size, body)
      ORDER BY v.digest ON CONFLICT DO NOTHING;
    PERFORM FROM hansa.values WHERE tenant_id = p_tenant AND digest = ANY(p_digests) AND used_at < now() - interval '1 day'
      ORDER BY digest FOR UPDATE;
    IF FOUND THEN
      UPDATE hansa.values SET used_at = now() WHERE tenant_id = p_tenant AND digest = ANY(p_digests) AND used_at < now() - interval '1 day';
    END IF;
    EXIT WHEN (SELECT count(*) FROM hansa.values WHERE tenant_id = p_tenant AND digest = ANY(p_digests))
      = (SELECT count(DISTINCT d) FROM unnest(p_digests) AS d);
  END LOOP;
  RETURN ARRAY(SELECT digest FROM hansa.values WHERE tenant_id = p_tenant AND digest = ANY(p_digests) AND in_store);
END $$;

-- Keeps that a session's log refers to what stands in these JSON texts. Whoever writes events calls it: a value that no log refers
-- to is removed after a while.
CREATE OR REPLACE FUNCTION hansa.values_refer(p_tenant uuid, p_session uuid, p_texts text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF strpos(array_to_string(p_texts, ''), '"$value"') > 0 THEN
    INSERT INTO hansa.value_refs (tenant_id, session_id, digest)
      SELECT DISTINCT p_tenant, p_session, decode(m[1], 'hex') FROM unnest(p_texts) AS t(body),
        regexp_matches(t.body, '"\$value":"sha256:([0-9a-f]{64})"', 'g') AS m ON CONFLICT DO NOTHING;
  END IF;
END $$;

-- Counts values as they come and go, over several shards, so that writers of one tenant seldom wait for each other; who reads adds them up.
CREATE OR REPLACE FUNCTION hansa.storage_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO hansa.storage AS s (tenant_id, shard, bytes)
    SELECT c.tenant_id, pg_backend_pid() % 16, sum(CASE TG_OP WHEN 'DELETE' THEN -c.size ELSE c.size END) FROM changed c GROUP BY c.tenant_id
    ORDER BY c.tenant_id ON CONFLICT (tenant_id, shard) DO UPDATE SET bytes = s.bytes + excluded.bytes;
  RETURN NULL;
END $$;

-- Why a tenant may not keep so many bytes more, as JSON; NULL: it may.
CREATE OR REPLACE FUNCTION hansa.storage_refusal(p_tenant uuid, p_more bigint) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('limit', 'storageBytes', 'used', u.bytes, 'bound', t.storage_bytes, 'needed', p_more)
  FROM hansa.tenants t CROSS JOIN LATERAL (SELECT coalesce(sum(s.bytes), 0)::bigint AS bytes FROM hansa.storage s WHERE s.tenant_id = p_tenant) u
  WHERE t.tenant_id = p_tenant AND t.storage_bytes IS NOT NULL AND u.bytes + p_more > t.storage_bytes
$$;

-- Keeps values that somebody sends, as values_put does, unless they are more than the tenant may keep. Of a tenant that has a bound, one
-- after the other, or those who ask at the same time would each find room for what all of them together have none for.
CREATE OR REPLACE FUNCTION hansa.values_keep(p_tenant uuid, p_digests bytea[], p_sizes bigint[], p_bodies text[])
RETURNS TABLE (refused json, wanted bytea[]) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  IF EXISTS (SELECT FROM hansa.tenants t WHERE t.tenant_id = p_tenant AND t.storage_bytes IS NOT NULL) THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('hansa.storage ' || p_tenant, 0));
    refused := hansa.storage_refusal(p_tenant, (SELECT coalesce(sum(a.size), 0)::bigint FROM unnest(p_digests, p_sizes) AS a(digest, size)
      WHERE NOT EXISTS (SELECT FROM hansa.values v WHERE v.tenant_id = p_tenant AND v.digest = a.digest)));
  END IF;
  IF refused IS NULL THEN wanted := hansa.values_put(p_tenant, p_digests, p_sizes, p_bodies); END IF;
  RETURN NEXT;
END $$;
