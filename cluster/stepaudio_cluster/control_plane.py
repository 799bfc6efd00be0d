"""etcd, API server, controller manager and scheduler: their certificates and command lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepaudio_cluster.binaries import Programs
from stepaudio_cluster.certs import Authority, Pair, ensure_signing_key, write_kubeconfig
from stepaudio_cluster.kubeapi import Api
from stepaudio_cluster.settings import Addresses, Mode, Places

# Every request leaves one line, so that tests can count what somebody wrote.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/metrics"]
- level: Metadata
"""
# Calls a second of controller manager and scheduler: the defaults of 20 to 50 are for shared servers.
CALLS = ("--kube-api-qps=1000", "--kube-api-burst=1000")
NOT_ON_LOOPBACK = "192.0.2.1"  # RFC 5737: an API server refuses to announce loopback, and nobody asks


@dataclass(frozen=True)
class Credentials:
    """Every certificate and kubeconfig of one cluster."""

    authority: Pair
    etcd_authority: Pair
    etcd: Pair
    etcd_client: Pair
    front_authority: Pair  # signs for the API server when it forwards to an aggregated one
    front_client: Pair
    server: Pair
    kubelet_client: Pair
    kubelet: Pair
    admin: Pair
    signing_key: Path
    kubeconfigs: dict[str, Path]  # program -> its kubeconfig


def ensure_credentials(places: Places, addresses: Addresses) -> Credentials:
    """Makes what is missing below the state folder."""
    folder = places.state / "certs"
    authority, etcd, front = (Authority(folder / name, "ca") for name in ("kubernetes", "etcd", "front"))
    pairs = [one.ensure() for one in (authority, etcd, front)]
    service = "kubernetes.default.svc.cluster.local"
    names = ["localhost", *(service.rsplit(".", cut)[0] for cut in range(5)), service]
    hosts = [*dict.fromkeys(names), "127.0.0.1", addresses.node, addresses.first_service]
    clients = {
        "controller-manager": authority.issue("controller-manager", "system:kube-controller-manager"),
        "scheduler": authority.issue("scheduler", "system:kube-scheduler"),
        "proxy": authority.issue("proxy", "system:kube-proxy"),
        "kubelet": authority.issue(
            "kubelet", f"system:node:{places.name}", ["system:nodes"], [places.name, addresses.node]
        ),
    }
    admin = authority.issue("admin", "kubernetes-admin", ["system:masters"])
    kubeconfigs = {
        program: write_kubeconfig(
            folder / f"{program}.kubeconfig", places.name, addresses.server, pairs[0], client
        )
        for program, client in clients.items()
    }
    write_kubeconfig(places.kubeconfig, places.name, addresses.server, pairs[0], admin)
    return Credentials(
        authority=pairs[0],
        etcd_authority=pairs[1],
        etcd=etcd.issue("etcd", "etcd", hosts=["localhost", "127.0.0.1"]),
        etcd_client=etcd.issue("client", "kube-apiserver"),
        front_authority=pairs[2],
        front_client=front.issue("client", "front-proxy-client"),
        server=authority.issue("server", "kube-apiserver", hosts=hosts),
        kubelet_client=authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"]),
        kubelet=clients["kubelet"],
        admin=admin,
        signing_key=ensure_signing_key(folder / "service-accounts.key"),
        kubeconfigs=kubeconfigs,
    )


def api(credentials: Credentials, addresses: Addresses) -> Api:
    """The administrator's connection to the API server."""
    return Api(addresses.node, addresses.api_port, credentials.authority.certificate, credentials.admin)


def etcd(programs: Programs, places: Places, addresses: Addresses, credentials: Credentials) -> list[str]:
    """One member on loopback, both ports behind client certificates."""
    client = f"https://127.0.0.1:{addresses.etcd_port}"
    peer = f"https://127.0.0.1:{addresses.etcd_peer_port}"
    own, trusted = credentials.etcd, str(credentials.etcd_authority.certificate)
    return [
        programs.path("etcd"),
        "--name=member",
        f"--data-dir={places.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=member={peer}",
        *(f"--cert-file={own.certificate}", f"--key-file={own.key}", "--client-cert-auth=true"),
        f"--trusted-ca-file={trusted}",
        *(
            f"--peer-cert-file={own.certificate}",
            f"--peer-key-file={own.key}",
            "--peer-client-cert-auth=true",
        ),
        f"--peer-trusted-ca-file={trusted}",
        # A cluster for trying things out may lose its last second in a power cut; disks without cache
        # would otherwise take most of the time of a test.
        "--unsafe-no-fsync=true",
        "--log-level=warn",
    ]


def apiserver(
    mode: Mode, programs: Programs, places: Places, addresses: Addresses, credentials: Credentials
) -> list[str]:
    """RBAC, audit log, aggregation; on loopback in mode `api`, on the namespace's address otherwise."""
    bind = addresses.node if mode is Mode.API else "0.0.0.0"  # noqa: S104 - of the namespace, not the host
    announce = NOT_ON_LOOPBACK if mode is Mode.API else addresses.node
    policy = places.state / "audit-policy.yaml"
    policy.write_text(AUDIT_POLICY)
    return [
        programs.path("kube-apiserver"),
        f"--bind-address={bind}",
        f"--secure-port={addresses.api_port}",
        f"--advertise-address={announce}",
        f"--endpoint-reconciler-type={'none' if mode is Mode.API else 'lease'}",
        f"--service-cluster-ip-range={addresses.services}",
        f"--etcd-servers=https://127.0.0.1:{addresses.etcd_port}",
        f"--etcd-cafile={credentials.etcd_authority.certificate}",
        f"--etcd-certfile={credentials.etcd_client.certificate}",
        f"--etcd-keyfile={credentials.etcd_client.key}",
        *_served_with(credentials.server),
        f"--client-ca-file={credentials.authority.certificate}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={credentials.signing_key.with_suffix('.pub')}",
        f"--service-account-signing-key-file={credentials.signing_key}",
        f"--kubelet-certificate-authority={credentials.authority.certificate}",
        f"--kubelet-client-certificate={credentials.kubelet_client.certificate}",
        f"--kubelet-client-key={credentials.kubelet_client.key}",
        # Logs and exec would otherwise look the node's name up.
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={credentials.front_authority.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={credentials.front_client.certificate}",
        f"--proxy-client-key-file={credentials.front_client.key}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={places.audit_log}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    ]


def controller_manager(
    mode: Mode, programs: Programs, addresses: Addresses, credentials: Credentials
) -> list[str]:
    """All controllers, and volumes on the host's disk for claims."""
    return [
        programs.path("kube-controller-manager"),
        *_client(credentials.kubeconfigs["controller-manager"]),
        *_unshared(mode),
        f"--client-ca-file={credentials.authority.certificate}",
        f"--root-ca-file={credentials.authority.certificate}",
        f"--cluster-signing-cert-file={credentials.authority.certificate}",
        f"--cluster-signing-key-file={credentials.authority.key}",
        f"--service-account-private-key-file={credentials.signing_key}",
        f"--service-cluster-ip-range={addresses.services}",
        "--use-service-account-credentials=true",
        "--enable-hostpath-provisioner=true",
        *CALLS,
    ]


def scheduler(mode: Mode, programs: Programs, credentials: Credentials) -> list[str]:
    """The scheduler with its default profile."""
    return [
        programs.path("kube-scheduler"),
        *_client(credentials.kubeconfigs["scheduler"]),
        *_unshared(mode),
        f"--client-ca-file={credentials.authority.certificate}",
        *CALLS,
    ]


def _client(kubeconfig: Path) -> Sequence[str]:
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
    )


def _unshared(mode: Mode) -> Sequence[str]:
    """One instance needs no election; on the host's own loopback the port might be somebody else's."""
    return (
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        *(["--secure-port=0"] if mode is Mode.API else []),
    )


def _served_with(pair: Pair) -> Sequence[str]:
    return (f"--tls-cert-file={pair.certificate}", f"--tls-private-key-file={pair.key}")
