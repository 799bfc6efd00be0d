"""Slim, frozen projections of what exists in the cluster: all that planning and status ever read.

A record is made once from a raw API object and the raw object is dropped, so that a thousand deployments
fit in the operator's memory. Every class has `from_raw(raw) -> record`, which never raises on an object
that the API server accepted.
"""

from stepaudio_operator.records.children import PoolObserved, RevisionRecord, WorkloadRecord
from stepaudio_operator.records.figures import Figures, FiguresOf, figures_of
from stepaudio_operator.records.groups import GroupRecord, replicas
from stepaudio_operator.records.models import (
    CacheObserved,
    ClaimRecord,
    CopyObserved,
    DataObserved,
    JobRecord,
)
from stepaudio_operator.records.pods import PodRecord
from stepaudio_operator.records.pools import CanaryVerdict, DeploymentRecord, GpuMemory, PoolRecord, Traffic
from stepaudio_operator.records.reading import ConditionRecord, size
from stepaudio_operator.records.reports import GpuReading, PodReport, gpus_of
from stepaudio_operator.records.routing import RoutedPool, Routing, Wake
from stepaudio_operator.records.voices import VoiceRecord, VoiceSaid, voice_of
from stepaudio_operator.records.work import Work, waiting_of, work_of

__all__ = [
    "CacheObserved",
    "CanaryVerdict",
    "ClaimRecord",
    "ConditionRecord",
    "CopyObserved",
    "DataObserved",
    "DeploymentRecord",
    "Figures",
    "FiguresOf",
    "GpuMemory",
    "GpuReading",
    "GroupRecord",
    "JobRecord",
    "PodRecord",
    "PodReport",
    "PoolObserved",
    "PoolRecord",
    "RevisionRecord",
    "RoutedPool",
    "Routing",
    "Traffic",
    "VoiceRecord",
    "VoiceSaid",
    "Wake",
    "Work",
    "WorkloadRecord",
    "figures_of",
    "gpus_of",
    "replicas",
    "size",
    "voice_of",
    "waiting_of",
    "work_of",
]
