"""The start-up check: the process refuses to serve when the database would not keep tenants apart.

Reads only the catalogue. Each finding names the table or role and the SQL that mends it.
"""

from hansa.db.pool import Database
from hansa.db.revision import HEAD
from hansa.errors import Misconfigured

ROLE = """
SELECT current_user AS role, rolsuper, rolbypassrls, pg_has_role(current_user, 'hansa_owner', 'MEMBER') AS owner
FROM pg_roles WHERE rolname = current_user
"""
TABLES = """
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
  EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant' AND p.polcmd = '*'
    AND pg_get_expr(p.polqual, p.polrelid) = '(tenant_id = ( SELECT hansa.tenant() AS tenant))'
    AND pg_get_expr(p.polwithcheck, p.polrelid) = '(tenant_id = ( SELECT hansa.tenant() AS tenant))') AS policy,
  ARRAY(SELECT p.polname FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname <> 'tenant' AND p.polpermissive
    AND (p.polroles && ARRAY[0::oid, 'hansa_app'::regrole::oid]) ORDER BY p.polname) AS open
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


async def check(database: Database) -> None:
    """Raise `Misconfigured` unless roles, policies and revision are as they must be."""
    found = await findings(database)
    if found:
        raise Misconfigured("the database would not keep tenants apart: " + "; ".join(found), hint="Mend what is named, then start again.")


async def findings(database: Database) -> list[str]:
    """All that is not as it must be, each with what mends it."""
    findings: list[str] = []
    app, (system,) = await database.call_row(ROLE), await database.system(ROLE)
    for login, variable, wanted in ((app, "APP", "hansa_app"), (system, "SYSTEM", "hansa_system")):
        if login is None or login["rolsuper"] or login["rolbypassrls"] or login["owner"]:
            role = login["role"] if login else "?"
            findings.append(f"HANSA_DATABASE_{variable}_URL logs in as {role}, which is above row-level security; use the role {wanted}")
    revision = (
        await database.call("SELECT version_num FROM hansa.alembic_version")
        if await database.call("SELECT to_regclass('hansa.alembic_version') IS NOT NULL")
        else None
    )
    if revision != HEAD:
        findings.append(f"the schema is at revision {revision}, this code needs {HEAD}; run `hansa migrate`")
    else:
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
