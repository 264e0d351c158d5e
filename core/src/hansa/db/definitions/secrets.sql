-- The secrets of tenants: values are encrypted with a data key of the tenant, data keys are wrapped by a key that is never in the database.

-- The version of a secret that counts, with all that is needed to open it and the only hosts that it may be sent to (NULL: any), in one
-- round trip.
CREATE OR REPLACE FUNCTION hansa.secret_read(p_tenant uuid, p_name text)
RETURNS TABLE (tenant text, version integer, generation integer, sealed bytea, source text, path text, kek text, key_id text, wrapped bytea, hosts text[])
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT t.name, s.version, s.generation, s.sealed, s.source, s.path, k.kek, k.key_id, k.wrapped, s.hosts
    FROM hansa.secrets s
    JOIN hansa.tenants t ON t.tenant_id = s.tenant_id
    LEFT JOIN hansa.data_keys k ON k.tenant_id = s.tenant_id AND k.generation = s.generation
    WHERE s.tenant_id = p_tenant AND s.name = p_name ORDER BY s.version DESC LIMIT 1;
END $$;
