"""From the credentials that an object names to the value: an environment variable that the operator admits, or a secret of the tenant.

Whatever is looked up is struck out of texts from then on, variables too. Who asks does so in a `narrowing_within`, since a secret that
is tied to hosts lets its holder send requests nowhere else. Warning: `value` gives a secret; see `service`.
"""

from collections.abc import Container
from uuid import UUID

from hansa.errors import HansaError, Unavailable
from hansa.secrets.redaction import Redactor
from hansa.secrets.variables import Variables
from hansa.tenants.secrets.service import MissingSecret, TenantSecrets
from hansa_crds import Credentials, SecretRef


class NotUsable(HansaError):
    """The credentials that an object names can't be used by it, or are not there."""

    code, status, title, exit_code = "credentials_not_usable", 409, "Credentials can't be used", 78


class Lookup:
    """Finds values for one process. Without `secrets`, as in a replay, no secret of a tenant is there."""

    def __init__(self, variables: Variables, secrets: TenantSecrets | None = None, redactor: Redactor | None = None) -> None:
        self._variables = variables
        self._secrets = secrets
        self.redactor = redactor or Redactor()

    def refusal(self, credentials: Credentials | None, known: Container[str] | None = None) -> str:
        """Why these credentials can't be used, for people; empty: they can. `known`: names of the tenant's secrets, if asked."""
        if credentials is None:
            return ""
        if credentials.env is not None:
            return self._variables.refusal(credentials.env)
        if known is not None and (credentials.secret or "") not in known:
            return f"there is no secret {credentials.secret!r}; set it: hansa secrets set {credentials.secret}"
        return ""

    def is_set(self, credentials: Credentials) -> bool:
        """Whether there is something to be looked up; of a secret that is known when it is looked up."""
        return credentials.env is None or bool(self._variables.value(credentials.env))

    async def value(self, tenant_id: UUID, credentials: Credentials) -> str:
        """The value. Raises `NotUsable`, `MissingSecret`, `SecretsRefused`, `Damaged`, or an `Unavailable` of what keeps it."""
        refusal = self.refusal(credentials)
        if refusal:
            raise NotUsable(refusal, hint="Name another variable in spec.credentials.env, or let the operator admit this one.")
        if credentials.env is None:
            return await self.secret(tenant_id, SecretRef(secret=credentials.secret or "", key=credentials.key))
        value = self._variables.value(credentials.env)
        if not value:
            raise NotUsable(
                f"the environment variable {credentials.env}, which spec.credentials.env names, is not set in this process",
                hint="Set it for the control plane and for the workers, or name a secret of the tenant by spec.credentials.secret.",
            )
        self.redactor.learn(tenant_id, credentials.env, value)
        return value

    async def secret(self, tenant_id: UUID, ref: SecretRef) -> str:
        """The value of a secret of the tenant."""
        if self._secrets is None:
            raise MissingSecret(f"there is no secret {ref.secret!r} here")
        return await self._secrets.value(tenant_id, ref.secret, ref.key)


def passes(error: HansaError) -> bool:
    """Whether what could not be looked up may be there later."""
    return isinstance(error, Unavailable)
