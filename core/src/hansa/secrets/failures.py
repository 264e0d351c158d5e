"""What can go wrong with secrets, beside what the rest of the platform knows.

SecretsAway(Unavailable)    503  secrets_away       whoever keeps keys or values is away: retry, nothing is lost
SecretsRefused(HansaError)  503  secrets_refused    it answers no: the operator must mend something
"""

from hansa.errors import HansaError, Unavailable


class SecretsAway(Unavailable):
    """The key provider or secret source does not answer for now: sealed, too busy, or not reachable."""

    code, title = "secrets_away", "Secrets unavailable for now"


class SecretsRefused(HansaError):
    """The key provider or secret source answers no, or is not set up: the operator must mend what is named. No retry helps before."""

    code, status, title, exit_code = "secrets_refused", 503, "Secrets can't be used", 78
