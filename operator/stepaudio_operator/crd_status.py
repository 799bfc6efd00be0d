"""The parts of the CRDs' status schemas; `crd` puts them together. By hand, since nothing parses a status."""

from __future__ import annotations

from typing import Any, get_args

from stepaudio_operator import names
from stepaudio_operator.gpus.vram import Fit
from stepaudio_operator.loading import SHOWN, STEP_PERCENT
from stepaudio_operator.memory import PHASES
from stepaudio_operator.node_copies import SHOWN as NODES_SHOWN
from stepaudio_operator.strikes import KEPT

TEXT = {"type": "string", "maxLength": 4096}
WORD = {"type": "string", "maxLength": 253}
COUNT = {"type": "integer", "minimum": 0}


def head() -> dict[str, Any]:
    """What every status begins with."""
    return {
        "observedGeneration": {**COUNT, "format": "int64", "description": "Generation this speaks of."},
        "conditions": {
            "type": "array",
            "maxItems": 16,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                "properties": {
                    "type": WORD,
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "observedGeneration": {**COUNT, "format": "int64"},
                    "lastTransitionTime": {"type": "string", "format": "date-time"},
                    "reason": WORD,
                    "message": {"type": "string", "maxLength": 32768},
                },
            },
        },
    }


def vram() -> dict[str, Any]:
    """Estimates of a deployment's components."""
    return {
        "type": "array",
        "maxItems": len(names.COMPONENTS),
        "description": "What one GPU of each component has to hold, estimated, of what is declared.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["component"],
        "items": {
            "type": "object",
            "required": ["component", "gpu", "needed", "fit"],
            "properties": {
                "component": WORD,
                "gpu": {**WORD, "description": "Declared GPUs of a replica."},
                "needed": {**WORD, "description": "For the pod to start, of one GPU, decimal."},
                "fit": {
                    "type": "string",
                    "enum": list(get_args(Fit)),
                    "description": "Tight: only a card with more than its name says is large enough.",
                },
                "cacheTokens": {**COUNT, "description": "Tokens of all requests that the cache holds."},
                "measured": {
                    **WORD,
                    "description": "What the fullest GPU holds now; see the pool's status.",
                },
                "message": TEXT,
            },
        },
    }


def filling() -> dict[str, Any]:
    """How far a download is."""
    return {
        "phase": {"type": "string", "enum": ["Pending", "Downloading", "Ready", "Failed"]},
        "percent": {**COUNT, "maximum": 100, "description": "Of the bytes, in steps of 5."},
        "bytesTotal": {**COUNT, "format": "int64"},
        "expectedAt": {
            "type": "string",
            "format": "date-time",
            "description": "When all is there at the speed of the last minute; with every step.",
        },
    }


def copies() -> dict[str, Any]:
    """Of models that lie on the nodes' own disks."""
    return {
        "folder": WORD,
        "readyNodes": {**COUNT, "description": "Nodes with pods of this deployment that have the models."},
        "nodes": {
            "type": "array",
            "maxItems": NODES_SHOWN,
            "description": "Nodes with such pods that do not have them yet.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["node"],
            "items": {
                "type": "object",
                "required": ["node", "phase"],
                "properties": {"node": WORD, **filling()},
            },
        },
    }


def loading() -> dict[str, Any]:
    """How far pods of a pool are with their models."""
    return {
        "type": "array",
        "maxItems": SHOWN,
        "description": "Pods that load their models, from the first step on.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["pod"],
        "items": {
            "type": "object",
            "required": ["pod", "percent", "bytesTotal"],
            "properties": {
                "pod": WORD,
                "percent": {
                    **COUNT,
                    "maximum": 100,
                    "description": f"Of the bytes, in steps of {STEP_PERCENT}.",
                },
                "bytesTotal": {**COUNT, "format": "int64"},
            },
        },
    }


def measured() -> dict[str, Any]:
    """GPU memory of a pool, measured and estimated."""
    return {
        "type": "object",
        "description": "What the fullest GPU of the pods that serve holds, and should hold; decimal.",
        "required": ["card", "measured"],
        "properties": {
            "product": WORD,
            "card": {**WORD, "description": "What the GPU has, as its driver says."},
            "needed": {**WORD, "description": "Estimated, for the pod to start."},
            "expected": {**WORD, "description": "Estimated, of a pod that serves: vLLM fills its share."},
            "measured": {**WORD, "description": "By the driver, of all processes, in coarse steps."},
        },
    }


def voice() -> dict[str, Any]:
    """What is kept of a voice."""
    sum_ = {"type": "string", "maxLength": 64}
    return {
        "name": {**WORD, "description": "What the API calls it."},
        "sha256": {**sum_, "description": "Of the recording."},
        "digest": {**WORD, "description": "Of all that is said of the voice; gateways store by it."},
        "durationSeconds": {"type": "number", "minimum": 0},
        "transcribed": {"type": "boolean", "description": "The chat model wrote the transcript."},
        "consent": {
            "type": "object",
            "description": "Who agreed, as it is kept with the voice.",
            "properties": {"person": TEXT, "statement": TEXT, "recordingSha256": sum_},
        },
    }


def rollout() -> dict[str, Any]:
    """A pool's way from one revision to another."""
    return {
        "type": "object",
        "description": "From one revision to another; there only while that goes on.",
        "required": ["revision", "phase", "startedAt"],
        "properties": {
            "revision": {**WORD, "description": "Where to."},
            "from": {**WORD, "description": "What serves until then."},
            "phase": {"type": "string", "enum": list(PHASES), "description": "How pods are replaced now."},
            "startedAt": {"type": "string", "format": "date-time"},
            "step": {**COUNT, "description": "Step of a canary, from 0."},
            "stepStartedAt": {
                "type": "string",
                "format": "date-time",
                "description": "Since when the step has its share of the traffic.",
            },
            "traffic": {
                **COUNT,
                "maximum": 100,
                "description": "Per cent of the requests that go to `revision`; without it, by ready pods.",
            },
            "needsOutage": {
                "type": "boolean",
                "description": "There is no room for the new release beside the one that is served.",
            },
        },
    }


def quarantined() -> dict[str, Any]:
    """A pool's revisions that failed."""
    return {
        "type": "array",
        "maxItems": 16,
        "description": "Revisions that are not tried again until the spec or the annotation retry changes.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["revision"],
        "items": {
            "type": "object",
            "required": ["revision", "reason", "message", "at", "ask"],
            "properties": {
                "revision": WORD,
                "reason": WORD,
                "message": {"type": "string", "maxLength": 32768},
                "at": {"type": "string", "format": "date-time"},
                "ask": {**WORD, "description": "Digest of the spec and the annotation that it holds for."},
            },
        },
    }


def autoscaling() -> dict[str, Any]:
    """What a pool's autoscaler has decided."""
    at = {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "description": "What the operator has decided, where the spec has autoscaling.",
        "required": ["replicas", "reason", "at"],
        "properties": {
            "replicas": {**COUNT, "description": "Replicas that the pool is to have."},
            "reason": TEXT,
            "at": {**at, "description": "When it was decided."},
            "towards": {**COUNT, "description": "Other replicas that were asked for at every look."},
            "since": {**at, "description": "Since when they were."},
        },
    }


def recovery() -> dict[str, Any]:
    """What a pool remembers of failures."""
    at = {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "description": "Failures that a node may be to blame for, and pods that were made anew for them.",
        "properties": {
            "strikes": {
                "type": "array",
                "maxItems": KEPT,
                "description": "Nodes that stand here twice are avoided by new pods.",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["node", "uid", "end", "at"],
                    "properties": {
                        "node": WORD,
                        "uid": WORD,
                        "end": {**COUNT, "description": "Which of the ends of the pod's container."},
                        "reason": WORD,
                        "at": at,
                    },
                },
            },
            "replaced": {
                "type": "array",
                "maxItems": KEPT,
                "description": "Pods that are taken away: what the budget is counted by.",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["uid", "at"],
                    "properties": {"uid": WORD, "at": at},
                },
            },
            "forgiven": {**WORD, "description": "Value of the annotation forgive that was heeded last."},
        },
    }
