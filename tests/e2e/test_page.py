"""The gateway's page in a real browser, before the nano models on a real kubelet: it hears a recording and
answers aloud, and a typed wish switches a light by a tool call.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio_cluster.make_up import DEPLOYMENT, cluster_url, page_url
from tests.contract.openai_client.page.devtools import ANSWERED, MISSING, SPY, Tab, browser, installed
from tests.e2e.load import QUESTION, SAID
from tests.e2e.nano import Nano

pytestmark = pytest.mark.node

LIGHT = "document.querySelector('[aria-label=\"kitchen light\"]').getAttribute('aria-pressed')"
SECONDS = "played.reduce((sum, piece) => sum + piece.samples.length / piece.rate, 0)"
LOUDEST = "Math.max(...played.map((piece) => Math.max(...piece.samples.map(Math.abs))))"


@pytest.fixture
def page(nano: Nano, tmp_path: Path) -> Iterator[Tab]:
    program = installed()
    if program is None:
        pytest.skip(MISSING)
    nano.wait_ready()
    with cluster_url(nano.cluster, f"{DEPLOYMENT}-gateway") as url, browser(program, tmp_path) as new_tab:
        tab = new_tab()
        tab.send("Page.addScriptToEvaluateOnNewDocument", source=SPY)
        tab.open(page_url(url))
        tab.until("/^Serving/.test(document.querySelector('#state').innerText)")
        yield tab
        # The Service speaks plain HTTP, for which browsers leave that header out of account, and say so.
        assert [said for said in tab.complaints() if "Cross-Origin-Opener-Policy" not in said] == []


def test_a_recording_is_heard_and_answered_aloud(page: Tab) -> None:
    page.choose_file("#file", QUESTION)
    page.until(ANSWERED, seconds=60)
    assert page.text("#log .you .words").lower().rstrip(".") == SAID.lower().rstrip(".")
    assert page.text("#log .model .words") == "Three nine five."
    assert 0.8 < page.value(SECONDS) < 3
    assert 0.05 < page.value(LOUDEST) <= 1


def test_what_is_typed_switches_a_light(page: Tab) -> None:
    assert page.value(LIGHT) == "false"
    page.type("#words", "turn on the light in the kitchen")
    page.press("Enter", 13, "\r")
    page.until(f"{LIGHT} === 'true'", seconds=60)
    page.until(ANSWERED, seconds=60)
    assert page.text("#home-news") == "The model switched the kitchen light on."
    assert page.value(SECONDS) > 0.5
