-- Accounts on NATS: single users can be turned away.

-- Users by their public key, and until when (seconds since 1970) somebody might still log in as them: then their credentials have ended.
ALTER TABLE hansa.messaging_accounts ADD COLUMN revoked_users jsonb NOT NULL DEFAULT '{}';
GRANT UPDATE (revoked_users) ON hansa.messaging_accounts TO hansa_app;

-- Turns away one user of the tenant's account, whose credentials were made for `p_seconds` at most; false: `p_most` are turned away already.
CREATE FUNCTION hansa.messaging_revoke_user(p_tenant uuid, p_user text, p_seconds integer, p_most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_now bigint := extract(epoch FROM clock_timestamp())::bigint; v_users jsonb;
BEGIN
  SELECT m.revoked_users INTO v_users FROM hansa.messaging_accounts m WHERE m.tenant_id = p_tenant FOR UPDATE;
  SELECT coalesce(jsonb_object_agg(u.key, u.value), '{}') INTO v_users FROM jsonb_each(v_users) u WHERE u.value::bigint >= v_now;
  IF (SELECT count(*) FROM jsonb_object_keys(v_users - p_user)) >= p_most THEN RETURN false; END IF;
  UPDATE hansa.messaging_accounts m SET revoked_users = v_users || jsonb_build_object(p_user, v_now + p_seconds),
    version = greatest(m.version + 1, v_now) WHERE m.tenant_id = p_tenant;
  RETURN true;
END $$;
