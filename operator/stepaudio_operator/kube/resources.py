"""Every API resource that the operator touches: its path and the verbs used on it.

The verbs are the whole of what the chart's ClusterRole has to grant; a test compares the two.
"""

from dataclasses import dataclass

READ = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API server."""

    group: str
    """API group, "" for the core group."""
    version: str
    plural: str
    kind: str
    verbs: frozenset[str]
    """RBAC verbs that the operator uses."""
    status_verbs: frozenset[str] = frozenset()
    """RBAC verbs on the status subresource."""
    optional: bool = False
    """Whether a cluster may do without: its absence is no trouble."""

    @property
    def api_version(self) -> str:
        """`apiVersion` as written in an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path below the server's address; without a namespace it spans the whole cluster."""
        parts = ["/apis", self.group] if self.group else ["/api"]
        parts.append(self.version)
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


_OWNED = READ | {"create", "patch", "delete"}

DEPLOYMENTS = Resource(
    "stepaudio.io", "v1alpha1", "stepaudiodeployments", "StepAudioDeployment", READ, frozenset({"patch"})
)
POOLS = Resource("stepaudio.io", "v1alpha1", "stepaudiopools", "StepAudioPool", _OWNED, frozenset({"patch"}))
VOICES = Resource("stepaudio.io", "v1alpha1", "stepaudiovoices", "StepAudioVoice", READ, frozenset({"patch"}))
DATA_JOBS = Resource(
    "stepaudio.io", "v1alpha1", "stepaudiodatajobs", "StepAudioDataJob", READ, frozenset({"patch"})
)
PODS = Resource("", "v1", "pods", "Pod", READ | {"create", "delete"})
SERVICES = Resource("", "v1", "services", "Service", _OWNED)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", _OWNED)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", _OWNED)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", _OWNED)
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", _OWNED)
APP_DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", _OWNED)
REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision", READ | {"create", "delete"})
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", _OWNED)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", _OWNED)
JOBS = Resource("batch", "v1", "jobs", "Job", _OWNED)
GROUPS = Resource(
    "leaderworkerset.x-k8s.io",
    "v1",
    "leaderworkersets",
    "LeaderWorkerSet",
    READ | {"create", "delete"},
    optional=True,
)
# Not watched: an older cluster has none.
CLAIM_TEMPLATES = Resource(
    "resource.k8s.io",
    "v1",
    "resourceclaimtemplates",
    "ResourceClaimTemplate",
    frozenset({"create"}),
    optional=True,
)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", frozenset({"create"}))
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", frozenset({"get", "create", "update"}))
# Never read by the operator: it may only grant the gateway's Role what it holds itself.
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", READ)

OURS = (DEPLOYMENTS, POOLS, VOICES, DATA_JOBS)
"""What this project's CRDs define."""
ALL = (
    *OURS,
    PODS,
    SERVICES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    ROLES,
    ROLE_BINDINGS,
    APP_DEPLOYMENTS,
    REVISIONS,
    DISRUPTION_BUDGETS,
    CLAIMS,
    JOBS,
    GROUPS,
    CLAIM_TEMPLATES,
    EVENTS,
    LEASES,
    ENDPOINT_SLICES,
)
