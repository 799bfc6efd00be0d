"""The CustomResourceDefinitions, generated from the pydantic specs: `crd.render()` is their only source.

The schema is structural (every `$ref` inlined, no `anyOf null`), every string, list and map is bounded so
that CEL stays within the API server's cost budget, and a default stands only where neither a preset nor an
autoscaler decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from stepaudio_operator import crd_status as parts
from stepaudio_operator import data_job, names
from stepaudio_operator.crd_status import COUNT, TEXT, WORD
from stepaudio_operator.spec.data import DataJobSpec
from stepaudio_operator.spec.deployment import DeploymentSpec
from stepaudio_operator.spec.fields import SERVICE_LABEL, Model
from stepaudio_operator.spec.pool import PoolSpec
from stepaudio_operator.spec.reading import GROUP_NAME_MESSAGE, NAME_MESSAGE, POOL_NAME_MESSAGE
from stepaudio_operator.spec.voice import UNNAMED_MESSAGE, VoiceSpec

_BOUNDS = {"ge": "minimum", "le": "maximum"}
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


class _PlainDumper(yaml.SafeDumper):
    """YAML without anchors: equal parts are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render() -> dict[str, str]:
    """File name -> YAML of each CRD."""
    return {
        f"{names.GROUP}_{crd['spec']['names']['plural']}.yaml": yaml.dump(
            crd, Dumper=_PlainDumper, sort_keys=False, width=110
        )
        for crd in definitions()
    }


def definitions() -> tuple[dict[str, Any], ...]:
    """Every CRD."""
    return deployment_crd(), pool_crd(), voice_crd(), data_job_crd()


def deployment_crd() -> dict[str, Any]:
    """The StepAudioDeployment CRD."""
    status = {
        **parts.head(),
        "release": {**WORD, "description": "Which revisions belong together."},
        "routingGeneration": {**COUNT, "description": "Generation of the routing object."},
        "url": {"type": "string", "maxLength": 512, "description": "Where the API answers in the cluster."},
        "vram": parts.vram(),
        "cache": {
            "type": "object",
            "description": "The volume of downloaded models, or the folder of them on nodes.",
            "required": ["claimName", "phase"],
            "properties": {"claimName": WORD, **parts.filling(), **parts.copies()},
        },
        "pools": {
            "type": "array",
            "maxItems": len(names.COMPONENTS),
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["component"],
            "items": {
                "type": "object",
                "required": ["component", "name"],
                "properties": {
                    "component": WORD,
                    "name": WORD,
                    "replicas": COUNT,
                    "readyReplicas": COUNT,
                    "revision": WORD,
                    "ready": {"type": "boolean"},
                    "reason": WORD,
                },
            },
        },
    }
    return _crd(
        kind=names.DEPLOYMENT_KIND,
        plural=names.DEPLOYMENT_PLURAL,
        short=names.DEPLOYMENT_SHORT,
        spec=schema(DeploymentSpec),
        status=status,
        rules=[
            _name_rule(names.DEPLOYMENT_NAME_LIMIT),
            {
                "rule": (
                    "!has(self.spec.chat) || !has(self.spec.chat.gpu) || !has(self.spec.chat.gpu.nodes)"
                    " || self.spec.chat.gpu.nodes == 1"
                    f" || self.metadata.name.size() <= {names.GROUP_DEPLOYMENT_NAME_LIMIT}"
                ),
                "message": GROUP_NAME_MESSAGE,
            },
        ],
        columns=[
            _column("Preset", ".spec.preset"),
            _condition_column("Ready", "status"),
            _condition_column("Reason", "reason"),
            _column("Release", ".status.release"),
            _column("URL", ".status.url"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            {**_condition_column("Message", "message"), "priority": 1},
        ],
        description="Step-Audio as a whole: chat, speech, tokenizer and gateway.",
    )


def pool_crd() -> dict[str, Any]:
    """The StepAudioPool CRD, with the scale subresource."""
    status = {
        **parts.head(),
        "replicas": {**COUNT, "description": "Pods that exist."},
        "readyReplicas": {**COUNT, "description": "Pods that are ready."},
        "updatedReplicas": {**COUNT, "description": "Pods of the revision that the spec asks for."},
        "selector": {**TEXT, "description": "Label selector of the pods, for autoscalers."},
        "revision": {
            **WORD,
            "description": "What the pool works towards: the spec's revision, or the good one again.",
        },
        "wantedRevision": {**WORD, "description": "What the spec asks for."},
        "goodRevision": {**WORD, "description": "The last revision of which every replica served."},
        "rollout": parts.rollout(),
        "quarantined": parts.quarantined(),
        "recovery": parts.recovery(),
        "autoscaling": parts.autoscaling(),
        "loading": parts.loading(),
        "vram": parts.measured(),
        "revisions": {
            "type": "array",
            "maxItems": 64,
            "description": "Revisions with pods.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": WORD, "replicas": COUNT, "ready": COUNT},
            },
        },
    }
    crd = _crd(
        kind=names.POOL_KIND,
        plural=names.POOL_PLURAL,
        short=names.POOL_SHORT,
        spec=schema(PoolSpec),
        status=status,
        rules=[
            {
                "rule": "self.metadata.name == self.spec.deployment + '-' + self.spec.component",
                "message": POOL_NAME_MESSAGE,
            }
        ],
        columns=[
            _column("Component", ".spec.component"),
            _column("Desired", ".spec.replicas", "integer"),
            _column("Ready", ".status.readyReplicas", "integer"),
            _column("Updated", ".status.updatedReplicas", "integer"),
            _column("Revision", ".status.revision"),
            _condition_column("Reason", "reason"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            {**_condition_column("Message", "message"), "priority": 1},
        ],
        description="A pool of equal replicas of one component; scale it, but write nothing else into it.",
    )
    crd["spec"]["versions"][0]["subresources"]["scale"] = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return crd


def voice_crd() -> dict[str, Any]:
    """The StepAudioVoice CRD."""
    return _crd(
        kind=names.VOICE_KIND,
        plural=names.VOICE_PLURAL,
        short=names.VOICE_SHORT,
        spec=schema(VoiceSpec),
        status={**parts.head(), **parts.voice()},
        rules=[
            {"rule": "has(self.spec.name) || self.metadata.name.size() <= 64", "message": UNNAMED_MESSAGE}
        ],
        columns=[
            _column("Deployment", ".spec.deployment"),
            _column("Voice", ".status.name"),
            _condition_column("Ready", "status"),
            _condition_column("Reason", "reason"),
            _column("Person", ".status.consent.person"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            {**_condition_column("Message", "message"), "priority": 1},
        ],
        description="A voice that stands in Git: a recording, its words, and the consent to imitate it.",
    )


def data_job_crd() -> dict[str, Any]:
    """The StepAudioDataJob CRD."""
    status = {
        **parts.head(),
        "phase": {"type": "string", "enum": list(data_job.PHASES)},
        "claimName": {**WORD, "description": "The volume that the data are on."},
        "percent": {**COUNT, "maximum": 100, "description": "Of the samples, in steps of 5."},
        "samplesTotal": {**COUNT, "description": "Samples that the recipe asks for."},
        "samples": {**COUNT, "description": "Samples that were taken, once all are made."},
        "refused": {**COUNT, "description": "Samples that filters or the teacher refused."},
        "seconds": {**COUNT, "format": "int64", "description": "Of speech that was taken."},
        "image": {"type": "string", "maxLength": 512, "description": "Of the Job."},
        "inputs": {**WORD, "description": "Digest of what the Job is made from."},
    }
    return _crd(
        kind=names.DATA_JOB_KIND,
        plural=names.DATA_JOB_PLURAL,
        short=names.DATA_JOB_SHORT,
        spec=schema(DataJobSpec),
        status=status,
        rules=[_name_rule(names.DATA_JOB_NAME_LIMIT)],
        columns=[
            _column("Phase", ".status.phase"),
            _column("Percent", ".status.percent", "integer"),
            _column("Samples", ".status.samples", "integer"),
            _column("Volume", ".status.claimName"),
            _condition_column("Reason", "reason"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            {**_condition_column("Message", "message"), "priority": 1},
        ],
        description="Training data made by a recipe, on a volume that stays when this is deleted.",
    )


def schema(model: type[Model]) -> dict[str, Any]:
    """The structural schema of a spec model."""
    classes = {cls.__name__: cls for cls in _below(Model)}
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(document, document.get("$defs", {}), classes, model)


def _below(cls: type[Model]) -> Iterator[type[Model]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


def _structural(
    node: Mapping[str, Any],
    definitions: Mapping[str, Any],
    classes: Mapping[str, type[Model]],
    cls: type[Model] | None = None,
) -> dict[str, Any]:
    if "anyOf" in node:  # an optional field: null is pruned by the API server, so it is no value of its own
        (only,) = (branch for branch in node["anyOf"] if branch != {"type": "null"})
        node = {**only, **{k: v for k, v in node.items() if k != "anyOf"}}
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        inlined = _structural(definitions[name], definitions, classes, classes[name])
        return {**inlined, **({"description": node["description"]} if "description" in node else {})}
    dropped = {"title", "$defs", "additionalProperties", "properties", "items"}
    if node.get("default", 0) is None:
        dropped.add("default")
    # Behind a validator pydantic leaves its own words for bounds in the schema.
    result = {_BOUNDS.get(k, k): v for k, v in node.items() if k not in dropped}
    for exclusive, bound in _EXCLUSIVE.items():
        if exclusive in result:  # a flag here, a number in newer JSON Schema
            result |= {bound: result[exclusive], exclusive: True}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if isinstance(node.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions, classes)
    if "items" in node:
        result["items"] = _structural(node["items"], definitions, classes)
    if "properties" in node:
        keys = cls.LIST_KEYS if cls else {}
        result["properties"] = {}
        for name, child in node["properties"].items():
            result["properties"][name] = _structural(child, definitions, classes)
            if name in keys:
                result["properties"][name] |= {
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": [keys[name]],
                }
    if cls is not None and cls.RULES:
        result["x-kubernetes-validations"] = [
            {"rule": rule.cel, "message": rule.message, "fieldPath": f".{rule.field}"}
            if not rule.transition
            else {"rule": rule.cel, "message": rule.message}
            for rule in cls.RULES
        ]
    return result


def _name_rule(limit: int) -> dict[str, Any]:
    return {
        "rule": f"self.metadata.name.size() <= {limit} && self.metadata.name.matches('{SERVICE_LABEL}')",
        "message": NAME_MESSAGE.format(limit=limit),
    }


def _column(name: str, path: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path}


def _condition_column(name: str, field: str) -> dict[str, Any]:
    return _column(name, f'.status.conditions[?(@.type=="Ready")].{field}')


def _crd(
    *,
    kind: str,
    plural: str,
    short: str,
    spec: dict[str, Any],
    status: dict[str, Any],
    rules: list[dict[str, Any]],
    columns: list[dict[str, Any]],
    description: str,
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["step-audio"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": columns,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": description,
                            "required": ["spec"],
                            "x-kubernetes-validations": rules,
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": {"type": "object", "properties": status},
                            },
                        }
                    },
                }
            ],
        },
    }
