-- Who owns an object and what made it so; which namespaces lead to which tenant; what sources of objects last saw. Run as hansa_owner.

ALTER TABLE hansa.objects
  ADD COLUMN origin text NOT NULL DEFAULT '',
  ADD COLUMN commit text NOT NULL DEFAULT '',
  ADD COLUMN applied_by text NOT NULL DEFAULT '';
COMMENT ON COLUMN hansa.objects.origin IS 'Which one of its manager owns it: of git URL//path, of kubernetes the cluster. With the manager: its owner.';
COMMENT ON COLUMN hansa.objects.commit IS 'The commit that has it, as it is, at the place that source names.';
COMMENT ON COLUMN hansa.objects.applied_by IS 'Who last wrote this row: the name of a principal.';

-- The system finds the tenants in which an owner has something, and reads nothing of it.
CREATE POLICY system ON hansa.objects FOR SELECT TO hansa_system USING (true);
GRANT SELECT (tenant_id, kind, manager, origin) ON hansa.objects TO hansa_system;

-- Names that lead to a tenant: its own, and those that its object claims. Each leads to one tenant.
CREATE TABLE hansa.namespaces (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  name text NOT NULL,
  PRIMARY KEY (tenant_id, name)
);
CREATE UNIQUE INDEX namespaces_name ON hansa.namespaces (name);

-- Policies are forced on the owner too, and each tenant is to have its own name.
ALTER TABLE hansa.tenants NO FORCE ROW LEVEL SECURITY;
INSERT INTO hansa.namespaces (tenant_id, name) SELECT tenant_id, name FROM hansa.tenants;
ALTER TABLE hansa.tenants FORCE ROW LEVEL SECURITY;

-- What sources of objects tell of themselves: a repository that is watched, and how that goes.
CREATE TABLE hansa.sources (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  id text NOT NULL,
  origin text NOT NULL,
  ref text NOT NULL,
  commit text NOT NULL,
  state text NOT NULL,
  message text NOT NULL,
  errors json NOT NULL,
  seen_at timestamptz NOT NULL,
  applied_at timestamptz,
  told_by text NOT NULL,
  PRIMARY KEY (tenant_id, id)
);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['namespaces', 'sources'] LOOP
    EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE hansa.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                   'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', t);
  END LOOP;
END $$;
CREATE POLICY system ON hansa.namespaces FOR SELECT TO hansa_system USING (true);
GRANT SELECT, INSERT, DELETE ON hansa.namespaces TO hansa_app;
GRANT SELECT ON hansa.namespaces TO hansa_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON hansa.sources TO hansa_app;
