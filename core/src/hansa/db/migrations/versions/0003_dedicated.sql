-- Tenants that have a database to themselves: the same schema, with this one tenant in it. Run as hansa_owner.

-- Where a tenant's rows are; said when it is made, and never changed. The platform's database keeps of a Dedicated one what must be known
-- before the tenant is, and what its Tenant object says.
ALTER TABLE hansa.tenants ADD COLUMN database text NOT NULL DEFAULT 'Shared' CHECK (database IN ('Shared', 'Dedicated'));
GRANT INSERT (database) ON hansa.tenants TO hansa_app;

-- Which database this is, one row. `platform` and `tenant`: of which installation's tenant it is the own one; NULL: it is a platform's.
CREATE TABLE hansa.installation (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  platform uuid,
  tenant uuid,
  name text NOT NULL DEFAULT '',
  CHECK ((platform IS NULL) = (tenant IS NULL))
);
INSERT INTO hansa.installation DEFAULT VALUES;
GRANT SELECT ON hansa.installation TO hansa_app, hansa_system;

-- Makes one table take no row of anybody but the tenant whose own database this is; its name, NULL: all are so. One a transaction, so that
-- it waits for nobody while others wait for it.
CREATE FUNCTION hansa.installation_bind() RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_table text; v_tenant uuid := (SELECT i.tenant FROM hansa.installation i);
BEGIN
  SELECT c.relname INTO v_table FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.conname = 'own') ORDER BY c.relname LIMIT 1;
  IF v_table IS NOT NULL THEN
    EXECUTE format('ALTER TABLE hansa.%I ADD CONSTRAINT own CHECK (tenant_id = %L)', v_table, v_tenant);
  END IF;
  RETURN v_table;
END $$;

-- Makes this database the tenant's own: from here on no table takes a row of anybody else, whoever writes it. NULL: it is; else why not.
-- Safe to repeat. Afterwards, and after each migration, tables that are new are bound one by one.
CREATE FUNCTION hansa.installation_claim(p_platform uuid, p_tenant uuid, p_name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v hansa.installation;
BEGIN
  SELECT * INTO v FROM hansa.installation FOR UPDATE;
  IF v.id = p_platform THEN RETURN 'it is the platform''s own database'; END IF;
  IF v.tenant <> p_tenant OR v.platform <> p_platform THEN
    RETURN format('it is that of tenant %L of %s', v.name, CASE v.platform WHEN p_platform THEN 'this installation' ELSE 'another installation' END);
  END IF;
  IF v.tenant IS NULL THEN
    UPDATE hansa.installation SET platform = p_platform, tenant = p_tenant, name = p_name;
    LOOP EXIT WHEN hansa.installation_bind() IS NULL; END LOOP;
  END IF;
  RETURN NULL;
EXCEPTION WHEN check_violation THEN
  RETURN 'it holds rows of other tenants';
END $$;
REVOKE ALL ON FUNCTION hansa.installation_bind, hansa.installation_claim FROM PUBLIC;
