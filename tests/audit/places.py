"""A trail to be tampered with, and what is kept of it outside."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from db.rows import A
from db.scratch import Scratch
from hansa.artifacts.folder import Folder
from hansa.audit.checkpoints import Outside
from hansa.audit.keeper import Keeper
from hansa.audit.model import Action, Actor, AuditEvent
from hansa.audit.reading import Trails
from hansa.audit.service import record
from hansa.audit.signing import Signer
from hansa.db.pool import Database
from hansa.settings import AuditSettings

SIGNER = Signer(b"a secret that is made for tests")


def outside(folder: Path) -> Outside:
    return Outside(Folder(folder))


def keeper(database: Database, place: Outside, *, days: int = 0, signer: Signer | None = SIGNER) -> Keeper:
    """One that seals at once."""
    return Keeper(database, place, signer, AuditSettings(seal_seconds=0.0, retention_days=days))


def trails(database: Database, place: Outside) -> Trails:
    return Trails(database, place, frozenset({SIGNER.public_key}))


async def write(database: Database, notes: Sequence[str], tenant: UUID = A) -> None:
    """An event each."""
    events = [AuditEvent(action=Action.OBJECT_CHANGED, actor=Actor(name="key:x"), target=f"Agent/{note}") for note in notes]
    async with database.tenant(tenant) as connection:
        await record(connection, *events)


async def tamper(scratch: Scratch, *sql: str) -> None:
    """Do as a superuser what only a superuser can: whatever guards the rows does not guard them from one."""
    async with scratch.owner.transaction():
        await scratch.execute("SET LOCAL session_replication_role = replica")
        for each in sql:
            await scratch.execute(each)


RESEAL = """
DO $$ DECLARE r record; h bytea := decode(repeat('00', 32), 'hex'); BEGIN
  FOR r IN SELECT * FROM hansa.audit_events WHERE tenant_id = '{tenant}' ORDER BY seq LOOP
    h := sha256(h || convert_to(hansa.audit_text(r.tenant_id, r.seq, r.at, r.event), 'UTF8'));
    UPDATE hansa.audit_events SET hash = h WHERE tenant_id = r.tenant_id AND seq = r.seq AND at = r.at;
  END LOOP;
  UPDATE hansa.audit_heads SET hash = h, seq = (SELECT max(seq) FROM hansa.audit_events WHERE tenant_id = '{tenant}')
  WHERE tenant_id = '{tenant}';
END $$
"""
"""Hashes a whole trail anew, its end too."""
