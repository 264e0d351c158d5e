"""The server's certificate and the authorities of its clients, read from files and read again when these change.

Warning: a pair that can't be used stops the start, and is only logged later: then the one before stays.
"""

import os
import ssl

import structlog

from hansa.errors import Misconfigured
from hansa.settings import TlsSettings

log = structlog.stdlib.get_logger("hansa.server")
Mark = tuple[tuple[int, int, int], ...]


class Certificates:
    """What new connections are greeted with. `context` is None without TLS."""

    def __init__(self, settings: TlsSettings) -> None:
        """Raises `Misconfigured` when a file can't be used."""
        if not settings.cert_file and (settings.key_file or settings.client_ca_file):
            raise Misconfigured(
                "HANSA_SERVER_TLS_KEY_FILE or HANSA_SERVER_TLS_CLIENT_CA_FILE is set and HANSA_SERVER_TLS_CERT_FILE is not",
                hint="Name the file with the server's certificate: without it nothing is encrypted and no client certificate is asked for.",
            )
        self._settings = settings
        self._files = [path for path in (settings.cert_file, settings.key_file, settings.client_ca_file) if path]
        self._mark = _mark(self._files)
        self.context = _context(settings) if settings.cert_file else None

    def changed(self) -> bool:
        """Whether a file is another one than when it was last read."""
        return self.context is not None and _mark(self._files) != self._mark

    def renew(self) -> bool:
        """Read the files again; whether `context` is a new one."""
        if self.context is None:
            return False
        self._mark = _mark(self._files)
        try:
            self.context = _context(self._settings)
        except Misconfigured as error:
            log.error("server.certificate_kept", reason=error.detail)
            return False
        log.info("server.certificate_renewed", file=self._settings.cert_file)
        return True


def _mark(files: list[str]) -> Mark:
    """What changes with the files; of one that is away, which may be just being replaced, nothing."""
    found: list[tuple[int, int, int]] = []
    for path in files:
        try:
            seen = os.stat(path)
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


def _context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file or None, password=_no_passphrase)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"the certificate {settings.cert_file} can't be used with the key {settings.key_file or 'in the same file'}: {error}",
            hint="Both are PEM files, and the key is that of the first certificate, without a passphrase.",
        ) from error
    if settings.client_ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"the authorities {settings.client_ca_file} can't be read: {error}", hint="It is a PEM file with one certificate or more."
            ) from error
    return context


def _no_passphrase() -> str:
    raise Misconfigured("the server's private key has a passphrase", hint="Nobody is there to type it: store the key without one.")
