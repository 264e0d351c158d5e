-- The first schema. Run as hansa_owner. Every table with a tenant_id gets a forced policy below.

-- STABLE and used as a scalar sub-select: evaluated once per query, not once per row. NULLIF: after a transaction-local
-- set_config the setting is '' and not NULL for the rest of the session.
CREATE FUNCTION hansa.tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT NULLIF(current_setting('hansa.tenant', true), '')::uuid $$;

CREATE TABLE hansa.tenants (
  tenant_id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  display_name text NOT NULL DEFAULT '',
  suspended boolean NOT NULL DEFAULT false,
  weight integer NOT NULL DEFAULT 1,
  concurrent_runs integer,
  requests_per_second integer,
  objects_version bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN hansa.tenants.objects_version IS 'Counts every change of an object: what workers keep of manifests is keyed by it.';

CREATE TABLE hansa.regions (
  name text PRIMARY KEY,
  display_name text NOT NULL DEFAULT '',
  cordoned boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE hansa.api_keys (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  id text NOT NULL,
  name text NOT NULL,
  digest bytea NOT NULL,
  roles text[] NOT NULL,
  scopes text[],
  made_by text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  used_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX api_keys_id ON hansa.api_keys (id);
COMMENT ON COLUMN hansa.api_keys.used_at IS 'Last use, told at most once a minute.';

CREATE TABLE hansa.objects (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  kind text NOT NULL,
  name text NOT NULL,
  generation integer NOT NULL,
  manager text NOT NULL,
  manifest json NOT NULL,
  digest bytea NOT NULL,
  source json,
  status json,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, kind, name)
);

CREATE TABLE hansa.agent_revisions (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  agent text NOT NULL,
  revision integer NOT NULL,
  digest bytea NOT NULL,
  manifest json NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, agent, revision)
);

-- What starting a run needs to know of its agent, as its object says now; `held` counts the slots that a bound on runs at once leaves.
CREATE TABLE hansa.agents (
  tenant_id uuid NOT NULL REFERENCES hansa.tenants (tenant_id),
  name text NOT NULL,
  revision integer NOT NULL,
  suspended boolean NOT NULL,
  concurrency text NOT NULL,
  pool text NOT NULL,
  bound integer,
  held integer NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, name)
);

-- `newest_run`: the queued_seq of the run that was queued last. Analyzed early: a plan made while the table was almost empty reads all
-- of a tenant's rows.
CREATE TABLE hansa.sessions (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  agent text NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0,
  active_run uuid,
  newest_run bigint NOT NULL DEFAULT 0,
  forked_from uuid,
  forked_seq bigint,
  active_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 80, autovacuum_analyze_threshold = 50, autovacuum_analyze_scale_factor = 0.05);

-- `queued_seq` is the number of the run's run.queued event: a session's runs are done in the order of its log. Ids would not do,
-- since they are given before the session is locked. `gate` says what a queued run waits for: its session, a slot of its agent, or
-- its time. No foreign key to agent_revisions: hansa.run_start has just read the row, none is ever deleted, and the check would lock
-- the same row for every run of an agent. `woken`: something it waits for has come while it was running. `writes` counts the writes of this epoch.
CREATE TABLE hansa.runs (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  session_id uuid NOT NULL,
  queued_seq bigint NOT NULL,
  agent text NOT NULL,
  revision integer NOT NULL,
  state text NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'suspended', 'completed', 'failed', 'canceled', 'needs_review')),
  gate text CHECK (gate IN ('session', 'agent', 'time')),
  pool text NOT NULL DEFAULT 'default',
  priority smallint NOT NULL DEFAULT 0,
  slot boolean NOT NULL DEFAULT false,
  woken boolean NOT NULL DEFAULT false,
  rolled_back boolean NOT NULL DEFAULT false,
  interrupted boolean NOT NULL DEFAULT false,
  input json NOT NULL,
  output json,
  error json,
  input_tokens bigint NOT NULL DEFAULT 0,
  output_tokens bigint NOT NULL DEFAULT 0,
  epoch integer NOT NULL DEFAULT 0,
  takeovers integer NOT NULL DEFAULT 0,
  writes integer NOT NULL DEFAULT 0,
  attempt integer NOT NULL DEFAULT 1,
  active interval NOT NULL DEFAULT '0',
  worker text,
  claimed_at timestamptz,
  lease_until timestamptz,
  cancel_requested_at timestamptz,
  suspend_requested_at timestamptz,
  suspended_by text CHECK (suspended_by IN ('run', 'agent')),
  parent_run uuid,
  parent_step text,
  depth smallint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES hansa.sessions (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 80, autovacuum_analyze_threshold = 50, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX runs_ready ON hansa.runs (pool, tenant_id, priority DESC, id) WHERE state = 'queued' AND gate IS NULL;
CREATE INDEX runs_gated ON hansa.runs (tenant_id, agent, priority DESC, id) WHERE state = 'queued' AND gate = 'agent';
CREATE INDEX runs_leased ON hansa.runs (lease_until) WHERE state = 'running';
CREATE INDEX runs_running ON hansa.runs (tenant_id, agent) WHERE state = 'running';
CREATE INDEX runs_suspended ON hansa.runs (tenant_id, agent) WHERE state = 'suspended';
CREATE INDEX runs_children ON hansa.runs (tenant_id, parent_run) WHERE parent_run IS NOT NULL;
CREATE UNIQUE INDEX runs_session ON hansa.runs (tenant_id, session_id, queued_seq);
CREATE INDEX runs_agent ON hansa.runs (tenant_id, agent, id);

-- What a run waits for, until it has come. `look_at`: when a timer is due, an approval expires, an event is given up.
-- `kind` start is a run that is to begin later. `key`: the child's or approval's id, or the event's name.
CREATE TABLE hansa.waits (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  step text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('start', 'timer', 'retry', 'child', 'approval', 'event')),
  key text,
  look_at timestamptz,
  PRIMARY KEY (tenant_id, run_id, step),
  FOREIGN KEY (tenant_id, run_id) REFERENCES hansa.runs (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX waits_due ON hansa.waits (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX waits_key ON hansa.waits (tenant_id, kind, key) WHERE key IS NOT NULL;

-- What a person is asked: may this call be made (kind tool), or a question. `subject` is shown literally.
CREATE TABLE hansa.approvals (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  run_id uuid NOT NULL,
  step text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('tool', 'question')),
  subject json NOT NULL,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'denied', 'answered', 'expired', 'canceled')),
  decided_by text,
  comment text,
  answer json,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz,
  decided_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, run_id) REFERENCES hansa.runs (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX approvals_pending ON hansa.approvals (tenant_id, id) WHERE state = 'pending';
CREATE INDEX approvals_run ON hansa.approvals (tenant_id, run_id);

-- Events sent to a session before anybody waits for them.
CREATE TABLE hansa.mailbox (
  tenant_id uuid NOT NULL,
  session_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  data json NOT NULL,
  PRIMARY KEY (tenant_id, session_id, id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES hansa.sessions (tenant_id, id) ON DELETE CASCADE
);

-- No foreign key to sessions: the only writer is hansa.log_append, which has just locked and updated that session's row.
-- Partitioned in 0001_retention.sql: who reads events names their session, so that one partition is read.
CREATE TABLE hansa.events (
  tenant_id uuid NOT NULL,
  session_id uuid NOT NULL,
  seq bigint NOT NULL,
  run_id uuid NOT NULL,
  type text NOT NULL,
  step text,
  data json NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, session_id, seq)
) PARTITION BY RANGE (session_id);

CREATE TABLE hansa.idempotency_keys (
  tenant_id uuid NOT NULL,
  principal text NOT NULL,
  route text NOT NULL,
  key text NOT NULL,
  digest bytea NOT NULL,
  status integer NOT NULL,
  answer json NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, principal, route, key)
);
CREATE INDEX idempotency_keys_age ON hansa.idempotency_keys (created_at);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['tenants', 'api_keys', 'objects', 'agent_revisions', 'agents', 'sessions', 'runs', 'waits', 'approvals', 'mailbox',
    'events', 'idempotency_keys'] LOOP
    EXECUTE format('ALTER TABLE hansa.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE hansa.%I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON hansa.%I TO hansa_app, hansa_owner '
                   'USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))', t);
  END LOOP;
END $$;

-- What the app may do: nothing is deleted but objects; the log and revisions are written once.
GRANT SELECT, INSERT (tenant_id, name), UPDATE (display_name, suspended, weight, concurrent_runs, requests_per_second, objects_version)
  ON hansa.tenants TO hansa_app;
GRANT SELECT, UPDATE (display_name, cordoned) ON hansa.regions TO hansa_app;
GRANT SELECT, INSERT, UPDATE (expires_at, revoked_at) ON hansa.api_keys TO hansa_app;
GRANT SELECT, INSERT, UPDATE ON hansa.sessions, hansa.runs, hansa.approvals TO hansa_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON hansa.objects, hansa.agents, hansa.waits TO hansa_app;
GRANT SELECT, INSERT, DELETE ON hansa.mailbox TO hansa_app;
GRANT SELECT, INSERT ON hansa.agent_revisions, hansa.events, hansa.idempotency_keys TO hansa_app;
GRANT INSERT ON hansa.regions TO hansa_app;

-- What the system may do, over all tenants: find keys, claim and renew runs, find what is due, sweep old idempotency keys,
-- list tenants. It reads no content.
CREATE POLICY system ON hansa.tenants FOR SELECT TO hansa_system USING (true);
CREATE POLICY system ON hansa.api_keys FOR SELECT TO hansa_system USING (true);
CREATE POLICY system_used ON hansa.api_keys FOR UPDATE TO hansa_system USING (true) WITH CHECK (true);
CREATE POLICY system ON hansa.agents FOR SELECT TO hansa_system USING (true);
CREATE POLICY system_read ON hansa.runs FOR SELECT TO hansa_system USING (true);
CREATE POLICY system_claim ON hansa.runs FOR UPDATE TO hansa_system
  USING (state IN ('queued', 'running')) WITH CHECK (state IN ('queued', 'running'));
CREATE POLICY system ON hansa.waits TO hansa_system USING (look_at IS NOT NULL);
CREATE POLICY system ON hansa.idempotency_keys TO hansa_system USING (created_at < now() - interval '24 hours');
GRANT SELECT ON hansa.tenants, hansa.api_keys TO hansa_system;
GRANT UPDATE (used_at) ON hansa.api_keys TO hansa_system;
GRANT SELECT (tenant_id, name, suspended) ON hansa.agents TO hansa_system;
GRANT SELECT (tenant_id, id, session_id, agent, state, gate, pool, priority, epoch, takeovers, writes, worker, active, claimed_at, lease_until,
  cancel_requested_at, suspend_requested_at, started_at) ON hansa.runs TO hansa_system;
GRANT UPDATE (state, epoch, takeovers, writes, worker, active, claimed_at, lease_until, started_at) ON hansa.runs TO hansa_system;
GRANT SELECT (tenant_id, run_id, step, kind, look_at), UPDATE (look_at) ON hansa.waits TO hansa_system;
GRANT SELECT (created_at), DELETE ON hansa.idempotency_keys TO hansa_system;
GRANT SELECT ON hansa.alembic_version TO hansa_app, hansa_system;
