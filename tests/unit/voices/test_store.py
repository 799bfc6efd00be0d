"""The voice store, on a folder and on a real S3 server: what one pod writes, another reads at once; one voice
a name; nothing of a deleted voice is left; what a crash left is swept; a failing store is called unavailable.
"""

from datetime import timedelta

import pytest

from stepaudio_runtime.errors import ConfigError, InputError, Unavailable
from stepaudio_runtime.voices.record import Consent, VoiceRecord, checked_name
from stepaudio_runtime.voices.store import open_store, utc_now

CONSENT = Consent(person="Li Hua", statement="I agree to my voice being imitated.")


def record(name: str, version: str = "a1") -> VoiceRecord:
    return VoiceRecord(
        name=name,
        version=version,
        created_at=1_764_000_000,
        transcript="你好",
        transcribed=False,
        duration_s=2.5,
        sha256="0" * 64,
        consent=CONSENT,
    )


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path, monkeypatch) -> str:
    if request.param == "folder":
        return f"file://{tmp_path}/voices"
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://voices/{tmp_path.name}"


async def test_what_one_pod_creates_another_has_at_once(url):
    gateway, pod = open_store(url), open_store(url)
    assert await gateway.all() == []
    made = [record("Ada"), record("小明")]
    for each in reversed(made):
        assert await gateway.create(each, b"wave of " + each.name.encode(), None)
    assert await pod.all() == made
    assert await pod.get("小明") == made[1]
    assert await pod.wave(made[1]) == b"wave of " + "小明".encode()
    assert await pod.features(made[0], "r1") is None
    await pod.keep_features(made[0], "r1", b"features")
    assert await gateway.features(made[0], "r1") == b"features"
    assert await gateway.features(made[0], "r2") is None, "of other models"


async def test_a_name_is_given_once_until_it_is_deleted(url):
    one, other = open_store(url), open_store(url)
    assert await one.create(record("Ada", "a1"), b"first", b"consent")
    assert not await other.create(record("Ada", "b2"), b"second", b"consent")
    assert await other.wave(record("Ada", "b2")) is None, "the loser leaves nothing"
    assert await one.wave(record("Ada", "a1")) == b"first"
    assert await other.delete("Ada")
    assert await one.create(record("Ada", "c3"), b"third", None)
    assert await other.all() == [record("Ada", "c3")]


async def test_nothing_of_a_deleted_voice_is_left(url):
    store = open_store(url)
    await store.create(record("Ada"), b"wave", b"consent")
    await store.keep_features(record("Ada"), "r1", b"features")
    assert await store.delete("Ada")
    assert await store.get("Ada") is None
    assert await store._list("") == []
    assert not await store.delete("Ada")


async def test_a_sweep_takes_what_is_old_and_belongs_to_no_voice(url):
    store = open_store(url)
    await store.create(record("Ada", "a1"), b"wave", b"consent")
    await store.keep_features(record("Ada", "a1"), "r1", b"features")
    await store.keep_features(record("Ada", "b2"), "r1", b"a pod that died left this")
    await store.keep_features(record("Bo", "c3"), "r1", b"and this")
    assert await store.sweep(utc_now()) == 0, "a voice may be in the making"
    assert await store.sweep(utc_now() + timedelta(hours=2)) == 2
    assert await store.features(record("Ada", "a1"), "r1") == b"features"
    assert await store.wave(record("Ada", "a1")) == b"wave"


async def test_a_spoilt_record_is_passed_over(url):
    store = open_store(url)
    await store.create(record("Ada"), b"wave", None)
    await store._put(f"{record('Bo').folder}/voice.json", b"{}")
    assert await store.all() == [record("Ada")]
    assert await store.get("Bo") is None


async def test_a_store_that_does_not_answer_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="voice store"):
        await open_store("s3://voices").get("Ada")
    (tmp_path / "file").write_text("")
    for bad in ("", "/voices", "ftp://voices", "s3://", f"file://{tmp_path}/file/below"):
        with pytest.raises(ConfigError, match="voice store"):
            open_store(bad)


MARKS = "a" + "\u0301\u0323" * 200_000  # to put them in order would take minutes


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a/b",
        "../x",
        ".x",
        "x.",
        "a" * 65,
        "a\nb",
        "a\x00",
        "LiRAP",
        "Li哼唱",
        "<|EOT|>",
        "taken",
        MARKS,
    ],
)
def test_names_that_no_voice_may_have(name):
    with pytest.raises(InputError) as error:
        checked_name(name, taken={"taken"})
    assert error.value.param == "name"


@pytest.mark.parametrize("name", ["a", "Ada Lovelace", "小明", "li-2.b_c", "a" * 64])
def test_names_that_a_voice_may_have(name):
    assert checked_name(name) == name


def test_two_spellings_of_one_name_are_one():
    assert checked_name("Jose\u0301") == checked_name("Jos\u00e9")
