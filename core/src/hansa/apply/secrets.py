"""What is told of secrets that objects name: objects and secrets come in any order, so that a missing one is a note and no refusal."""

from hansa.db.pool import Connection
from hansa.tenants.secrets import store
from hansa_crds import HansaObject, ModelProvider, ToolServer


async def missing_secret(connection: Connection, found: HansaObject) -> str:
    """A note on credentials that are still to be set; empty: there is nothing to say."""
    credentials = found.spec.credentials if isinstance(found, ModelProvider | ToolServer) else None
    if credentials is None or credentials.secret is None or await store.read(connection, credentials.secret) is not None:
        return ""
    return (
        f"there is no secret {credentials.secret!r} yet: hansa secrets set {credentials.secret}, "
        'or in Kubernetes a Secret of that name with the label hansa.dev/secret: "true"'
    )
