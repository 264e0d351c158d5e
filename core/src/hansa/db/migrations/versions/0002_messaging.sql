-- What the platform knows of tenants' NATS accounts: how each shall be, and what the server was last told. Run as hansa_owner.

-- `version` grows with every change of how it shall be, and is no less than the seconds since 1970 at the first: a server that hears of
-- two versions believes the higher one. `told` is what of it NATS has taken, and by whose key; NULL: nothing yet.
CREATE TABLE hansa.messaging_accounts (
  tenant_id uuid PRIMARY KEY REFERENCES hansa.tenants (tenant_id),
  version bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp())::bigint,
  connections integer NOT NULL DEFAULT 100 CHECK (connections >= 0),
  subscriptions integer NOT NULL DEFAULT 100 CHECK (subscriptions >= 0),
  payload_bytes integer NOT NULL DEFAULT 65536 CHECK (payload_bytes >= 0),
  blocked boolean NOT NULL DEFAULT false,
  revoked_before bigint NOT NULL DEFAULT 0,
  account text CHECK (length(account) = 56),
  told text,
  digest bytea CHECK (length(digest) = 32),
  reason text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX messaging_accounts_account ON hansa.messaging_accounts (account);
COMMENT ON COLUMN hansa.messaging_accounts.account IS 'Public key, which gives the tenant of what comes from it.';
COMMENT ON COLUMN hansa.messaging_accounts.digest IS 'SHA-256 of what NATS was told, so that all of it can be compared at once.';
COMMENT ON COLUMN hansa.messaging_accounts.reason IS 'Why NATS was not told, last; empty: it was.';

ALTER TABLE hansa.messaging_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE hansa.messaging_accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON hansa.messaging_accounts TO hansa_app, hansa_owner
  USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
GRANT SELECT, INSERT (tenant_id, connections, subscriptions, payload_bytes, blocked),
  UPDATE (version, connections, subscriptions, payload_bytes, blocked, revoked_before) ON hansa.messaging_accounts TO hansa_app;

-- Control planes see to it that NATS knows all accounts; workers ask whose account something comes from.
CREATE POLICY system ON hansa.messaging_accounts TO hansa_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT (tenant_id, blocked), UPDATE (account, told, digest, reason) ON hansa.messaging_accounts TO hansa_system;

-- What control planes found when they compared what NATS has with what it was told, and tried its walls. One row a region.
CREATE TABLE hansa.messaging_looks (
  region text PRIMARY KEY,
  looked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  holes text NOT NULL DEFAULT '',
  found_at timestamptz NOT NULL DEFAULT '-infinity'
);
GRANT SELECT, INSERT, UPDATE ON hansa.messaging_looks TO hansa_system;

-- How a tenant's account shall be, as part of the caller's transaction. Who is blocked loses the users it had.
CREATE FUNCTION hansa.messaging_set(p_tenant uuid, p_connections integer, p_subscriptions integer, p_payload_bytes integer, p_blocked boolean)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO hansa.messaging_accounts AS m (tenant_id, connections, subscriptions, payload_bytes, blocked)
    VALUES (p_tenant, p_connections, p_subscriptions, p_payload_bytes, p_blocked)
  ON CONFLICT (tenant_id) DO UPDATE SET connections = excluded.connections, subscriptions = excluded.subscriptions,
    payload_bytes = excluded.payload_bytes, blocked = excluded.blocked,
    version = greatest(m.version + 1, extract(epoch FROM clock_timestamp())::bigint),
    revoked_before = CASE WHEN excluded.blocked AND NOT m.blocked THEN extract(epoch FROM clock_timestamp())::bigint ELSE m.revoked_before END
  WHERE (m.connections, m.subscriptions, m.payload_bytes, m.blocked)
    IS DISTINCT FROM (excluded.connections, excluded.subscriptions, excluded.payload_bytes, excluded.blocked)
$$;

-- Every user of the tenant's account that was made until now is turned away.
CREATE FUNCTION hansa.messaging_revoke(p_tenant uuid) RETURNS void LANGUAGE sql AS $$
  UPDATE hansa.messaging_accounts m SET revoked_before = greatest(m.revoked_before + 1, extract(epoch FROM clock_timestamp())::bigint),
    version = greatest(m.version + 1, extract(epoch FROM clock_timestamp())::bigint) WHERE m.tenant_id = p_tenant
$$;
