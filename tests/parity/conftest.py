"""What the parity tests share: the folder of golden vectors, its cases, and the comparison.

`pytest tests/parity --golden DIR` compares every component with the vectors in DIR (default: `golden` beside
this file). Sizes come from DIR's `configs.json` and weights, cases from the names in its files, so another
folder of the same layout with other sizes, seeds and numbers of cases runs under the same tests.

Fixtures:
- `golden`: the folder (`Golden`).
- `shipped`: the folder beside this file, for what is true of its weights and not of any.
- `case`: one case of a file, for tests marked `@pytest.mark.cases(stem, prefix)`: a dict of the tensors whose
  names start with a match of the regular expression `prefix` and a dot, the prefix cut off.
- `close`: `close(actual, expected, allow, what)`, the elementwise comparison of the README's tolerances.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]
Close = Callable[..., None]

_DEFAULT = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """A folder of golden vectors; files are read once, on first use."""

    folder: Path

    def path(self, name: str) -> Path:
        """The file `name`; fails the test when the folder lacks it (a missing file is never a skip)."""
        found = self.folder / name
        if not found.is_file():
            pytest.fail(f"{self.folder} has no {name}; give --golden a complete folder of golden vectors")
        return found

    @cached_property
    def _read(self) -> dict[str, Any]:
        return {}

    def tensors(self, stem: str) -> Tensors:
        """All tensors of `stem`.safetensors by name. Do not change them in place."""
        if stem not in self._read:
            self._read[stem] = load_file(self.path(f"{stem}.safetensors"))
        return dict(self._read[stem])

    def json(self, stem: str) -> Any:
        """The parsed `stem`.json."""
        return json.loads(self.path(f"{stem}.json").read_text(encoding="utf-8"))

    @property
    def configs(self) -> dict[str, Any]:
        """The small models' sizes in the words of the reference's YAML."""
        return dict(self.json("configs"))

    def cases(self, stem: str, prefix: str) -> dict[str, Tensors]:
        """The tensors of `stem` grouped by the part of their name that matches `prefix`, in name order."""
        pattern = re.compile(rf"({prefix})\.(.+)")
        found: dict[str, Tensors] = {}
        for name, tensor in sorted(self.tensors(stem).items()):
            if match := pattern.fullmatch(name):
                found.setdefault(match[1], {})[match[2]] = tensor
        return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--golden`."""
    parser.addoption("--golden", default=None, metavar="DIR", help="folder of golden vectors to compare with")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of tests that run once a case."""
    config.addinivalue_line("markers", "cases(stem, prefix): run once per case found in a golden file")


def _golden_of(config: pytest.Config) -> Golden:
    # The option is missing when this file is read only during collection (`pytest tests`).
    given = config.getoption("--golden", default=None)
    return Golden(config.invocation_params.dir / given if given else _DEFAULT)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `cases` once for every case in its file; none found is an error, not a skip."""
    if marker := metafunc.definition.get_closest_marker("cases"):
        stem, prefix = marker.args
        cases = _golden_of(metafunc.config).cases(stem, prefix)
        if not cases:
            raise pytest.UsageError(f"{stem}.safetensors holds no case named {prefix}")
        metafunc.parametrize("case", list(cases.values()), ids=[f"{stem}:{name}" for name in cases])


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """The folder that `--golden` names."""
    return _golden_of(request.config)


@pytest.fixture(scope="session")
def shipped() -> Golden:
    """The folder beside this file, whatever `--golden` names."""
    return Golden(_DEFAULT)


@pytest.fixture(scope="session")
def close() -> Close:
    """`close(actual, expected, allow, what)`: same shape, finite, and within `allow` everywhere."""

    def check(actual: object, expected: object, allow: float, what: str = "values") -> None:
        got, want = _array(actual), _array(expected)
        assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
        if got.size == 0:
            return
        assert np.isfinite(got).all(), f"{what}: not finite"
        worst = np.abs(got.astype(np.float64) - want.astype(np.float64)).max()
        assert worst <= allow, f"{what}: off by {worst:.3g}, allowed {allow:.3g}"

    return check


@pytest.fixture(autouse=True)
def _exact_float32() -> None:
    """TF32 rounds to ten bits of mantissa: off, should these tests meet a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _array(values: object) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)
