-- Large values of the log, each once a tenant, by the SHA-256 of their canonical JSON. Events and runs refer to them.

-- `body` NULL: the artifact store has it. `used_at` is when the value was last asked to be kept, to within a day: what was used
-- in the last two days is never removed, so whoever has just put a value can refer to it without a lock.
CREATE TABLE hansa.values (
  tenant_id uuid NOT NULL,
  digest bytea NOT NULL CHECK (octet_length(digest) = 32),
  size bigint NOT NULL,
  in_store boolean NOT NULL,
  body text CHECK ((body IS NULL) = in_store),
  used_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, digest)
);

-- Which session's log refers to which value: what nobody refers to can go.
CREATE TABLE hansa.value_refs (
  tenant_id uuid NOT NULL,
  session_id uuid NOT NULL,
  digest bytea NOT NULL,
  PRIMARY KEY (tenant_id, session_id, digest)
);
CREATE INDEX value_refs_digest ON hansa.value_refs (tenant_id, digest);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['values', 'value_refs'] LOOP
    EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE hansa.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                   'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE (used_at) ON hansa.values TO hansa_app;
GRANT SELECT, INSERT ON hansa.value_refs TO hansa_app;

-- Keeps values (a NULL body: in the artifact store). Many writers of one value do not wait for each other once it is there; one that
-- is just being removed is waited for and kept anew. Answers with the digests that the artifact store must have.
CREATE FUNCTION hansa.values_put(p_tenant uuid, p_digests bytea[], p_sizes bigint[], p_bodies text[]) RETURNS bytea[] LANGUAGE plpgsql AS $$
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
CREATE FUNCTION hansa.values_refer(p_tenant uuid, p_session uuid, p_texts text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF strpos(array_to_string(p_texts, ''), '"$value"') > 0 THEN
    INSERT INTO hansa.value_refs (tenant_id, session_id, digest)
      SELECT DISTINCT p_tenant, p_session, decode(m[1], 'hex') FROM unnest(p_texts) AS t(body),
        regexp_matches(t.body, '"\$value":"sha256:([0-9a-f]{64})"', 'g') AS m ON CONFLICT DO NOTHING;
  END IF;
END $$;
