"""Every name that the operator gives or reads: API group, labels, annotations, ports, paths, environment.

The half that the runtime must agree on is the wire contract of `docs/architecture.md`; the runtime keeps
its own copy in `stepaudio_runtime/contract.py`, and `tests/contract` compares the two.
"""

from __future__ import annotations

import hashlib

# --- API
GROUP = "stepaudio.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
DEPLOYMENT_KIND = "StepAudioDeployment"
DEPLOYMENT_PLURAL = "stepaudiodeployments"
DEPLOYMENT_SHORT = "sad"
POOL_KIND = "StepAudioPool"
POOL_PLURAL = "stepaudiopools"
POOL_SHORT = "sap"
VOICE_KIND = "StepAudioVoice"
VOICE_PLURAL = "stepaudiovoices"
VOICE_SHORT = "sav"
DATA_JOB_KIND = "StepAudioDataJob"
DATA_JOB_PLURAL = "stepaudiodatajobs"
DATA_JOB_SHORT = "sadj"

FIELD_MANAGER = "stepaudio-operator"
# Owns `spec.replicas` of a pool whose component has `autoscaling`, once that has decided another number.
AUTOSCALER_FIELD_MANAGER = "stepaudio-operator-autoscaler"

# --- components
CHAT = "chat"
TTS = "tts"
TOKENIZER = "tokenizer"
GATEWAY = "gateway"
COMPONENTS = (CHAT, TTS, TOKENIZER, GATEWAY)
MODEL_COMPONENTS = (CHAT, TTS, TOKENIZER)  # pools that own their Pods; the gateway is a Deployment

# --- labels and annotations
LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_DEPLOYMENT = f"{GROUP}/deployment"
LABEL_POOL = f"{GROUP}/pool"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_MODELS = f"{GROUP}/models"  # on a volume of models, its Job and the pods of that: the volume's name
# on a Job that brings models to one node, or takes them away there, and the pods of that: the Job's name
LABEL_COPY = f"{GROUP}/models-copy"
LABEL_DATA_JOB = f"{GROUP}/data-job"  # on the volume of a data job, its Job and the pods of that: its name
LABEL_WHEN_UNUSED = f"{GROUP}/when-unused"  # on a volume of models: Keep or Delete
# In place of `pool` on a group's pods that do not lead: who counts or calls replicas does not meet them.
LABEL_WORKER_OF = f"{GROUP}/worker-of"
# Of LeaderWorkerSet: on its pods, the set's name and the place in the group (0: the leader).
LABEL_GROUP = "leaderworkerset.sigs.k8s.io/name"
LABEL_GROUP_RANK = "leaderworkerset.sigs.k8s.io/worker-index"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"  # Kueue's own
LABEL_QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
APP_NAME = "step-audio"
MANAGED_BY = "stepaudio-operator"
# Selects every child of every deployment: what the reflector watches.
CHILD_SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY}"

ANNOTATION_SLOT = f"{GROUP}/slot"  # the place of a pod in its pool, a number from 0
# on a pod that is put only on nodes which had its models when it was made
ANNOTATION_BOUND = f"{GROUP}/bound-to-models"
ANNOTATION_NODE = f"{GROUP}/node"  # on a Job that is about the models of one node: its name
ANNOTATION_ATTEMPT = f"{GROUP}/attempt"  # how often this place failed in a row before this pod
# on a deployment, for all its pools, or on one pool: any other value than before
ANNOTATION_RETRY = f"{GROUP}/retry"  # lifts the quarantines
ANNOTATION_RESTART = f"{GROUP}/restart"  # replaces every pod, as a change of the spec would
ANNOTATION_CANARY_FAILED = f"{GROUP}/canary-failed"  # on a pool: a revision, a space, why it failed
ANNOTATION_CANARY_WATCHED = f"{GROUP}/canary-watched"  # on a pool: the revision that gateways tell of
ANNOTATION_FORGIVE = f"{GROUP}/forgive"  # on a pool: any other value than before frees the nodes it avoids
# on a ControllerRevision, and on the Job of a data job: sha256 of the inputs it was made from
ANNOTATION_INPUTS = f"{GROUP}/inputs"
ANNOTATION_RELEASE = f"{GROUP}/release"  # on a ControllerRevision: which pods may work together
# on a pool, from its deployment: revisions that go on serving while a change of release is prepared
ANNOTATION_KEEP = f"{GROUP}/keep-revision"
ANNOTATION_CONDEMNED = f"{GROUP}/condemned-release"  # on a pool: a release that failed or is given up
ANNOTATION_TRIAL = f"{GROUP}/release-on-trial"  # on a pool: a release that has yet to take over the traffic
ANNOTATION_BACK = f"{GROUP}/fallback-release"  # on a pool: the release that all go back to if another fails

# --- conditions that stand beside those of kstatus
GPU_MEMORY_DRIFT = "GpuMemoryDrift"  # of a pool: its GPUs do not hold what was estimated

# --- lengths
NAME_LIMIT = 63  # a Service name and a label value
REVISION_DIGITS = 8
SLOT_DIGITS = 4  # up to 9999 places
# The longest child name is `{name}-tokenizer-{revision}-{slot}`.
DEPLOYMENT_NAME_LIMIT = NAME_LIMIT - len("-tokenizer") - 1 - REVISION_DIGITS - 1 - SLOT_DIGITS
POOL_NAME_LIMIT = DEPLOYMENT_NAME_LIMIT + len("-tokenizer")
# A StatefulSet's name and a hash of 10 digits are a label value of its pods; LeaderWorkerSet's is `{set}-0`.
GROUP_DEPLOYMENT_NAME_LIMIT = (
    NAME_LIMIT - 11 - len("-0") - len("-chat") - 1 - REVISION_DIGITS - 1 - SLOT_DIGITS
)
DATA_JOB_NAME_LIMIT = NAME_LIMIT - len("-data")  # its Job's name is a label value of the pods

# --- pods
POOL_PORT = 8000
GATEWAY_PORT = 8080
GATEWAY_SERVICE_PORT = 80
PORT_NAME = "http"
CONTAINER = "main"
WAITING_CONTAINER = "models"  # of a pod whose models lie on its node: waits until they are there
USER_ID = 10001
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
STATUS_PATH = "/status"
METRICS_PATH = "/metrics"
FIGURES_PATH = "/stepaudio/figures"  # of a gateway: what it has seen of each revision
DECLARED_VOICES_PATH = "/stepaudio/voices"  # of a gateway: what has become of the voices that stand in Git
# Upper bounds of the counts in those figures (s); one more count holds what took longer.
FIRST_BYTE_BOUNDS_S = tuple(round(0.01 * 1.2**n, 4) for n in range(53))  # 0.01 to 131
MODELS_MOUNT = "/models"
NANO_MODELS_DIR = "/opt/stepaudio/nano"
API_KEYS_MOUNT = "/etc/stepaudio/keys"
VOICES_MOUNT = "/var/lib/stepaudio/voices"
DATA_MOUNT = "/var/lib/stepaudio/data"  # of a data job: where the data are made
TERMINATION_LOG = "/dev/termination-log"
TMP_MOUNT = "/tmp"  # noqa: S108 - an emptyDir of the pod, not a shared folder
SHM_MOUNT = "/dev/shm"  # noqa: S108 - a memory emptyDir of the pod
GPU_RESOURCE = "nvidia.com/gpu"
# Labels of a node by GPU feature discovery.
LABEL_GPU_PRODUCT = "nvidia.com/gpu.product"
LABEL_GPU_MEMORY = "nvidia.com/gpu.memory"  # MiB of one GPU
GPU_CLAIM = "gpu"  # of a pod: its claim of devices, and the request in it
EXIT_CONFIGURATION = 78  # EX_CONFIG: the pod's termination message says what a person has to change
EXIT_UNAVAILABLE = 75  # EX_TEMPFAIL: something outside the pod failed; that condemns no revision
GRACE_MARGIN_S = 30  # terminationGracePeriodSeconds is the drain timeout plus this
PRE_STOP_S = 5  # a leaving pod serves on this long, until every proxy has heard that it leaves

# --- images
IMAGE_GATEWAY = "stepaudio/gateway"
IMAGE_RUNTIME_CPU = "stepaudio/runtime-cpu"
IMAGE_RUNTIME_CUDA = "stepaudio/runtime-cuda"

# --- environment of the pods
ENV_MODELS_DIR = "STEPAUDIO_MODELS_DIR"
ENV_MODELS_SOURCE = "STEPAUDIO_MODELS_SOURCE"  # of the Job that fetches: JSON, where from
ENV_MODELS_TOKEN = "STEPAUDIO_MODELS_TOKEN"  # noqa: S105 - a name; of the Job: the hub's token
ENV_RECIPE = "STEPAUDIO_RECIPE"  # of the Job that makes training data: its recipe, as JSON
ENV_DEPLOYMENT = "STEPAUDIO_DEPLOYMENT"
ENV_COMPONENT = "STEPAUDIO_COMPONENT"
ENV_REVISION = "STEPAUDIO_REVISION"
ENV_POD_NAME = "POD_NAME"
ENV_POD_NAMESPACE = "POD_NAMESPACE"
ENV_DRAIN_TIMEOUT_S = "STEPAUDIO_DRAIN_TIMEOUT_S"
ENV_DTYPE = "STEPAUDIO_DTYPE"
ENV_TENSOR_PARALLEL = "STEPAUDIO_TENSOR_PARALLEL"
ENV_NODES = "STEPAUDIO_NODES"  # pods that one replica consists of
ENV_NODE_RANK = "STEPAUDIO_NODE_RANK"  # which of them this is; 0 leads
ENV_LEADER_ADDRESS = "STEPAUDIO_LEADER_ADDRESS"
GROUP_LEADER_VARIABLE = "LWS_LEADER_ADDRESS"  # LeaderWorkerSet puts it before all of ours
ENV_MAX_MODEL_LEN = "STEPAUDIO_MAX_MODEL_LEN"
ENV_GPU_MEMORY_UTILIZATION = "STEPAUDIO_GPU_MEMORY_UTILIZATION"
ENV_QUANTIZATION = "STEPAUDIO_QUANTIZATION"
ENV_CANARY_INTERVAL_S = "STEPAUDIO_CANARY_INTERVAL_S"
ENV_STALL_TIMEOUT_S = "STEPAUDIO_STALL_TIMEOUT_S"
ENV_DEVICE = "STEPAUDIO_DEVICE"
ENV_KV_CACHE_GIB = "STEPAUDIO_KV_CACHE_GIB"
ENV_ROUTING_CONFIGMAP = "STEPAUDIO_ROUTING_CONFIGMAP"
ENV_API_KEYS_DIR = "STEPAUDIO_API_KEYS_DIR"
ENV_MAX_AUDIO_S = "STEPAUDIO_MAX_AUDIO_S"
ENV_MAX_IN_FLIGHT = "STEPAUDIO_MAX_IN_FLIGHT"
ENV_WITH_TOKENIZER = "STEPAUDIO_WITH_TOKENIZER"  # of a TTS pod: on where it holds the tokenizer too
ENV_VOICES_URL = "STEPAUDIO_VOICES_URL"
ENV_VOICES_CONFIGMAP = "STEPAUDIO_VOICES_CONFIGMAP"
ENV_WATERMARK = "STEPAUDIO_WATERMARK"
ENV_HOME = "HOME"
# of an S3 client
ENV_AWS_ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
ENV_AWS_SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - a name
ENV_AWS_REGION = "AWS_REGION"
ENV_AWS_ENDPOINT_URL = "AWS_ENDPOINT_URL"

ROUTING_KEY = "routing.json"
VOICES_KEY = "voices.json"


def pool(deployment: str, component: str) -> str:
    """Name of a pool and of its Service: `prod-chat`."""
    return f"{deployment}-{component}"


def revision(pool_name: str, hash8: str) -> str:
    """Name of a pool's ControllerRevision: `prod-chat-1f0c22aa`."""
    return f"{pool_name}-{hash8}"


def pod(pool_name: str, hash8: str, slot: int) -> str:
    """Name of the pod of a revision in a slot: `prod-chat-1f0c22aa-0`."""
    return f"{pool_name}-{hash8}-{slot}"


def leader(group: str) -> str:
    """Name of the pod that leads a group: `prod-chat-1f0c22aa-0-0`."""
    return f"{group}-0"


def models(hash8: str) -> str:
    """Name of a volume of downloaded models and of the Job that fills it: `models-1f0c22aa`."""
    return f"models-{hash8}"


def copy(folder: str, node: str) -> str:
    """Name of the Job that brings the models of `folder` to `node`: `models-1f0c22aa-9b1d03ce`."""
    return f"{folder}-{hashlib.sha256(node.encode()).hexdigest()[:REVISION_DIGITS]}"


def removal(copy_name: str) -> str:
    """Name of the Job that takes them away there: `models-1f0c22aa-9b1d03ce-gone`."""
    return f"{copy_name}-gone"


def copy_of(job: str) -> str:
    """Name of the Job that brings what the Job of this name brings or takes away."""
    return job.removesuffix("-gone")


def data(data_job: str) -> str:
    """Name of the Job of a data job, and of the volume that is made for it: `nano-speech-data`."""
    return f"{data_job}-data"


def routing(deployment: str) -> str:
    """Name of the routing ConfigMap: `prod-routing`."""
    return f"{deployment}-routing"


def voices(deployment: str) -> str:
    """Name of the ConfigMap with the voices that stand in Git: `prod-voices`."""
    return f"{deployment}-voices"


def gateway_identity(deployment: str) -> str:
    """Name of the gateway's ServiceAccount, Role and RoleBinding: `prod-gateway`."""
    return pool(deployment, GATEWAY)


def child_labels(deployment: str, component: str | None = None) -> dict[str, str]:
    """Labels of every child of `deployment`; `component` is left out where a child serves them all."""
    labels = {
        LABEL_NAME: APP_NAME,
        LABEL_INSTANCE: deployment,
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_DEPLOYMENT: deployment,
    }
    if component is not None:
        labels[LABEL_COMPONENT] = component
    return labels


def pool_selector(pool_name: str) -> dict[str, str]:
    """Labels that select the pods of one pool, of every revision."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_POOL: pool_name}
