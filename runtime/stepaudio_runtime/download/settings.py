"""Which source a download reads, from the JSON that the operator writes into the Job.

    {"huggingFace": {"endpoint"?, "organization"?, "revisions"?: {component: revision}}}
    {"modelScope":  {the same}}
    {"s3": {"bucket", "prefix"?, "endpoint"?, "region"?, "anonymous"?}}

and beside it `"components"?: ["chat", "tts", "tokenizer"]`: whose folders are wanted; all of them by default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from stepaudio_runtime.contract import CHAT_FOLDER, TOKENIZER_FOLDER, TTS_FOLDER, Component, Env
from stepaudio_runtime.download.remote import Source
from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.keys import read_key

FOLDERS: Mapping[Component, str] = {
    Component.CHAT: CHAT_FOLDER,
    Component.TTS: TTS_FOLDER,
    Component.TOKENIZER: TOKENIZER_FOLDER,
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Hub(_Part):
    endpoint: HttpUrl | None = None
    organization: str | None = None
    revisions: dict[Component, str] = {}


class _Bucket(_Part):
    bucket: Annotated[str, Field(min_length=1)]
    prefix: str = ""
    endpoint: HttpUrl | None = None
    region: str | None = None
    anonymous: bool = False


class _Wanted(_Part):
    huggingFace: _Hub | None = None  # noqa: N815 - the spec's own names
    modelScope: _Hub | None = None  # noqa: N815
    s3: _Bucket | None = None
    components: tuple[Component, ...] = tuple(FOLDERS)


def source_from(text: str, env: Mapping[str, str]) -> Source:
    """The source that `text` describes; the hub's token comes from `env`. Raises ConfigError."""
    cure = f"correct {Env.MODELS_SOURCE} or --source"
    try:
        said = _Wanted.model_validate(json.loads(text))
    except ValidationError as invalid:
        wrong = invalid.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        raise ConfigError(what=f"the model source's {place}: {wrong['msg']}", cure=cure) from None
    except ValueError as error:
        raise ConfigError(what=f"the model source is no JSON: {error}", cure=cure) from None
    parts = [said.huggingFace, said.modelScope, said.s3]
    if sum(part is not None for part in parts) != 1:
        what = "the model source names exactly one of huggingFace, modelScope and s3"
        raise ConfigError(what=what, cure=cure)
    wanted = [component for component in said.components if component in FOLDERS]
    if said.s3 is not None:
        from stepaudio_runtime.download.s3 import S3

        bucket = said.s3
        return S3(
            bucket.bucket,
            bucket.prefix,
            [FOLDERS[component] for component in wanted],
            endpoint=_plain(bucket.endpoint),
            region=bucket.region,
            anonymous=bucket.anonymous,
        )
    from stepaudio_runtime.download.hubs import (
        HUGGING_FACE,
        MODEL_SCOPE,
        ORGANIZATION,
        HuggingFace,
        ModelScope,
    )

    hub = said.huggingFace or said.modelScope or _Hub()
    kind, default = (HuggingFace, HUGGING_FACE) if said.huggingFace is not None else (ModelScope, MODEL_SCOPE)
    return kind(
        _plain(hub.endpoint) or default,
        hub.organization or ORGANIZATION,
        {FOLDERS[component]: hub.revisions.get(component) for component in wanted},
        read_key(env, Env.MODELS_TOKEN),
    )


def _plain(url: HttpUrl | None) -> str | None:
    """`url` without the slash that it is given at its end."""
    return None if url is None else str(url).rstrip("/")
