-- The secrets of tenants. What is readable here says nothing: values are encrypted with a data key of the tenant, data keys are wrapped by
-- a key that is never in the database.

-- `generation` counts a tenant's data keys: the newest encrypts, older ones are kept while a secret needs them. `kek` is the key provider,
-- `key_id` its key. To delete a tenant's rows here is to shred all its secrets, in every copy of the other table.
CREATE TABLE hansa.data_keys (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  generation integer NOT NULL,
  kek text NOT NULL,
  key_id text NOT NULL,
  wrapped bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, generation)
);

-- One row a version; the highest counts. Either a value, sealed for this tenant, name and version, or where another system keeps it.
CREATE TABLE hansa.secrets (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  name text NOT NULL,
  version integer NOT NULL,
  generation integer,
  sealed bytea,
  source text,
  path text,
  made_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, name, version),
  FOREIGN KEY (tenant_id, generation) REFERENCES hansa.data_keys (tenant_id, generation),
  CHECK ((sealed IS NULL) = (generation IS NULL) AND (source IS NULL) = (path IS NULL) AND (sealed IS NULL) <> (source IS NULL))
);
CREATE INDEX secrets_generation ON hansa.secrets (tenant_id, generation);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['data_keys', 'secrets'] LOOP
    EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE hansa.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                   'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT, DELETE, UPDATE (kek, key_id, wrapped) ON hansa.data_keys TO hansa_app;
GRANT SELECT, INSERT, DELETE, UPDATE (generation, sealed) ON hansa.secrets TO hansa_app;

-- Over all tenants the system knows which keys wrap their data keys, and none of these.
CREATE POLICY system ON hansa.data_keys FOR SELECT TO hansa_system USING (true);
GRANT SELECT (tenant_id, generation, kek, key_id) ON hansa.data_keys TO hansa_system;

-- The version of a secret that counts, with all that is needed to open it, in one round trip.
CREATE FUNCTION hansa.secret_read(p_tenant uuid, p_name text)
RETURNS TABLE (tenant text, version integer, generation integer, sealed bytea, source text, path text, kek text, key_id text, wrapped bytea)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT t.name, s.version, s.generation, s.sealed, s.source, s.path, k.kek, k.key_id, k.wrapped
    FROM hansa.secrets s
    JOIN hansa.tenants t ON t.tenant_id = s.tenant_id
    LEFT JOIN hansa.data_keys k ON k.tenant_id = s.tenant_id AND k.generation = s.generation
    WHERE s.tenant_id = p_tenant AND s.name = p_name ORDER BY s.version DESC LIMIT 1;
END $$;
