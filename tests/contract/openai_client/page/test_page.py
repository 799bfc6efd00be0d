"""The page's files over HTTP: their headers and caching, nothing inline or from elsewhere, on and off."""

import re
from importlib.resources import files

import httpx
import pytest

from stepaudio_runtime.codec.controls import NAMES
from stepaudio_runtime.codec.tags import Group

FILES = sorted(each.name for each in files("stepaudio_runtime.gateway").joinpath("page").iterdir())
PATHS = ["/", *(f"/page/{name}" for name in FILES)]
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


@pytest.mark.parametrize("path", PATHS)
def test_headers(stack, path):
    answer = httpx.get(stack.gateway.url + path)
    headers = dict(answer.headers)
    for name in ("date", "server", "etag", "content-length"):
        headers.pop(name, None)
    kind = "html" if path == "/" else path.rpartition(".")[2]
    assert answer.status_code == 200
    assert headers == {
        "content-type": f"{TYPES[kind]}; charset=utf-8",
        "cache-control": "no-cache",
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
            "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
        "permissions-policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }


@pytest.mark.parametrize("path", PATHS)
def test_what_a_browser_has_is_not_sent_again(stack, path):
    tag = httpx.get(stack.gateway.url + path).headers["ETag"]
    again = httpx.get(stack.gateway.url + path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    changed = httpx.get(stack.gateway.url + path, headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200 and changed.content


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(stack):
    page = httpx.get(stack.gateway.url + "/").text
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {link for link in links if not link.startswith(("#", "data:"))} == {
        "page/page.css",
        "page/page.js",
    }
    for name in FILES:
        text = httpx.get(f"{stack.gateway.url}/page/{name}").text
        assert set(re.findall(r"https?://[^\s'\"]+", text)) <= {"http://www.w3.org/2000/svg"}, name


def test_what_can_be_chosen_is_what_the_model_has(stack):
    page = httpx.get(stack.gateway.url + "/").text
    for group in (Group.EMOTION, Group.RATE):
        select = re.search(rf'<select id="{group.value}">(.*?)</select>', page, re.DOTALL)
        assert select is not None
        assert sorted(re.findall(r'value="(\w+)"', select[1])) == sorted(NAMES[group])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("GET", "/page/", 404),
        ("GET", "/page/..%2fkeys.py", 404),
        ("GET", "/page/keys.py", 404),
    ],
)
def test_nothing_else_is_served(stack, method, path, status):
    answer = httpx.request(method, stack.gateway.url + path)
    assert (answer.status_code, "error" in answer.json()) == (status, True)


def test_it_can_be_off(start_gateway, stack):
    gateway = start_gateway({"tts": [stack.tts.url]}, STEPAUDIO_PAGE="off")
    assert [httpx.get(gateway.url + path).status_code for path in PATHS] == [404] * len(PATHS)
    assert httpx.get(f"{gateway.url}/v1/models").status_code == 200
