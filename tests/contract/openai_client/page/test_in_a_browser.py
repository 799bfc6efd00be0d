"""The page in a real browser, before a real gateway and small pods: what is typed, said, pressed and heard.

Sound is checked where the page hands it to the browser, and the state of the sound output is the browser's
own word (the DevTools' WebAudio domain).
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import sentencepiece

from stepaudio_runtime.codec.tools import system_with_tools
from stepaudio_runtime.engine.domain.tools import FUNCTIONS
from tests.contract.openai_client.page.devtools import ANSWERED

ENTER, TAB = ("Enter", 13, "\r"), ("Tab", 9)
TEXT = "halting light"
SPOKEN = f"(高兴1)(慢速2){TEXT}"  # 50 ms a character, tags and all
LIGHT = (
    'say <tool_call>{"name":"switch","arguments":{"room":"kitchen","thing":"light","state":"on"}}</tool_call>'
)


def choose(tab, select, value):
    tab.value(f"document.querySelector('{select}').value = '{value}'")


def played(tab):
    """All samples that were given to the sound output, at 24 kHz."""
    pieces = tab.value("played")
    assert {piece["rate"] for piece in pieces} == {24000}
    return np.concatenate([np.array(piece["samples"]) for piece in pieces])


def hertz(wave):
    return np.count_nonzero(np.diff(np.signbit(wave))) / 2 / len(wave) * 24000


def sound_output(tab):
    """The states of the live sound output, as the browser tells them."""
    tab.value("1")
    contexts = [e["params"]["context"] for e in tab.events if e["method"].startswith("WebAudio.context")]
    return [context["contextState"] for context in contexts if context.get("contextType") == "realtime"]


def turns_of(chat, tokenizer_model):
    """The prompt that the chat pod got last, a text a turn."""
    text = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model)
    turns = []
    for id_ in chat.requests[-1]["prompt"]:
        if id_ == 4:
            turns.append([])
        elif id_ != 3:
            turns[-1].append(id_)
    return [text.decode(ids) for ids in turns]


def test_a_text_is_heard_while_it_is_made(page, behind):
    behind.tts.hold.clear()  # the second half is not made yet
    choose(page, "#emotion", "happy")
    choose(page, "#rate", "very_slow")
    choose(page, "#voice", "lulu")
    page.type("#text", TEXT)
    page.click("#say")
    page.until("played.length > 0")
    assert sound_output(page)[-1] == "running"
    assert page.text("#arrived-in") == "–"
    assert re.fullmatch(r"\d+\.\d\d s", page.text("#first-sound"))
    first_half = len(played(page))
    assert 0 < first_half < 0.05 * len(SPOKEN) * 24000 * 0.6

    behind.tts.hold.set()
    page.until("document.querySelector('#say-stop').disabled")
    wave = played(page)
    assert len(wave) == pytest.approx(0.05 * len(SPOKEN) * 24000, abs=2)
    assert hertz(wave) == pytest.approx(440, rel=0.02)
    assert page.text("#speech-length") == f"{len(wave) / 24000:.2f} s"
    assert behind.tts.requests == [{"input": SPOKEN, "voice": "lulu"}]

    page.click("#again")
    page.until(f"played.reduce((sum, piece) => sum + piece.samples.length, 0) === {2 * len(wave)}")


def test_pieces_follow_each_other_and_a_gap_is_admitted(page, behind):
    behind.tts.hold.clear()
    page.type("#text", TEXT)
    page.click("#say")
    page.until("played.length > 0")
    page.value("new Promise((resolve) => setTimeout(resolve, 1000))")  # longer than what is there
    behind.tts.hold.set()
    page.until("document.querySelector('#say-stop').disabled")
    pieces = page.value("played.map(({at, samples}) => [at, samples.length / 24000])")
    waits = int(page.text("#waits"))
    gaps = [b[0] - (a[0] + a[1]) for a, b in pairwise(pieces)]
    assert sum(gap > 1e-6 for gap in gaps) == waits > 0
    assert min(gaps) > -1e-6


def test_a_wave_is_written_down_and_answered_aloud(page, behind, tone, tmp_path):
    file = tmp_path / "said.wav"
    file.write_bytes(tone(seconds=0.6, rate=44100, hertz=500, channels=2))
    page.choose_file("#file", file)
    page.until(ANSWERED)
    heard, answer = page.text("#log .you .words"), page.text("#log .model .words")
    assert re.fullmatch(r"heard 2\d codes at (49\d|50\d) Hz", heard)
    assert answer == heard  # the small model says the same to both
    assert len(behind.chat.requests) == 2  # the transcription and the answer
    assert behind.tts.requests == [{"input": answer}]
    assert len(played(page)) == pytest.approx(0.05 * len(answer) * 24000, abs=2)


def test_the_microphone_is_heard(page):
    page.click("#record")
    page.until("document.querySelector('#record').innerText === 'Stop and send'")
    page.value("new Promise((resolve) => setTimeout(resolve, 1200))")
    page.click("#record")
    page.until(ANSWERED)
    assert re.fullmatch(r"heard \d+ codes at \d+ Hz", page.text("#log .you .words"))
    assert page.text("#record") == "Record"


def test_a_call_switches_the_light_and_the_model_is_told(page, behind, tokenizer_model):
    light = "document.querySelector('[aria-label=\"kitchen light\"]').getAttribute('aria-pressed')"
    assert page.value(light) == "false"
    page.type("#words", LIGHT)
    page.press(*ENTER)
    page.until(f"{light} === 'true'")
    page.until("document.querySelector('#log .model .words').innerText.includes('ok')")
    lit = page.value("[...document.querySelectorAll('[aria-pressed=true]')].map((e) => e.ariaLabel)")
    assert lit == ["kitchen light"]
    assert page.text("#home-news") == "The model switched the kitchen light on."
    # The tools and their results are, word by word, those that the nano models are trained on.
    assert turns_of(behind.chat, tokenizer_model) == [
        "system\n" + system_with_tools("", list(FUNCTIONS.values())),
        f"human\n{LIGHT}",
        f"assistant\n{LIGHT.removeprefix('say ')}",
        'tool\n{"ok": true}',
        "assistant\n",
    ]


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ({"name": "timer", "arguments": {"count": 2, "unit": "hour"}}, r'\{"ok": true\}'),
        ({"name": "time", "arguments": {}}, r'\{"time": "(1?\d):[0-5]\d"\}'),
        (
            {"name": "switch", "arguments": {"room": "cellar", "thing": "light", "state": "on"}},
            r'\{"ok":false,"error":"there is no such thing here"\}',
        ),
        (
            {"name": "timer", "arguments": {"count": "<b>", "unit": "hour"}},
            r'\{"ok":false,"error":"this is no length of time"\}',
        ),
    ],
)
def test_what_came_of_a_call(page, behind, tokenizer_model, call, result):
    page.type("#words", f"say <tool_call>{json.dumps(call)}</tool_call>")
    page.press(*ENTER)
    page.until("/→/.test(document.querySelector('#log .model .calls')?.innerText)")
    assert re.search(f"→ {result}$", page.text("#log .model .calls"))
    page.until("document.querySelector('#talk-stop').disabled")
    assert re.fullmatch(f"tool\n{result}", turns_of(behind.chat, tokenizer_model)[-2])
    assert page.value("document.querySelector('#timers').childElementCount") == (
        1 if call["arguments"].get("count") == 2 else 0
    )


def test_the_last_exchange_goes_along(page, behind, tokenizer_model):
    page.value("document.querySelector('#tools').checked = document.querySelector('#aloud').checked = false")
    for words in ("say one", "say two", "say three"):
        page.type("#words", words)
        page.press(*ENTER)
        page.until(f"document.querySelector('#log').lastChild?.innerText?.includes('{words[4:]}\\n')")
        page.until("document.querySelector('#talk-stop').disabled")
    expected = ["human\nsay two", "assistant\ntwo", "human\nsay three", "assistant\n"]
    assert turns_of(behind.chat, tokenizer_model) == expected
    assert page.value("played.length") == 0  # the answers were not to be spoken


@pytest.mark.parametrize(
    ("text", "refuse", "words"),
    [
        ("long " * 13, None, "not to be spoken"),
        ("hello", (503, {"Retry-After": "7"}), "Try again in "),
        ("break", None, "The answer broke off before its end."),
    ],
)
def test_a_fault_is_told_in_words(page, behind, text, refuse, words):
    behind.tts.refuse = refuse
    page.type("#text", text)
    page.click("#say")
    page.until("!document.querySelector('#speak-fault').hidden")
    assert words in page.text("#speak-fault")
    behind.tts.refuse = None
    page.type("#text", "hello")
    page.click("#say")
    page.until("/s/.test(document.querySelector('#arrived-in').innerText)")
    assert page.value("document.querySelector('#speak-fault').hidden")


def test_a_key_is_typed_once_and_kept_in_the_tab(new_page, behind, start_gateway, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "a").write_text(f"sha256:{hashlib.sha256(b'sk-4711').hexdigest()}\n")
    gateway = start_gateway({"tts": [behind.tts.url]}, STEPAUDIO_API_KEYS_DIR=str(tmp_path / "keys"))
    tab = new_page(gateway.url)
    for typed, said in (("sk-0815", ""), ("sk-4711", "This key is not among the gateway's.")):
        tab.until("document.querySelector('#key-dialog').open && document.activeElement.id === 'key'")
        tab.until(f"document.querySelector('#key-fault').innerText === {json.dumps(said)}")
        tab.send("Input.insertText", text=typed)
        tab.press(*ENTER)
    tab.until("document.querySelector('#state').innerText === 'Serving step-audio-tts'")
    assert tab.text("#talk-absent") == "This deployment serves no chat model."
    tab.click("#say")
    tab.until("played.length > 0")
    kept = tab.value("[{...sessionStorage}, {...localStorage}, document.cookie, location.href]")
    assert kept == [{"stepaudio-key": "sk-4711"}, {}, "", f"{gateway.url}/"]
    assert not tab.value("document.documentElement.outerHTML.includes('sk-4711')")

    tab.open(f"{gateway.url}/")
    tab.until("document.querySelector('#state').innerText === 'Serving step-audio-tts'")
    tab.click("#forget")
    tab.until("document.querySelector('#key-dialog').open")
    assert tab.value("({...sessionStorage})") == {}
    other = new_page(gateway.url)
    other.until("document.querySelector('#key-dialog').open")


def test_the_keyboard_alone_is_enough(page):
    seen = []
    while not seen or seen[-1] != "say":
        page.press(*TAB)
        seen.append(page.value("document.activeElement.id || document.activeElement.innerText"))
        assert len(seen) < 20, seen
    expected = ["Skip to the content", "text", "the kitchen light is on"]
    assert seen[:3] == expected
    page.press(*ENTER)
    page.until("played.length > 0")
    page.value("document.querySelector('[aria-label=\"kitchen light\"]').focus()")
    page.press("ArrowDown", 40)
    page.press("ArrowRight", 39)
    page.press(*ENTER)
    lit = page.value("[...document.querySelectorAll('[aria-pressed=true]')].map((e) => e.ariaLabel)")
    assert lit == ["bedroom lamp"]
    page.press(*TAB)  # one stop for the whole home
    assert page.value("document.activeElement.id") == "refresh"


def test_everything_that_can_be_used_has_a_name(page):
    used = {"button", "textbox", "combobox", "slider", "checkbox", "link", "img", "log"}
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in used
    ]
    assert [each for each in named if not each[1].strip()] == []
    assert {"button", "textbox", "combobox", "slider", "checkbox", "link", "log"} <= {
        role for role, _ in named
    }


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_nothing_sticks_out_of_the_screen(page, width):
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
    assert page.value("document.documentElement.scrollWidth") == width
