"""Where created voices are kept: a volume or a bucket that gateways and TTS pods share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from stepaudio_operator.spec.fields import RELATIVE_PATH, Model, Name, Rule
from stepaudio_operator.spec.pod import LocalReference

BUCKET = r"^[a-z0-9][-a-z0-9.]*[a-z0-9]$"
ENDPOINT = r"^https?://[^/]+/?$"
REGION = r"^[a-z0-9-]+$"

Folder = Annotated[str, StringConstraints(pattern=RELATIVE_PATH, min_length=1, max_length=512)]


class VoiceVolume(Model):
    """A volume that exists already; pods on several nodes need the access mode ReadWriteMany."""

    claim_name: Name
    sub_path: Folder | None = Field(default=None, description="Folder on the volume.")


class VoiceBucket(Model):
    """A bucket of S3 or of a server that speaks its protocol, conditional writes included."""

    bucket: Annotated[str, StringConstraints(pattern=BUCKET, min_length=3, max_length=63)]
    prefix: Folder | None = Field(default=None, description="Folder in the bucket.")
    endpoint: Annotated[str, StringConstraints(pattern=ENDPOINT, max_length=512)] | None = Field(
        default=None, description="URL of the server; AWS's own where it is left out."
    )
    region: Annotated[str, StringConstraints(pattern=REGION, min_length=1, max_length=64)] | None = Field(
        default=None, description="us-east-1 where it is left out."
    )
    secret_ref: LocalReference | None = Field(
        default=None,
        description=(
            "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; left out, the node's identity is used."
        ),
    )


class VoiceStore(Model):
    """The store: exactly one of its fields."""

    pvc: VoiceVolume | None = None
    s3: VoiceBucket | None = None

    RULES = (
        Rule(
            cel="has(self.pvc) != has(self.s3)",
            message="set exactly one of pvc and s3",
            field="pvc",
            holds=lambda s: (s.pvc is None) != (s.s3 is None),
        ),
    )


class Voices(Model):
    """Voices that users create through the API."""

    store: VoiceStore
    watermark: bool = Field(
        default=True, description="Whether speech in created voices carries an inaudible mark."
    )
