-- How much a tenant may ask of the API.

-- When a tenant's next request could come if they came evenly, in seconds since 1970. Unlogged: after a crash everyone begins anew.
CREATE UNLOGGED TABLE hansa.request_rates (
  tenant_id uuid PRIMARY KEY REFERENCES hansa.tenants (tenant_id),
  due double precision NOT NULL
);
ALTER TABLE hansa.request_rates ENABLE ROW LEVEL SECURITY;
ALTER TABLE hansa.request_rates FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON hansa.request_rates TO hansa_app, hansa_owner
  USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()));
GRANT SELECT, INSERT, UPDATE ON hansa.request_rates TO hansa_app;

-- Admits as many of `p_wanted` requests as the tenant's bound leaves: never more than the bound in any second and one second's worth at
-- once, whichever process asks (the generic cell rate algorithm, ITU-T I.371). `pause`: seconds until the next one could be admitted.
CREATE FUNCTION hansa.requests_take(p_tenant uuid, p_wanted integer)
RETURNS TABLE (admitted integer, bound integer, pause double precision) LANGUAGE plpgsql AS $$
DECLARE v_now double precision; v_due double precision;
BEGIN
  PERFORM set_config('hansa.tenant', p_tenant::text, true);
  SELECT t.requests_per_second INTO bound FROM hansa.tenants t WHERE t.tenant_id = p_tenant;
  IF bound IS NULL THEN RETURN QUERY SELECT p_wanted, bound, 0.0::double precision; RETURN; END IF;
  INSERT INTO hansa.request_rates (tenant_id, due) VALUES (p_tenant, 0) ON CONFLICT DO NOTHING;
  SELECT r.due INTO v_due FROM hansa.request_rates r WHERE r.tenant_id = p_tenant FOR UPDATE;
  v_now := extract(epoch FROM clock_timestamp());  -- read once the row is ours: no two batches have the same moment
  v_due := greatest(v_due, v_now);
  -- A little more than nothing: a third of a second three times is a second, also in binary.
  admitted := least(p_wanted, floor(bound * (1 - (v_due - v_now)) + 1e-4)::integer);
  v_due := v_due + admitted::double precision / bound;
  UPDATE hansa.request_rates r SET due = v_due WHERE r.tenant_id = p_tenant;
  pause := greatest(v_due + 1.0 / bound - 1 - v_now, 0);
  RETURN NEXT;
END $$;
