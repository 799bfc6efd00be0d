"""Proves that certificates say who and where, are kept while they are right, and are made anew else."""

import ssl
from pathlib import Path

import yaml
from cryptography import x509

from stepaudio_cluster.certs import Authority, ensure_signing_key, write_kubeconfig


def made(folder: Path) -> Authority:
    authority = Authority(folder, "ca")
    authority.ensure()
    return authority


def test_a_certificate_names_user_groups_and_hosts(tmp_path: Path) -> None:
    pair = made(tmp_path).issue("node", "system:node:a", ["system:nodes"], ["a", "10.0.0.1"])

    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.subject.rfc4514_string() == "CN=system:node:a,O=system:nodes"
    assert {str(name.value) for name in names} == {"a", "10.0.0.1"}


def test_a_pair_is_accepted_by_tls_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    authority = made(tmp_path)
    pair = authority.issue("server", "server", hosts=["localhost"])

    context = ssl.create_default_context(cafile=str(authority.pair.certificate))
    context.load_cert_chain(pair.certificate, pair.key)

    assert {path.stat().st_mode & 0o777 for path in (pair.key, authority.pair.key)} == {0o600}


def test_what_is_right_is_kept(tmp_path: Path) -> None:
    authority = made(tmp_path)
    first = authority.issue("server", "server", hosts=["localhost"]).certificate.read_bytes()

    authority.ensure()

    assert authority.issue("server", "server", hosts=["localhost"]).certificate.read_bytes() == first


def test_other_hosts_or_another_authority_make_a_new_one(tmp_path: Path) -> None:
    authority = made(tmp_path)
    first = authority.issue("server", "server", hosts=["localhost"]).certificate.read_bytes()
    second = authority.issue("server", "server", hosts=["localhost", "10.0.0.1"]).certificate.read_bytes()
    authority.pair.certificate.unlink()
    authority.ensure()
    third = authority.issue("server", "server", hosts=["localhost", "10.0.0.1"]).certificate.read_bytes()

    assert len({first, second, third}) == 3


def test_the_signing_key_stays(tmp_path: Path) -> None:
    key = ensure_signing_key(tmp_path / "accounts.key")
    before = (key.read_bytes(), key.with_suffix(".pub").read_bytes())

    ensure_signing_key(key)

    assert (key.read_bytes(), key.with_suffix(".pub").read_bytes()) == before


def test_a_kubeconfig_stands_alone(tmp_path: Path) -> None:
    authority = made(tmp_path)
    client = authority.issue("admin", "admin", ["system:masters"])

    path = write_kubeconfig(tmp_path / "kubeconfig", "one", "https://10.0.0.1:6443", authority.pair, client)

    written = yaml.safe_load(path.read_text())
    assert written["current-context"] == "one"
    assert written["clusters"][0]["cluster"]["server"] == "https://10.0.0.1:6443"
    assert str(tmp_path) not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
