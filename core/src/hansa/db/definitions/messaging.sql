-- How tenants' NATS accounts shall be.

-- How a tenant's account shall be, as part of the caller's transaction. Who is blocked loses the users it had.
CREATE OR REPLACE FUNCTION hansa.messaging_set(p_tenant uuid, p_connections integer, p_subscriptions integer, p_payload_bytes integer, p_blocked boolean)
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
CREATE OR REPLACE FUNCTION hansa.messaging_revoke(p_tenant uuid) RETURNS void LANGUAGE sql AS $$
  UPDATE hansa.messaging_accounts m SET revoked_before = greatest(m.revoked_before + 1, extract(epoch FROM clock_timestamp())::bigint),
    version = greatest(m.version + 1, extract(epoch FROM clock_timestamp())::bigint) WHERE m.tenant_id = p_tenant
$$;

-- Turns away one user of the tenant's account, whose credentials were made for `p_seconds` at most; false: `p_most` are turned away already.
CREATE OR REPLACE FUNCTION hansa.messaging_revoke_user(p_tenant uuid, p_user text, p_seconds integer, p_most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_now bigint := extract(epoch FROM clock_timestamp())::bigint; v_users jsonb;
BEGIN
  SELECT m.revoked_users INTO v_users FROM hansa.messaging_accounts m WHERE m.tenant_id = p_tenant FOR UPDATE;
  SELECT coalesce(jsonb_object_agg(u.key, u.value), '{}') INTO v_users FROM jsonb_each(v_users) u WHERE u.value::bigint >= v_now;
  IF (SELECT count(*) FROM jsonb_object_keys(v_users - p_user)) >= p_most THEN RETURN false; END IF;
  UPDATE hansa.messaging_accounts m SET revoked_users = v_users || jsonb_build_object(p_user, v_now + p_seconds),
    version = greatest(m.version + 1, v_now) WHERE m.tenant_id = p_tenant;
  RETURN true;
END $$;
