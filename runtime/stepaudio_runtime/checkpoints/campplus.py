"""CAM++, the speaker embedding: an ONNX network run as it is, by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from stepaudio_runtime.audio.fbank import speaker_features
from stepaudio_runtime.checkpoints.presence import CURE, not_a, require
from stepaudio_runtime.errors import AudioError, ModelFileError

BANDS = 80
EMBEDDING = 192
_PROBE_FRAMES = 200  # 2 s; the network pools over segments of up to 100 frames

# onnxruntime's exceptions share no base but Exception.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        error
        for error in vars(ort_errors).values()
        if isinstance(error, type) and issubclass(error, Exception)
    ),
)


class SpeakerEncoder:
    """Filter bank of a voice -> its 192 values. `threads` are those of one call."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Raises ModelFileError unless `path` is a network of this shape: it is run once to see."""
        require(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; the caller gets them as exceptions
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _ERRORS as error:
            raise not_a(path, "whole ONNX model", error) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        try:
            if len(inputs) != 1 or len(outputs) != 1:
                raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs instead of one each")
            self._input = inputs[0].name
            shape = self(np.zeros((_PROBE_FRAMES, BANDS), np.float32)).shape
            if shape != (EMBEDDING,):
                raise ValueError(f"gives {shape}")
        except _ERRORS as error:
            detail = " ".join(str(error).split())[:160]
            what = f"does not turn (1, frames, {BANDS}) into (1, {EMBEDDING}): {detail}"
            raise ModelFileError("ModelShapeMismatch", file=path, what=what, cure=CURE) from error

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean-free filter bank (F, 80) -> embedding (192,), float32."""
        output: NDArray[np.float32] = self._session.run(None, {self._input: features[None]})[0]
        return output[0]

    def of_speech(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """`samples` (N,) at 16 kHz -> embedding (192,). Raises AudioError below a frame of 25 ms."""
        features = speaker_features(samples)
        if not len(features):
            raise AudioError("it is too short for a speaker embedding", code="audio_too_short")
        return self(features)
