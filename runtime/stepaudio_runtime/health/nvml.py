"""What the driver says of the pod's GPUs: memory, temperature, ECC errors, and XIDs, through NVML by ctypes.

A container sees the GPUs that it was given and no others. Where there is no `libnvidia-ml.so.1` there are no
GPUs to speak of, and nothing here does anything.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from ctypes import byref, c_char_p, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field

from stepaudio_runtime.bodies import GpuStatus
from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.health.state import PodState

log = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"
READ_S = 10.0
NAME_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
TEMPERATURE_GPU = 0
UNCORRECTED, VOLATILE = 1, 0  # ECC errors since the driver was loaded that lost data
EVENT_XID = 0x8
XID_WAIT_MS = 1000
TIMED_OUT = 10  # NVML_ERROR_TIMEOUT
GPU_IS_LOST = 15  # NVML_ERROR_GPU_IS_LOST: it has fallen off the bus or is inaccessible
FATAL_XIDS = frozenset({48, 62, 64, 74, 79, 92, 95, 109, 119, 120, 140, 143})
"""Those that NVIDIA's list calls faults of the card, its memory, its links or its firmware.

Others (13, 31, 43, 45) are the running program's own: they are shown, and the engine's end tells the rest.
"""


class GpuFault(StepAudioError):  # noqa: N818 - named as the condition's reason
    """The driver reported a fault of a GPU: the pod ends, and is better made anew elsewhere."""

    reason = "GpuFault"


class NvmlError(Exception):
    """A call of the library failed with `status`, an nvmlReturn_t."""

    def __init__(self, function: str, status: int) -> None:
        self.status = status
        super().__init__(f"{function} returned {status}")


class _Memory(ctypes.Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("device", c_void_p),
        ("type", c_ulonglong),
        ("data", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    ]


@dataclass
class Nvml:
    """The library, initialised, and the handles of the GPUs. Blocking; one thread reads, one waits."""

    library: ctypes.CDLL
    devices: list[c_void_p]
    events: c_void_p
    products: list[str] = field(default_factory=list)  # what the GPUs are called, of one that is lost too
    xids: dict[int, int] = field(default_factory=dict)  # the last one of each GPU

    @classmethod
    def open(cls, name: str = LIBRARY) -> Nvml | None:
        """None where there is no library or no driver behind it."""
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return None
        nvml = cls(library, [], c_void_p())
        try:
            nvml._call("nvmlInit_v2")
            count = c_uint()
            nvml._call("nvmlDeviceGetCount_v2", byref(count))
            for index in range(count.value):
                device = c_void_p()
                nvml._call("nvmlDeviceGetHandleByIndex_v2", c_uint(index), byref(device))
                product = ctypes.create_string_buffer(NAME_BYTES)
                nvml._call("nvmlDeviceGetName", device, ctypes.cast(product, c_char_p), c_uint(NAME_BYTES))
                nvml.devices.append(device)
                nvml.products.append(product.value.decode(errors="replace"))
            nvml._call("nvmlEventSetCreate", byref(nvml.events))
            for device in nvml.devices:
                nvml._call("nvmlDeviceRegisterEvents", device, c_ulonglong(EVENT_XID), nvml.events)
        except NvmlError as error:
            log.warning("the GPUs cannot be watched: %s", error)
            return None
        return nvml

    def read(self) -> list[GpuStatus]:
        """One entry a GPU; what a card does not tell is None."""
        return [self._read(index, device) for index, device in enumerate(self.devices)]

    def _read(self, index: int, device: c_void_p) -> GpuStatus:
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", device, byref(memory))
        return {
            "product": self.products[index],
            "usedBytes": memory.used,
            "totalBytes": memory.total,
            "temperature": self._number(
                "nvmlDeviceGetTemperature", c_uint(), device, c_uint(TEMPERATURE_GPU)
            ),
            "eccErrors": self._number(
                "nvmlDeviceGetTotalEccErrors", c_ulonglong(), device, c_uint(UNCORRECTED), c_uint(VOLATILE)
            ),
            "xid": self.xids.get(index),
        }

    def wait_xid(self) -> tuple[int, int] | None:
        """(index of the GPU, XID) of the next one; None where none came within a second."""
        event = _Event()
        try:
            self._call("nvmlEventSetWait_v2", self.events, byref(event), c_uint(XID_WAIT_MS))
        except NvmlError as error:
            if error.status == TIMED_OUT:
                return None
            raise
        index = next((i for i, device in enumerate(self.devices) if device.value == event.device), -1)
        self.xids[index] = int(event.data)
        return index, int(event.data)

    def _number(self, function: str, into: c_uint | c_ulonglong, *arguments: object) -> int | None:
        try:
            self._call(function, *arguments, byref(into))
        except NvmlError:
            return None  # not of this card
        return int(into.value)

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self.library, function)(*arguments)
        if status != 0:
            raise NvmlError(function, status)


async def watch_gpus(
    state: PodState, nvml: Nvml, failed: asyncio.Future[StepAudioError], read_s: float = READ_S
) -> None:
    """Keeps `state.gpus` fresh, every `read_s` seconds, and sets `failed` at a fault of a card; for ever.

    A call that fails is tried again: a driver that is busy comes back. What is known stays meanwhile.
    """
    await asyncio.gather(_read_on(state, nvml, failed, read_s), _listen(state, nvml, failed, read_s))


async def _read_on(
    state: PodState, nvml: Nvml, failed: asyncio.Future[StepAudioError], read_s: float
) -> None:
    troubles = _Troubles("read", failed)
    while True:
        try:
            state.gpus = await asyncio.to_thread(nvml.read)
            troubles.over()
        except NvmlError as error:
            troubles.note(error)
        await asyncio.sleep(read_s)


async def _listen(
    state: PodState, nvml: Nvml, failed: asyncio.Future[StepAudioError], retry_s: float
) -> None:
    troubles = _Troubles("listened to", failed)
    while True:
        try:
            found = await asyncio.to_thread(nvml.wait_xid)
            troubles.over()
        except NvmlError as error:
            troubles.note(error)
            await asyncio.sleep(retry_s)
            continue
        if found is None:
            continue
        index, xid = found
        product = nvml.products[index] if index >= 0 else "unknown"
        log.warning("XID %d on GPU %d (%s)", xid, index, product)
        # Nothing is read first: a card that is lost cannot be.
        if 0 <= index < len(state.gpus):
            state.gpus[index]["xid"] = xid
        if xid in FATAL_XIDS and not failed.done():
            failed.set_result(GpuFault(f"XID {xid} on GPU {index} ({product})"))


class _Troubles:
    """Says once that the GPUs cannot be watched, and once that they can be again."""

    def __init__(self, what: str, failed: asyncio.Future[StepAudioError]) -> None:
        self._what = what
        self._failed = failed
        self._said = ""

    def note(self, error: NvmlError) -> None:
        """`error` was in the way; sets `failed` where it says that a card is gone."""
        if str(error) != self._said:
            log.warning("the GPUs cannot be %s now: %s", self._what, error)
        self._said = str(error)
        if error.status == GPU_IS_LOST and not self._failed.done():
            self._failed.set_result(GpuFault(f"a GPU is lost: {error}"))

    def over(self) -> None:
        """Nothing was."""
        if self._said:
            log.info("the GPUs are %s again", self._what)
        self._said = ""
