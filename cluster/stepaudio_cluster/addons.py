"""What runs in the cluster before anybody's own objects: DNS and a default class of volumes."""

import socket
import struct
from typing import Any

from stepaudio_cluster.kubeapi import Api

RBAC = "/apis/rbac.authorization.k8s.io/v1"
SYSTEM = "/api/v1/namespaces/kube-system"
STORAGE_CLASS = "host-path"
DNS_LABELS = {"k8s-app": "kube-dns"}
DNS_DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
# Nothing outside the cluster is asked: other names are refused at once instead of timing out.
COREFILE = """\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    cache 5
    loadbalance
}
"""


def apply_storage(api: Api) -> None:
    """Claims without a class get a folder on the host's disk."""
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/host-path",
        "reclaimPolicy": "Delete",
    }
    api.apply(f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}", storage)


def apply_dns(api: Api, image: str, address: str) -> None:
    """CoreDNS as one pod behind the Service `kube-dns` at `address`."""
    for path, body in _dns_objects(image, address).items():
        api.apply(path, body)


def dns_answers(address: str) -> bool:
    """Whether the DNS at `address` knows the API server; what that one says of the DNS pod may be old."""
    name = b"".join(
        bytes([len(label)]) + label for label in b"kubernetes.default.svc.cluster.local".split(b".")
    )
    # RFC 1035: identity, "recursion desired", one question; the name, type A, class IN.
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(0.5)
        try:
            connection.connect((address, 53))
            connection.send(query)
            answer = connection.recv(512)
        except OSError:
            return False
    identity, flags, _, answers = struct.unpack(">4H", answer[:8])
    return identity == 1 and flags & 0xF == 0 and answers > 0


def _dns_objects(image: str, address: str) -> dict[str, dict[str, Any]]:
    system = {"namespace": "kube-system"}
    read = ["list", "watch"]
    return {
        f"{SYSTEM}/serviceaccounts/coredns": {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "coredns", **system},
        },
        f"{RBAC}/clusterroles/system:coredns": {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            ],
        },
        f"{RBAC}/clusterrolebindings/system:coredns": {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:coredns",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", **system}],
        },
        f"{SYSTEM}/configmaps/coredns": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", **system},
            "data": {"Corefile": COREFILE},
        },
        f"{SYSTEM}/services/kube-dns": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "labels": DNS_LABELS, **system},
            "spec": {
                "selector": DNS_LABELS,
                "clusterIP": address,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        },
        DNS_DEPLOYMENT: {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "coredns", "labels": DNS_LABELS, **system},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": DNS_LABELS},
                "template": {"metadata": {"labels": DNS_LABELS}, "spec": _dns_pod(image)},
            },
        },
    }


def _dns_pod(image: str) -> dict[str, Any]:
    return {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [{"operator": "Exists"}],
        # A simulated node would say that it runs, and nobody would answer.
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["kwok"]}]}
                    ]
                }
            }
        },
        "containers": [
            {
                "name": "coredns",
                "image": image,
                "imagePullPolicy": "Never",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                ],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 5},
                "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}, "limits": {"memory": "170Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
