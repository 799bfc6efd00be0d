"""Reads the files of a model folder without running anything that is in them.

Whatever is wrong with a file ends in a ModelFileError that names it, says what is wrong, and what to do.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stepaudio_runtime.checkpoints.presence import CURE, not_a, require
from stepaudio_runtime.errors import ModelFileError

Module = TypeVar("Module", bound=nn.Module)


def read_text(path: Path) -> str:
    """A text file of at most a few megabytes."""
    require(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise not_a(path, "text file in UTF-8", error) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise not_a(path, "JSON file", error) from error
    if not isinstance(value, dict):
        raise ModelFileError("ModelConfigInvalid", file=path, what="not a JSON object", cure=CURE)
    return value


def read_array(path: Path) -> NDArray[np.float32]:
    """A numpy file of numbers, as float32; object arrays (pickles) are refused."""
    require(path)
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive, not one array")
        return array.astype(np.float32)
    except (ValueError, EOFError, OSError, TypeError) as error:
        raise not_a(path, "whole numpy array of numbers", error) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch checkpoint, on the CPU, floating point ones as float32.

    Takes a bare state dict or one under `state_dict`; a common `module.` in front of keys is removed.
    Pickles that name anything but tensors and plain containers are refused, not executed.
    """
    require(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # an opcode or a record out of place: no pickle of torch's
            raise not_a(path, "whole torch checkpoint", error) from error
        what = "holds code or objects besides tensors, which are never loaded"
        cure = "replace it by a checkpoint of tensors only; if it came from a download, distrust it"
        raise ModelFileError("ModelConfigInvalid", file=path, what=what, cure=cure) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:
        raise not_a(path, "whole torch checkpoint", error) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        what = f"a {type(loaded).__name__} without tensors, not a state dict"
        raise ModelFileError("ModelShapeMismatch", file=path, what=what, cure=CURE)
    return {
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in loaded.items()
        if isinstance(value, Tensor)
    }


def adopt(module: Module, state: dict[str, Tensor], path: Path, config: Path | None = None) -> Module:
    """`module`, made on the meta device, with the tensors of `state` as its parameters, ready to infer.

    Every key must be there with its shape and no other key; `config` is the file that the sizes came from.
    """
    source = f"as {config.name} says" if config else "as this version computes"
    cure = f"{CURE}; {path.name}{f' and {config.name}' if config else ''} must be of the same model"

    def mismatch(what: str) -> ModelFileError:
        return ModelFileError("ModelShapeMismatch", file=path, what=what, cure=cure)

    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    if missing := [key for key in wanted if key not in state]:
        raise mismatch(f"no {missing[0]}{_others(missing)}, {source}")
    for key, shape in wanted.items():
        if tuple(state[key].shape) != shape:
            raise mismatch(f"{key} is {list(state[key].shape)}, not {list(shape)} {source}")
    if unknown := sorted(state.keys() - wanted.keys()):
        raise mismatch(f"{unknown[0]}{_others(unknown)} belongs to another architecture or size")
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _others(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
