"""A certificate authority for tests: certificates of servers and clients, as the files that are named to programs."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates for this machine, in a folder that every server's account may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority of the test")])
        self._certificate = self._signed(self._name, self._key, authority=True)
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, to: str = "", group: str = "") -> tuple[Path, Path]:
        """The files of a certificate and its key, made anew each time; `to`: what the files are called if not by the name; `group`:
        its organization, which is a user's group in Kubernetes."""
        key = ec.generate_private_key(ec.SECP256R1())
        named = [(x509.NameOID.ORGANIZATION_NAME, group), (x509.NameOID.COMMON_NAME, name)]
        certificate = self._signed(x509.Name([x509.NameAttribute(oid, text) for oid, text in named if text]), key)
        certificate_file, key_file = self._folder / f"{to or name}.pem", self._folder / f"{to or name}.key"
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_algorithm=serialization.NoEncryption()
        )
        for path, content in ((certificate_file, certificate.public_bytes(serialization.Encoding.PEM)), (key_file, text)):
            part = path.with_suffix(".part")
            part.write_bytes(content)
            part.replace(path)  # as a secret's volume or a renewing program does it
        return certificate_file, key_file

    def trust(self, *, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What a client believes, and the certificate that it shows."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if shown is not None:
            context.load_cert_chain(*shown)
        return context

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
