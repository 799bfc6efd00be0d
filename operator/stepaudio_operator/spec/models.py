"""The `models` part of the specs: where the model files are, and the volume that they are brought to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stepaudio_operator.spec.fields import (
    ABSOLUTE_PATH,
    DNS_LABEL,
    RELATIVE_PATH,
    LabelName,
    Model,
    Name,
    Quantity,
    Rule,
)
from stepaudio_operator.spec.pod import LocalReference

URL = r"^https?://[^ ]+$"
IMAGE_REFERENCE = r"^[a-zA-Z0-9][^ ]*$"
REPOSITORY_PART = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SECRET_KEY = r"^[-._a-zA-Z0-9]+$"  # noqa: S105 - a pattern

Url = Annotated[str, StringConstraints(pattern=URL, max_length=512)]
HubRevision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]
AccessMode = Literal["ReadWriteMany", "ReadWriteOnce"]
WhenUnused = Literal["Keep", "Delete"]


class ImageSource(Model):
    """The models lie in an image: the runtime's own, or with `reference` one that holds nothing else."""

    path: Annotated[str, StringConstraints(pattern=ABSOLUTE_PATH, min_length=2, max_length=512)] | None = (
        Field(default=None, description="Folder in the image; nano's own where it is left out.")
    )
    reference: (
        Annotated[str, StringConstraints(pattern=IMAGE_REFERENCE, min_length=1, max_length=512)] | None
    ) = Field(
        default=None,
        description=(
            "An image of model files alone, mounted as a volume: needs Kubernetes 1.33 and a container"
            " runtime with image volumes (containerd 2.1, CRI-O 1.31)."
        ),
    )


class PvcSource(Model):
    """The models lie on a volume that exists already, with the folders of the original download."""

    claim_name: Name
    sub_path: (
        Annotated[str, StringConstraints(pattern=RELATIVE_PATH, min_length=1, max_length=512)] | None
    ) = Field(default=None, description="Folder on the volume that holds Step-Audio-Tokenizer/ and the rest.")


class TokenReference(Model):
    """A key of a Secret in the deployment's namespace."""

    name: Name
    key: Annotated[str, StringConstraints(pattern=SECRET_KEY, min_length=1, max_length=253)] = "token"


class HubRevisions(Model):
    """A branch, tag or commit of each repository; a commit says best what is meant."""

    chat: HubRevision | None = None
    tts: HubRevision | None = None
    tokenizer: HubRevision | None = None


class HubSource(Model):
    """A model hub: the repositories Step-Audio-Chat, Step-Audio-TTS-3B and Step-Audio-Tokenizer in it."""

    endpoint: Url | None = Field(default=None, description="Another server that speaks the hub's protocol.")
    organization: (
        Annotated[str, StringConstraints(pattern=REPOSITORY_PART, min_length=1, max_length=96)] | None
    ) = Field(default=None, description="Whose repositories; stepfun-ai where it is left out.")
    revisions: HubRevisions | None = Field(
        default=None, description="The hub's default branch, as it is when the volume is filled, if left out."
    )
    token_secret_ref: TokenReference | None = None


class S3Source(Model):
    """A bucket with the folders of the original download; SHA256SUMS beside them is obeyed."""

    bucket: LabelName
    prefix: Annotated[str, StringConstraints(pattern=RELATIVE_PATH, min_length=1, max_length=512)] | None = (
        Field(default=None, description="What stands before the folders' names.")
    )
    endpoint: Url | None = Field(default=None, description="Of a store that is not Amazon's.")
    region: LabelName | None = None
    credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without it, anonymous.",
    )


class NodeLocal(Model):
    """The models lie on the nodes' own disks: every node that runs a pod has the files once."""

    claim_name: Name = Field(
        description=(
            "A claim of a volume that is another one on each of its nodes: a local PersistentVolume whose"
            " node affinity names all nodes that may run pods. The platform makes both, once a namespace."
        )
    )


class NodeFolder(NodeLocal):
    """A folder on the nodes' own disks, which pods wait for."""

    folder: Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]


class PoolModelSource(Model):
    """Where the model files are: exactly one of its fields."""

    image: ImageSource | None = None
    pvc: PvcSource | None = None
    node_local: NodeFolder | None = None

    RULES = (
        Rule(
            cel="[has(self.image), has(self.pvc), has(self.nodeLocal)].filter(x, x).size() == 1",
            message="set exactly one of image, pvc and nodeLocal",
            field="image",
            holds=lambda s: (s.image, s.pvc, s.node_local).count(None) == 2,
        ),
    )


class PoolModels(Model):
    """The model files."""

    source: PoolModelSource


_SOURCES = {
    "image": "image",
    "pvc": "pvc",
    "huggingFace": "hugging_face",
    "modelScope": "model_scope",
    "s3": "s3",
}
DOWNLOADED = ("huggingFace", "modelScope", "s3")


class ModelSource(Model):
    """Where the model files come from: exactly one of its fields."""

    image: ImageSource | None = None
    pvc: PvcSource | None = None
    hugging_face: HubSource | None = None
    model_scope: HubSource | None = None
    s3: S3Source | None = None

    RULES = (
        Rule(
            cel=f"[{', '.join(f'has(self.{name})' for name in _SOURCES)}].filter(x, x).size() == 1",
            message=f"set exactly one of {', '.join(_SOURCES)}",
            field="image",
            holds=lambda s: sum(getattr(s, name) is not None for name in _SOURCES.values()) == 1,
        ),
    )

    @property
    def downloaded(self) -> bool:
        """Whether the files are brought to a volume first."""
        return any(getattr(self, _SOURCES[name]) is not None for name in DOWNLOADED)


class Cache(Model):
    """The volume that downloaded models are brought to: one a revision of the models and namespace, or with
    `nodeLocal` a folder on each node.
    """

    size: Quantity | None = Field(default=None, description="Left out, nano has 1Gi, step-audio 320Gi.")
    storage_class_name: Name | None = Field(default=None, description="The cluster's default if left out.")
    access_mode: AccessMode = Field(
        default="ReadWriteMany",
        description="ReadWriteOnce keeps every pod of the deployment on one node.",
    )
    when_unused: WhenUnused = Field(
        default="Keep",
        description=(
            "Delete removes the volume (or the folders) when no stored revision names it any more, or no"
            " deployment is left."
        ),
    )
    node_local: NodeLocal | None = None

    RULES = (
        Rule(
            cel=(
                "!has(self.nodeLocal) || (!has(self.size) && !has(self.storageClassName)"
                " && self.accessMode == 'ReadWriteMany')"
            ),
            message="with nodeLocal the volume is the claim's: remove size, storageClassName and accessMode",
            field="nodeLocal",
            holds=lambda c: (
                c.node_local is None
                or (c.size is None and c.storage_class_name is None and c.access_mode == "ReadWriteMany")
            ),
        ),
    )


class Models(Model):
    """The model files."""

    source: ModelSource
    cache: Cache | None = None

    RULES = (
        Rule(
            cel=f"!has(self.cache) || {' || '.join(f'has(self.source.{name})' for name in DOWNLOADED)}",
            message="only models that are downloaded are cached: remove cache",
            field="cache",
            holds=lambda s: s.cache is None or s.source.downloaded,
        ),
    )


SOURCE_MESSAGE = (
    "no image holds the models of preset step-audio: set models.source to huggingFace, modelScope, s3 or"
    " pvc.claimName, a volume claim with the folders of the download"
)

IMAGE_PATH_CEL = (
    "self.preset != 'step-audio' || !has(self.models) || !has(self.models.source.image)"
    " || has(self.models.source.image.path) || has(self.models.source.image.reference)"
)

IMAGE_PATH_MESSAGE = "no image of ours holds the models of preset step-audio: say where yours has them"


def image_path_known(models: Models | PoolModels | None) -> bool:
    """Whether an image that holds models says where, or names the models' own image."""
    image = models.source.image if models is not None else None
    return image is None or image.path is not None or image.reference is not None
