"""Raw objects to frozen specs: `StepAudioDeployment` and `StepAudioDataJob`, which users write, and
`StepAudioPool`, a deployment's child.

`parse_deployment`, `parse_data_job` and `parse_pool` are the only doors; raw dicts stop there. A field that
nobody set is `None`: the preset or whoever scales the pool decides then, and hashes of a pool's inputs see
only what was set. The CRDs are generated from these models (`crd.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from stepaudio_operator import names
from stepaudio_operator.errors import SpecError
from stepaudio_operator.spec.data import MAX_RECIPE, DataJobSpec
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import SERVICE_LABEL, Model, without_nulls
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.problems import problems_of

S = TypeVar("S", DeploymentSpec, PoolSpec, DataJobSpec)
M = TypeVar("M", bound=Model)


def parse_deployment(raw: Mapping[str, Any]) -> DeploymentSpec:
    """The spec of a whole StepAudioDeployment object. Raises SpecError with every problem found."""
    spec = _parse(DeploymentSpec, raw, names.DEPLOYMENT_NAME_LIMIT)
    nodes = spec.chat.gpu.nodes if spec.chat is not None and spec.chat.gpu is not None else None
    if (nodes or 1) > 1 and len(raw["metadata"]["name"]) > names.GROUP_DEPLOYMENT_NAME_LIMIT:
        raise SpecError([("metadata.name", GROUP_NAME_MESSAGE)])
    return spec


def parse_data_job(raw: Mapping[str, Any]) -> DataJobSpec:
    """The spec of a whole StepAudioDataJob object. Raises SpecError with every problem found."""
    spec = _parse(DataJobSpec, raw, names.DATA_JOB_NAME_LIMIT)
    if len(spec.recipe_json.encode()) > MAX_RECIPE:  # what no schema can say
        message = f"has more than {MAX_RECIPE:,} bytes as JSON: put texts into a file"
        raise SpecError([("spec.recipe", message)])
    return spec


def parse_pool(raw: Mapping[str, Any]) -> PoolSpec:
    """The spec of a whole StepAudioPool object. Raises SpecError with every problem found."""
    spec = _parse(PoolSpec, raw, names.POOL_NAME_LIMIT)
    if raw["metadata"]["name"] != names.pool(spec.deployment, spec.component):
        raise SpecError([("metadata.name", POOL_NAME_MESSAGE)])
    return spec


NAME_MESSAGE = (
    "a name has at most {limit} characters (its pods' names are longer), of a-z, 0-9 and '-',"
    " begins with a letter and ends with a letter or a digit"
)
GROUP_NAME_MESSAGE = (
    f"with chat.gpu.nodes above 1 a name has at most {names.GROUP_DEPLOYMENT_NAME_LIMIT} characters: those of"
    " a group's pods are longer"
)
POOL_NAME_MESSAGE = "a pool is named after its deployment and component: {deployment}-{component}"


def _parse(model: type[S], raw: Mapping[str, Any], limit: int) -> S:
    problems: list[tuple[str, str]] = []
    name = (raw.get("metadata") or {}).get("name")
    if not isinstance(name, str) or len(name) > limit or not re.fullmatch(SERVICE_LABEL[1:-1], name):
        problems.append(("metadata.name", NAME_MESSAGE.format(limit=limit)))
    spec, found = read(model, raw)
    problems += found
    if problems or spec is None:
        raise SpecError(problems)
    return spec


def read(model: type[M], raw: Mapping[str, Any]) -> tuple[M | None, list[tuple[str, str]]]:
    """The spec of a raw object, None where it has no such shape, and its problems: (path, message)."""
    try:
        # As JSON: there a list is a tuple and nothing else is converted.
        spec = model.model_validate_json(json.dumps(without_nulls(raw.get("spec") or {}, model), default=str))
    except ValidationError as invalid:
        return None, problems_of(invalid)
    return spec, spec.broken_rules("spec")
