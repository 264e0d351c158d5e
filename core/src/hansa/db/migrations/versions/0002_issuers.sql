-- Who may come into a tenant with a token: what Tenant objects say of issuers and roles, where it can be looked up by the issuer.

-- A projection of spec.identity.issuers. An issuer and an audience together belong to one tenant: a token opens that one.
CREATE TABLE hansa.issuers (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id) ON DELETE CASCADE,
  issuer text NOT NULL,
  audience text NOT NULL,
  entry json NOT NULL,
  PRIMARY KEY (tenant_id, issuer, audience)
);
CREATE UNIQUE INDEX issuers_place ON hansa.issuers (issuer, audience);

-- A projection of spec.identity.roleBindings.
ALTER TABLE hansa.tenants ADD COLUMN role_bindings json NOT NULL DEFAULT '[]';

ALTER TABLE hansa.issuers ENABLE ROW LEVEL SECURITY;
ALTER TABLE hansa.issuers FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON hansa.issuers TO hansa_app, hansa_owner
  USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
CREATE POLICY system ON hansa.issuers FOR SELECT TO hansa_system USING (true);
GRANT SELECT, INSERT, DELETE ON hansa.issuers TO hansa_app;
GRANT UPDATE (role_bindings) ON hansa.tenants TO hansa_app;
GRANT SELECT ON hansa.issuers TO hansa_system;
