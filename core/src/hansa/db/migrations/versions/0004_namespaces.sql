-- Where agents stand, and stood when sessions were opened: roles that are bound in namespaces are judged by it. Run as hansa_owner.

-- Kept by whoever applies the agent; NULL: not known.
ALTER TABLE hansa.agents ADD COLUMN namespace text;
-- Of the agent when the session was opened, for good: another agent of its name in another namespace shows nobody there what this one did.
-- NULL, as of sessions of earlier releases: only those see it whose roles hold in the whole tenant.
ALTER TABLE hansa.sessions ADD COLUMN namespace text;

-- Policies are forced on the owner too, and each agent is to have the namespace of its object.
ALTER TABLE hansa.agents NO FORCE ROW LEVEL SECURITY;
ALTER TABLE hansa.objects NO FORCE ROW LEVEL SECURITY;
ALTER TABLE hansa.tenants NO FORCE ROW LEVEL SECURITY;
UPDATE hansa.agents a SET namespace = coalesce(o.manifest -> 'metadata' ->> 'namespace', t.name)
  FROM hansa.objects o JOIN hansa.tenants t USING (tenant_id)
  WHERE o.tenant_id = a.tenant_id AND o.kind = 'Agent' AND o.name = a.name;
ALTER TABLE hansa.agents FORCE ROW LEVEL SECURITY;
ALTER TABLE hansa.objects FORCE ROW LEVEL SECURITY;
ALTER TABLE hansa.tenants FORCE ROW LEVEL SECURITY;

-- It has one more argument in `hansa/db/definitions`, which may be left out, as older code does.
DROP FUNCTION IF EXISTS hansa.event_publish(uuid, text, json);
