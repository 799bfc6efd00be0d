"""A hub that speaks Hugging Face's and ModelScope's protocols, and misbehaves when told to.

Large files are sent on to a second address, as hubs do with their stores, so that what a client sends there
can be looked at. `faults` says what becomes of a request; bytes that left are counted.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "5f0c2d6b" * 5
LARGE = 4096  # bytes from which a file is in the large-file store
PAGE = 3  # entries of a page of Hugging Face's list


@dataclass
class Answer:
    """Instead of the file: a status with headers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Cut:
    """The body breaks off after so many bytes; `reset` by RST instead of FIN."""

    after: int
    reset: bool = False


Fault = Answer | Cut | None


class Hub:
    """Serves `files`: repository -> path -> content. `hosts`: its own and its store's."""

    def __init__(
        self,
        files: Mapping[str, Mapping[str, bytes]],
        token: str | None = None,
        hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.2"),
    ) -> None:
        self.files = {repository: dict(paths) for repository, paths in files.items()}
        self.token = token
        self.faults: Callable[[str], Fault] = lambda path: None
        self.spoil: set[str] = set()
        """Paths whose bytes are sent with one of them wrong."""
        self.seen: list[tuple[str, str, str | None]] = []
        """(host, path, Authorization) of every request."""
        self.sent = 0
        """Bytes of files that left."""
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._servers = [ThreadingHTTPServer((host, 0), Handler) for host in hosts]
        self.url, self.store = (f"http://{s.server_address[0]}:{s.server_address[1]}" for s in self._servers)
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        with hub.lock:
            hub.seen.append((self.server.server_address[0], path, self.headers.get("Authorization")))
        known = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if hub.token is not None and not known and not path.startswith("/store/"):
            return self._say(401, {"error": "Invalid credentials"})
        match path.strip("/").split("/"):
            case ["api", "models", org, name, "revision", _]:
                return self._listed(f"{org}/{name}", lambda paths: {"sha": COMMIT, "id": f"{org}/{name}"})
            case ["api", "models", org, name, "tree", commit] if commit == COMMIT:
                return self._tree(f"{org}/{name}", int(query.get("cursor", ["0"])[0]))
            case ["api", "v1", "models", org, name, "repo", "files"]:
                return self._listed(f"{org}/{name}", _modelscope_list)
            case ["api", "v1", "models", org, name, "repo"]:
                return self._file(f"{org}/{name}", query["FilePath"][0], redirect=True)
            case [org, name, "resolve", commit, *rest] if commit == COMMIT:
                return self._file(f"{org}/{name}", "/".join(rest), redirect=True)
            case ["store", org, name, *rest]:
                return self._file(f"{org}/{name}", "/".join(rest), redirect=False)
        return self._say(404, {"error": "no such page"})

    def _listed(self, repository: str, body: Callable[[Mapping[str, bytes]], Any]) -> None:
        fault = self.hub.faults(self.path)
        if isinstance(fault, Answer):
            return self._say(fault.status, {"error": "so it is"}, fault.headers)
        if repository not in self.hub.files:
            return self._say(404, {"error": "Repository not found"})
        return self._say(200, body(self.hub.files[repository]))

    def _tree(self, repository: str, cursor: int) -> None:
        entries = [_tree_entry(path, content) for path, content in sorted(self.hub.files[repository].items())]
        entries.insert(0, {"type": "directory", "path": "a-folder", "oid": "0" * 40, "size": 0})
        headers = {}
        if cursor + PAGE < len(entries):
            link = (
                f"{self.hub.url}/api/models/{repository}/tree/{COMMIT}?recursive=true&cursor={cursor + PAGE}"
            )
            headers["Link"] = f'<{link}>; rel="next"'
        self._say(200, entries[cursor : cursor + PAGE], headers)

    def _file(self, repository: str, path: str, redirect: bool) -> None:
        content = self.hub.files.get(repository, {}).get(path)
        if content is None:
            return self._say(404, {"error": "Entry not found"})
        if redirect and len(content) >= LARGE:
            return self._say(302, {}, {"Location": f"{self.hub.store}/store/{repository}/{path}"})
        fault = self.hub.faults(path)
        if isinstance(fault, Answer):
            return self._say(fault.status, {"error": "so it is"}, fault.headers)
        if path in self.hub.spoil:
            content = bytes([content[0] ^ 1]) + content[1:]
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        body = content[start:stop]
        if isinstance(fault, Cut):
            body = body[: fault.after]
            self.close_connection = True
        self.wfile.write(body)
        with self.hub.lock:
            self.hub.sent += len(body)
        if isinstance(fault, Cut) and fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        return None

    def _say(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": git, "size": len(content)}
    if len(content) >= LARGE:
        entry["oid"] = "1" * 40  # of the pointer, which is not the content
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _modelscope_list(paths: Mapping[str, bytes]) -> dict[str, Any]:
    files = [{"Path": "a-folder", "Type": "tree", "Size": 0, "Sha256": ""}]
    files += [
        {"Path": p, "Type": "blob", "Size": len(c), "Sha256": hashlib.sha256(c).hexdigest()}
        for p, c in sorted(paths.items())
    ]
    return {"Code": 200, "Success": True, "Data": {"Files": files}}


def models(seed: int = 0, large: int = 300_000) -> dict[str, dict[str, bytes]]:
    """Repositories of the three models, small ones."""
    noise = random.Random(seed)
    return {
        "stepfun-ai/Step-Audio-Tokenizer": {
            ".gitattributes": b"*.pt filter=lfs\n",
            "linguistic_tokenizer.npy": noise.randbytes(9_000),
            "a folder/with spaces & signs.pt": noise.randbytes(5_000),
        },
        "stepfun-ai/Step-Audio-Chat": {
            "config.json": b'{"hidden_size": 12288}\n',
            "empty.txt": b"",
            "model-00001.safetensors": noise.randbytes(large),
            "model-00002.safetensors": noise.randbytes(large + 1),
        },
        "stepfun-ai/Step-Audio-TTS-3B": {"CosyVoice-300M-25Hz/flow.pt": noise.randbytes(40_000)},
    }


def folders(repositories: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """What a model folder should hold: path -> content."""
    return {
        f"{repository.partition('/')[2]}/{path}": content
        for repository, paths in repositories.items()
        for path, content in paths.items()
        if not path.startswith(".git")
    }
