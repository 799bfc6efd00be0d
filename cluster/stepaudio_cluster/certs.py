"""Certificate authorities, certificates and kubeconfigs of a cluster; made once, renewed near their end."""

import base64
import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=3650)
RENEW_BEFORE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs certificates into `folder`; its own pair is `NAME.crt` and `NAME.key` there."""

    folder: Path
    name: str

    @property
    def pair(self) -> Pair:
        """The authority's own certificate."""
        return Pair(self.folder / f"{self.name}.crt", self.folder / f"{self.name}.key")

    def ensure(self) -> Pair:
        """Makes the authority where it is missing or near its end."""
        if _lasts(self.pair.certificate):
            return self.pair
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        usage = _key_usage(signs_certificates=True)
        builder = _builder(subject, subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        _write(self.pair, builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)
        return self.pair

    def issue(self, name: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Pair:
        """A certificate for `user` in `groups`, and for a server under `hosts` where there are any.

        It is kept while it lasts, is signed by the present authority and covers the same hosts.
        """
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if (
            _lasts(pair.certificate)
            and self._signed(pair.certificate)
            and _hosts(pair.certificate) == set(hosts)
        ):
            return pair
        authority = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        authority_key = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - `ensure` writes no other kind
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = _builder(subject, authority.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(host) for host in hosts]), False
            )
        _write(pair, builder.sign(authority_key, hashes.SHA256()), key)
        return pair

    def _signed(self, certificate: Path) -> bool:
        authority = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        try:
            x509.load_pem_x509_certificate(certificate.read_bytes()).verify_directly_issued_by(authority)
        except Exception:
            return False
        return True


def ensure_signing_key(path: Path) -> Path:
    """The key that signs service account tokens; `path` with suffix `.pub` holds its public half."""
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        path.with_suffix(".pub").write_bytes(public)
        _write_key(path, key)
    return path


def write_kubeconfig(path: Path, context: str, server: str, authority: Pair, client: Pair) -> Path:
    """A kubeconfig that stands alone: it holds the certificates themselves. Written only when it differs."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": _base64(authority.certificate)},
            }
        ],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
    }
    text = yaml.safe_dump(content, sort_keys=False)
    if not path.exists() or path.read_text() != text:
        path.touch(mode=0o600)
        path.write_text(text)
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    # Valid from a little in the past: clocks of virtual machines jump.
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + LIFETIME)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts(certificate: Path) -> set[str]:
    extensions = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _lasts(certificate: Path) -> bool:
    if not certificate.exists() or not certificate.with_suffix(".key").exists():
        return False
    end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return end - datetime.datetime.now(datetime.UTC) > RENEW_BEFORE


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _write_key(pair.key, key)
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
