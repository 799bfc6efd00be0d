"""A gateway whose small chat model has room for the page's tools, and tabs of a real browser on its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.contract.openai_client.conftest import Stack, launch
from tests.contract.openai_client.page.devtools import MISSING, SPY, Tab, browser, installed
from tests.contract.openai_client.small_pods import chat_pod, tokenizer_pod, tts_pod


@pytest.fixture(scope="session")
def page_stack(tokenizer_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    tokenizer, chat, tts = tokenizer_pod(), chat_pod(tokenizer_model, max_model_len=8000), tts_pod()
    pools = {pod.component: [pod.url] for pod in (tokenizer, chat, tts)}
    gateway = launch(tmp_path_factory.mktemp("page"), pools)
    yield Stack(gateway, tokenizer, chat, tts)
    gateway.process.kill()
    gateway.process.wait()


@pytest.fixture
def behind(page_stack: Stack) -> Stack:
    """The stack, its records emptied."""
    for pod in (page_stack.tokenizer, page_stack.chat, page_stack.tts):
        pod.requests.clear()
        pod.refuse = None
        pod.hold.set()
    return page_stack


@pytest.fixture(scope="session")
def open_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Tab]]:
    program = installed()
    if program is None:
        pytest.skip(MISSING)
    microphone = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # it beeps
    with browser(program, tmp_path_factory.mktemp("browser"), *microphone) as new_tab:
        yield new_tab


@pytest.fixture
def new_page(open_tab: Callable[[], Tab]) -> Iterator[Callable[[str], Tab]]:
    """Opens a gateway's page in a tab without a past; at the end nobody else was asked for anything, and the
    browser had nothing to say against it."""
    opened: list[tuple[str, Tab]] = []

    def new(url: str) -> Tab:
        tab = open_tab()
        tab.send("Page.addScriptToEvaluateOnNewDocument", source=SPY)
        tab.open(f"{url}/")
        opened.append((url, tab))
        return tab

    yield new
    for url, tab in opened:
        tab.value("1")  # what has happened so far is told
        asked = [
            e["params"]["request"]["url"] for e in tab.events if e["method"] == "Network.requestWillBeSent"
        ]
        assert [each for each in asked if not each.startswith((f"{url}/", "data:", "blob:"))] == []
        assert tab.complaints() == []


@pytest.fixture
def page(new_page: Callable[[str], Tab], behind: Stack) -> Tab:
    """The page of `behind`, ready."""
    tab = new_page(behind.gateway.url)
    tab.until("document.querySelector('#state').innerText === 'Serving step-audio-chat and step-audio-tts'")
    tab.until("document.querySelector('#voice').options.length === 2")
    return tab
