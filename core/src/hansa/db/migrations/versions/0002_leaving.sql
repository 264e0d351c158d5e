-- What lets a tenant go whole. Run as hansa_owner, after 0002_audit.sql and 0002_tenants.sql.

-- Replaces that of 0002_audit.sql: the trail of a tenant that is being deleted goes with the tenant. That it was deleted, and by whom, stands
-- in the trail of who did it.
CREATE OR REPLACE FUNCTION hansa.audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_user = 'hansa_owner' THEN
    IF hansa.tenant_condemned(OLD.tenant_id) THEN RETURN OLD; END IF;
  END IF;
  RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
