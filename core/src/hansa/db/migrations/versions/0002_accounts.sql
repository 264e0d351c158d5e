-- Service accounts: programs by name, whose keys come and go.

-- `roles`: its own; the tenant's role bindings may give it more.
CREATE TABLE hansa.service_accounts (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id) ON DELETE CASCADE,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  roles text[] NOT NULL,
  made_by text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, name)
);

-- A key of an account has the account's roles, whatever these are then, and goes with it.
ALTER TABLE hansa.api_keys ADD COLUMN service_account text,
  ADD FOREIGN KEY (tenant_id, service_account) REFERENCES hansa.service_accounts (tenant_id, name) ON DELETE CASCADE;
CREATE INDEX api_keys_account ON hansa.api_keys (tenant_id, service_account) WHERE service_account IS NOT NULL;

ALTER TABLE hansa.service_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE hansa.service_accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON hansa.service_accounts TO hansa_app, hansa_owner
  USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
CREATE POLICY system ON hansa.service_accounts FOR SELECT TO hansa_system USING (true);
GRANT SELECT, INSERT, DELETE ON hansa.service_accounts TO hansa_app;
GRANT SELECT (tenant_id, name, roles) ON hansa.service_accounts TO hansa_system;

-- {name, kind, may}: who applied an agent last. Its runs may do no more than that one could (`may`: see runs.started_by).
ALTER TABLE hansa.agents ADD COLUMN owner json;
