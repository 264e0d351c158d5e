-- How many bytes of large values a tenant keeps: what has changed.

-- Replaces that of 0002_storage.sql: of a tenant that has a bound, one after the other, or those who ask at the same time would each find
-- room for what all of them together have none for.
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
