"""The start-up check: the process refuses to serve when the database would not keep tenants apart.

Reads only the catalogue, and whose database it is. Each finding names the table or role and the SQL that mends it.
"""

from uuid import UUID

from hansa.db import defining
from hansa.db.pool import Database
from hansa.db.revision import HEAD
from hansa.errors import Misconfigured
from hansa.ids import tenant_id

ROLE = """
SELECT current_user AS role, rolsuper, rolbypassrls, pg_has_role(current_user, 'hansa_owner', 'MEMBER') AS owner,
  ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.rolname <> current_user AND pg_has_role(current_user, r.oid, 'MEMBER') AND (
    r.rolsuper OR r.rolbypassrls OR r.rolname IN ('hansa_system', 'pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files',
      'pg_write_server_files', 'pg_execute_server_program')) ORDER BY r.rolname) AS beyond
FROM pg_roles WHERE rolname = current_user
"""
"""Who is logged in, and which roles, that reach beyond a tenant, it could take on."""
TABLES = """
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
  EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant' AND p.polcmd = '*'
    AND pg_get_expr(p.polqual, p.polrelid) = '(tenant_id = ( SELECT hansa.tenant() AS tenant))'
    AND pg_get_expr(p.polwithcheck, p.polrelid) = '(tenant_id = ( SELECT hansa.tenant() AS tenant))') AS policy,
  ARRAY(SELECT p.polname FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname <> 'tenant' AND p.polpermissive
    AND (p.polroles && ARRAY[0::oid, 'hansa_app'::regrole::oid]) ORDER BY p.polname) AS open,
  pg_get_userbyid(c.relowner) AS owner, pg_has_role('hansa_app', c.relowner, 'MEMBER') AS owned,
  has_table_privilege('hansa_app', c.oid, 'TRUNCATE, REFERENCES, TRIGGER') AS whole
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'hansa'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') ORDER BY c.relname
"""
VIEWS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'hansa'
WHERE c.relkind = 'm' OR (c.relkind = 'v' AND NOT coalesce(c.reloptions::text LIKE '%security_invoker=true%', false))
"""
DEFINERS = """
SELECT p.proname FROM pg_proc p
WHERE p.pronamespace = 'hansa'::regnamespace AND p.prosecdef AND has_function_privilege('hansa_app', p.oid, 'EXECUTE')
"""

UNBOUND = """
SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relnamespace = 'hansa'::regnamespace AND c.relkind IN ('r', 'p') AND NOT EXISTS (
  SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.conname = 'own' AND k.convalidated
    AND pg_get_constraintdef(k.oid) = format('CHECK ((tenant_id = %L::uuid))', $1::text))
ORDER BY c.relname
"""
"""Tables of a tenant's own database that would take rows of others."""


async def check(database: Database) -> None:
    """Raise `Misconfigured` unless roles, policies, revision and definitions are as they must be."""
    found = await findings(database)
    if found:
        raise Misconfigured("the database would not keep tenants apart: " + "; ".join(found), hint="Mend what is named, then start again.")


async def findings(database: Database, *, platform: UUID | None = None, running: bool = False) -> list[str]:
    """All that is not as it must be, each with what mends it. `platform`: of a tenant's own database, to which installation it belongs.
    `running`: for a process that is at work, which may be about to be replaced: that somebody has migrated meanwhile is nothing wrong."""
    findings: list[str] = []
    app, (system,) = await database.call_row(ROLE), await database.system(ROLE)
    for login, variable, wanted in ((app, "APP", "hansa_app"), (system, "SYSTEM", "hansa_system")):
        if login is None or login["rolsuper"] or login["rolbypassrls"] or login["owner"]:
            role = login["role"] if login else "?"
            findings.append(f"{_url(database, variable)} logs in as {role}, which is above row-level security; use the role {wanted}")
        else:
            findings.extend(
                f"{_url(database, variable)} logs in as {login['role']}, which may act as {each}; run: REVOKE {each} FROM {login['role']}"
                for each in login["beyond"]
            )
    revision = (
        await database.call("SELECT version_num FROM hansa.alembic_version")
        if await database.call("SELECT to_regclass('hansa.alembic_version') IS NOT NULL")
        else None
    )
    if revision is None or revision < HEAD or (revision > HEAD and not running):
        findings.append(f"the schema is at revision {revision}, this code needs {HEAD}; run `hansa migrate`")
    else:
        findings += await _whose(database, platform)
        findings += await _defined(database, running=running)
        for row in await database.system(TABLES):
            table = f"hansa.{row['relname']}"
            if not row["relrowsecurity"]:
                findings.append(f"row-level security is off on {table}; run: ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            if not row["relforcerowsecurity"]:
                findings.append(f"row-level security is not forced on {table}; run: ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
            if not row["policy"]:
                findings.append(
                    f"{table} has no tenant policy; run: CREATE POLICY tenant ON {table} TO hansa_app, hansa_owner "
                    "USING (tenant_id = (SELECT hansa.tenant())) WITH CHECK (tenant_id = (SELECT hansa.tenant()))"
                )
            if row["owned"]:
                findings.append(f"{table} is {row['owner']}'s, whose rights the app has; run: ALTER TABLE {table} OWNER TO hansa_owner")
            elif row["whole"]:  # which policies bound no part of
                findings.append(
                    f"the app may do to {table} what no policy looks at; "
                    f"run: REVOKE TRUNCATE, REFERENCES, TRIGGER ON {table} FROM hansa_app, PUBLIC"
                )
            findings.extend(
                f"the policy {name} opens {table} to the app beyond its tenant; run: DROP POLICY {name} ON {table}" for name in row["open"]
            )
        findings.extend(
            f"the app may call hansa.{row['proname']}, which has its owner's rights; "
            f"run: ALTER FUNCTION hansa.{row['proname']} SECURITY INVOKER"
            for row in await database.system(DEFINERS)
        )
        for row in await database.system(VIEWS):
            findings.append(f"view hansa.{row['relname']} bypasses row-level security; drop it or set security_invoker = true")
    return findings


def _url(database: Database, variable: str) -> str:
    return f"{variable.lower()}_url of {database.name}" if database.name else f"HANSA_DATABASE_{variable}_URL"


async def _whose(database: Database, platform: UUID | None) -> list[str]:
    """What is wrong with whose database it is."""
    (row,) = await database.system("SELECT platform, tenant, name FROM hansa.installation")
    if not database.name:
        return [f"it is the own database of a tenant, {row['name']!r}, and no platform's"] if row["tenant"] is not None else []
    own = tenant_id(database.name)
    if row["tenant"] is None:
        return ["it is not the tenant's yet; run `hansa migrate`"]
    if (row["platform"], row["tenant"]) != (platform, own):
        whose = "this installation" if row["platform"] == platform else "another installation"
        return [f"it is that of tenant {row['name']!r} of {whose}; make a new one"]
    found = await database.system(UNBOUND, str(own))
    return [f"hansa.{each['relname']} would take rows of other tenants; run `hansa migrate`" for each in found]


async def _defined(database: Database, *, running: bool) -> list[str]:
    """What is wrong with functions and views."""
    wanted = defining.read()
    (row,) = await database.system(defining.STANDING)
    if running and row["edition"] > wanted.edition:
        return []
    if row["digest"] != wanted.digest:
        has, needs = f"{row['edition']} ({row['digest'][:8] or 'none'})", f"{wanted.edition} ({wanted.digest[:8]})"
        return [f"the functions are those of edition {has}, this code needs {needs}; run `hansa migrate`"]
    missing = await database.system(defining.MISSING, *zip(*wanted.made, strict=True))
    return [f"the {row['kind'].lower()} hansa.{row['name']} is not there; run `hansa migrate`" for row in missing]
