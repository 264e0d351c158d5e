-- Rows of audit trails that are owed: what the platform's database decides of a tenant whose trail is in a database of its own. Run as
-- hansa_owner.

-- In the platform's database, written with the change itself; gone once the tenant's own database has it. No foreign key, as with heads:
-- nobody waits for anybody here.
CREATE TABLE hansa.audit_owed (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  event json NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
COMMENT ON COLUMN hansa.audit_owed.event IS 'Canonical JSON, as it will be hashed.';

-- In the tenant's own: which of them its trail has, so that each is written once however often it is brought.
CREATE TABLE hansa.audit_taken (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, id)
);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['audit_owed', 'audit_taken'] LOOP
    EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE hansa.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                   'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', t);
  END LOOP;
END $$;
GRANT SELECT, INSERT, DELETE ON hansa.audit_owed, hansa.audit_taken TO hansa_app;
