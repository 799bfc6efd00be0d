"""A headless Chromium and one tab of it, driven over the DevTools protocol: real keys and clicks."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

Event = dict[str, Any]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no browser on this machine: apt-get install -y --no-install-recommends chromium"
SPY = """
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (at) {
  played.push({at, samples: Array.from(this.buffer.getChannelData(0)), rate: this.buffer.sampleRate});
  return start.call(this, at);
};
"""
"""Notes what a page gives to the browser's sound output, and when it is to be heard."""
ANSWERED = (
    "/of speech/.test(document.querySelector('#log .model')?.innerText)"
    " && document.querySelector('#talk-stop').disabled"
)
"""The page has an answer, and all of its sound."""


def installed() -> str | None:
    """A browser's program on this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Tab:
    """One tab. `events` are the protocol's, in their order, of the domains that were enabled."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.events: list[Event] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self.events.append(message)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as JSON has it; promises are waited for."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Waits until `expression` is true, and returns what it is."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            if time.monotonic() > deadline:
                seen = self.value("document.body.innerText")
                raise AssertionError(f"never: {expression}\nthe page: {seen}\n{self.complaints()}")
            time.sleep(0.05)
        return found

    def open(self, url: str) -> None:
        """Goes to `url` and waits until it is there."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def text(self, selector: str) -> str:
        """The text of an element as it is shown."""
        return str(self.value(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Presses the mouse in the middle of an element: a gesture, as `element.click()` is not."""
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Presses a key, with its Windows key code."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, selector: str, text: str) -> None:
        """Replaces what stands in a field by `text`."""
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        self.send("Input.insertText", text=text)

    def choose_file(self, selector: str, path: Path) -> None:
        """Clicks a file field and chooses a file in the dialog: without a gesture nothing may sound."""
        self.send("Page.setInterceptFileChooserDialog", enabled=True)
        self.click(selector)
        node = self._event("Page.fileChooserOpened")["params"]["backendNodeId"]
        self.send("DOM.setFileInputFiles", backendNodeId=node, files=[str(path)])

    def _event(self, method: str) -> Event:
        """The last event of that name, waited for where there was none."""
        while not (found := [event for event in self.events if event["method"] == method]):
            self.events.append(json.loads(self._socket.recv(timeout=60)))
        return found[-1]

    def picture(self, path: Path) -> None:
        """Saves what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """What the browser said against the page: exceptions, errors, refusals by the page's policy."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                if params["entry"]["source"] == "network":  # answers such as 401, which the page tells
                    continue
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return found


@contextmanager
def browser(program: str, folder: Path, *options: str) -> Iterator[Callable[[], Tab]]:
    """Runs Chromium with its profile in `folder`; gives what opens a new tab."""
    flags = (
        "--headless=new",
        "--no-sandbox",  # its sandbox does not run as root; the page is our own
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--window-size=1280,1500",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
    )
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen([program, *flags, *options, "about:blank"], stdout=log, stderr=log)
    with ExitStack() as sockets:
        sockets.callback(process.wait, timeout=60)
        sockets.callback(process.terminate)
        port, path = _address(folder, process)

        def attach(path: str) -> Tab:
            address = f"ws://127.0.0.1:{port}{path}"
            # No pings: a browser on a busy machine is slow, not gone.
            socket = connect(address, max_size=None, open_timeout=60, ping_interval=None)
            return Tab(sockets.enter_context(socket))

        control = attach(path)

        def new_tab() -> Tab:
            context = control.send("Target.createBrowserContext")["browserContextId"]
            target = control.send("Target.createTarget", url="about:blank", browserContextId=context)
            tab = attach(f"/devtools/page/{target['targetId']}")
            for domain in ("Page", "Runtime", "Log", "Network", "WebAudio", "DOM", "Accessibility"):
                tab.send(f"{domain}.enable")
            tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
            return tab

        yield new_tab


def _address(folder: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Where the browser listens: it writes that into its profile."""
    file = folder / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text().split()) < 2:
        log = (folder / "browser.log").read_text(errors="replace")
        assert process.poll() is None and time.monotonic() < deadline, f"Chromium did not start: {log}"
        time.sleep(0.05)
    port, path = file.read_text().split()
    return port, path
