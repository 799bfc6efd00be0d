"""Specs of every kind that set every field there is, with values that may stand there."""

POD_TEMPLATE = {
    "labels": {"team": "voice"},
    "annotations": {"note": "anything"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [
        {"key": "gpu", "operator": "Equal", "value": "x", "effect": "NoExecute", "tolerationSeconds": 5}
    ],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "schedulerName": "other",
    "queue": {"name": "gpus", "priorityClass": "speech"},
    "registry": "registry.example.com:5000/near",
    "imagePullSecrets": [{"name": "pull"}],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
    "volumes": [{"name": "extra", "emptyDir": {}}],
    "volumeMounts": [{"name": "extra", "mountPath": "/extra", "subPath": "a", "readOnly": True}],
    "shmSize": "1Gi",
}
DEPLOYMENT = {
    "preset": "step-audio",
    "runtime": {"version": "1.4.2", "registry": "registry.example.com:5000/team", "pullPolicy": "Always"},
    "models": {"source": {"pvc": {"claimName": "models", "subPath": "a/b"}}},
    "chat": {
        "enabled": True,
        "replicas": 1,
        "gpu": {
            "count": 4,
            "nodes": 2,
            "memory": "80GB",
            "resource": "nvidia.com/gpu",
            "products": ["NVIDIA-A800-SXM4-80GB"],
            "requireMemory": True,
        },
        "maxModelLen": 16384,
        "gpuMemoryUtilization": 0.9,
        "quantization": "FP8",
        "podTemplate": POD_TEMPLATE,
    },
    "tts": {
        "enabled": True,
        "replicas": 1,
        "gpu": {"count": 1, "memory": "24GB"},
        "maxModelLen": 8192,
        "gpuMemoryUtilization": 0.5,
    },
    "tokenizer": {
        "enabled": True,
        "placement": "Own",
        "replicas": 1,
        "gpu": {
            "count": 1,
            "memory": "8GB",
            "claim": {"deviceClass": "gpu.example.com", "selectors": [{"cel": "device.driver == 'x'"}]},
        },
    },
    "gateway": {
        "enabled": True,
        "replicas": 2,
        "auth": {"secretRef": {"name": "keys"}},
        "maxAudioSeconds": 30,
        "maxInFlight": 64,
    },
    "rollout": {
        "strategy": "Auto",
        "maxUnavailable": 1,
        "drainTimeout": "10m",
        "surgeTimeout": "2m",
        "progressDeadline": "1h",
        "autoRollback": False,
        "historyLimit": 3,
    },
    "health": {"canary": {"interval": "60s"}, "stallTimeout": "2m"},
    "vram": {"policy": "Warn"},
}
NANO = {
    "preset": "nano",
    "models": {"source": {"image": {"path": "/opt/models", "reference": "registry.example.com/models:1"}}},
    "chat": {"replicas": 0},
    "tts": {
        "gpu": {"count": 1, "claim": {"templateName": "theirs"}},
        "autoscaling": {
            "min": 0,
            "max": 3,
            "inFlight": 4,
            "queueMilliseconds": 500,
            "firstAudioMilliseconds": 1500,
            "upWindow": "45s",
            "downWindow": "5m",
            "hold": "1m",
        },
    },
    "tokenizer": {"placement": "WithTTS"},
    "gateway": {"podTemplate": {"env": [{"name": "C"}]}},
}
POOL = {
    "deployment": "prod",
    "component": "chat",
    "preset": "step-audio",
    "replicas": 1,
    "runtime": {"version": "1", "registry": "", "pullPolicy": "Never"},
    "models": {"source": {"pvc": {"claimName": "models"}}},
    "gpu": {"count": 4, "memory": "80GB"},
    "maxModelLen": 4096,
    "gpuMemoryUtilization": 0.9,
    "quantization": "INT4",
    "health": {"stallTimeout": "90s"},
    "rollout": {
        "strategy": "Canary",
        "maxUnavailable": 2,
        "drainTimeout": "90s",
        "canary": {
            "steps": [{"traffic": 10, "pause": "5m"}, {"traffic": 50, "pause": "10m"}],
            "minRequests": 50,
            "maxErrorPercent": 1,
            "maxSlowdownPercent": 20,
        },
    },
    "podTemplate": POD_TEMPLATE,
}
GATEWAY_POOL = {
    "deployment": "prod",
    "component": "gateway",
    "preset": "nano",
    "runtime": {"version": "1"},
    "auth": {"secretRef": {"name": "keys"}},
    "maxAudioSeconds": 10,
    "maxInFlight": 5,
    "autoscaling": {"min": 1, "max": 2},
}

VOICE = {
    "deployment": "prod",
    "name": "Ada Lovelace",
    "wave": {"configMap": {"name": "ada", "key": "ada.flac"}},
    "transcript": "good morning,\nthis is my voice",
    "consent": {
        "person": "Ada Example",
        "statement": "I agree to my voice being imitated.",
        "recording": {"configMap": {"name": "ada", "key": "consent.opus"}},
    },
}
VOICE_NAMES = [
    "小明",
    "a-b.c_d",
    "a b",
    "_",
    "-a",
    "a-",
    ".a",
    "a.",
    " a",
    "a ",
    "a/b",
    "a:b",
    "a[b",
    "a^b",
    "a`b",
]
VOICE_NAMES += [
    "a{b",
    "a~b",
    "a!b",
    "a,b",
    "a@b",
    "a\\b",
    "a\x7f",
    "Zoë",
    "x" * 64,
    "x" * 65,
    "é" * 64,
    "é" * 65,
]
DATA_JOB = {
    "recipe": {"name": "speech", "texts": [{"file": "/texts/a.txt", "language": "en"}]},
    "output": {"volume": {"size": "10Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany"}},
    "workers": 4,
    "runtime": {"version": "1.4.2", "registry": "registry.example.com:5000/team", "pullPolicy": "Always"},
    "podTemplate": {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
}
DATA_JOB_ON_CLAIM = {
    "recipe": {},
    "output": {"pvc": {"claimName": "data", "subPath": "a/b"}},
    "podTemplate": {"volumeMounts": [{"name": "texts", "mountPath": "/texts"}]},
}
