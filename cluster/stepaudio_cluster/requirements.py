"""The images' pinned requirement files, cut out of `uv.lock`.

`uv export` lists what a package needs, with hashes. The torch closure becomes a file of its own,
so that its 4 GB layer is shared by both runtime images and survives every other change.
"""

import os
import re
import subprocess
from pathlib import Path

Requirements = dict[str, str]  # normalised name -> its blocks of the export, hashes included

_UV = os.environ.get("UV", "uv")  # set by `uv run`
TRITON = "triton"  # on a CPU vLLM must not find it; the CUDA image gets it with its own requirements


def export(project: Path, package: str, extra: str | None = None) -> Requirements:
    """What `package` (with `extra`) pins in the lock of `project`, workspace members left out."""
    command = [_UV, "export", "--frozen", "--no-dev", "--no-emit-workspace", "--no-header", "--no-annotate"]
    command += ["--package", package, *(["--extra", extra] if extra else [])]
    output = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout
    found: Requirements = {}
    for block in re.split(r"\n(?=\S)", output.strip()):
        name = re.split(r"[=\[ ;]", block, maxsplit=1)[0]
        # A package stands twice where Python versions need two versions of it.
        found[name] = f"{found[name]}\n{block}" if name in found else block
    return found


def torch_closure(project: Path) -> set[str]:
    """Names of torch and everything it depends on, triton left out."""
    command = [_UV, "tree", "--frozen", "--package", "torch", "--no-dedupe"]
    output = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout
    names = set(re.findall(r"^[\s│├└─]*([a-z0-9][a-z0-9.-]*)(?:\[[^\]]*\])? v", output, flags=re.MULTILINE))
    return names - {TRITON}


def files(project: Path) -> dict[str, str]:
    """File name -> text of every file under `images/requirements`."""
    torch_names = torch_closure(project)
    cpu = export(project, "stepaudio-runtime", "cpu")
    cuda = export(project, "stepaudio-runtime", "cuda")
    shared = {
        name: cpu[name] for name in sorted(torch_names) if cpu.get(name) == cuda.get(name) and name in cpu
    }
    return {
        "torch.txt": _text(shared),
        "runtime-cpu.txt": _text({n: b for n, b in cpu.items() if n not in shared and n != TRITON}),
        "runtime-cuda.txt": _text({n: b for n, b in cuda.items() if n not in shared}),
        "gateway.txt": _text(export(project, "stepaudio-runtime")),
        "operator.txt": _text(export(project, "stepaudio-operator")),
    }


def _text(blocks: Requirements) -> str:
    header = "# Made from uv.lock by `make lock-images`; a test compares the two.\n"
    return header + "\n".join(blocks[name] for name in sorted(blocks)) + "\n"


def main() -> None:
    """Writes the files anew, after a change of the lock."""
    project = Path(__file__).resolve().parents[2]
    for name, text in files(project).items():
        (project / "images/requirements" / name).write_text(text)


if __name__ == "__main__":
    main()
