"""Settings come from the environment, and a bad one names its variable; keys are read as documented."""

import hashlib
from pathlib import Path

import pytest

from stepaudio_runtime.errors import ConfigError
from stepaudio_runtime.gateway.errors import ApiError
from stepaudio_runtime.gateway.keys import ApiKeys, read_hashes
from stepaudio_runtime.gateway.settings import GatewaySettings, read_settings


def test_the_environment_of_a_pod():
    environ = {
        "STEPAUDIO_ROUTING_CONFIGMAP": "prod-routing",
        "STEPAUDIO_API_KEYS_DIR": "/etc/stepaudio/keys",
        "STEPAUDIO_MAX_AUDIO_S": "60",
        "STEPAUDIO_MAX_IN_FLIGHT": "8",
        "STEPAUDIO_DRAIN_TIMEOUT_S": "600",
        "STEPAUDIO_REVISION": "1f0c22aa",
        "POD_NAMESPACE": "speech",
        "STEPAUDIO_PAGE": "off",
    }
    assert read_settings(environ) == GatewaySettings(
        routing_configmap="prod-routing",
        api_keys_dir=Path("/etc/stepaudio/keys"),
        max_audio_s=60,
        max_in_flight=8,
        drain_timeout_s=600,
        revision="1f0c22aa",
        namespace="speech",
        page=False,
    )


def test_the_largest_body_fits_into_the_budget_of_all():
    mib, routing = 1 << 20, {"STEPAUDIO_STATIC_ROUTING": "/x"}
    found = [
        read_settings(routing | {"STEPAUDIO_MAX_BODY_MIB": mebibytes}) for mebibytes in ("1", "64", "200")
    ]
    assert [(each.max_body // mib, each.body_budget // mib) for each in found] == [
        (1, 128),
        (64, 128),
        (200, 200),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STEPAUDIO_MAX_AUDIO_S", "long"),
        ("STEPAUDIO_MAX_AUDIO_S", "nan"),
        ("STEPAUDIO_MAX_IN_FLIGHT", "0"),
        ("STEPAUDIO_PORT", "70000"),
        ("STEPAUDIO_DRAIN_TIMEOUT_S", "-1"),
        ("STEPAUDIO_PAGE", "no"),
    ],
)
def test_a_bad_setting_names_its_variable(name, value):
    with pytest.raises(ConfigError, match=name):
        read_settings({"STEPAUDIO_STATIC_ROUTING": "/x", name: value})


def test_without_a_source_of_routing_there_is_no_gateway():
    with pytest.raises(ConfigError, match="STEPAUDIO_ROUTING_CONFIGMAP"):
        read_settings({})


def test_keys_are_read_from_every_file_and_only_by_hash(tmp_path):
    one, two, three = (hashlib.sha256(key).hexdigest() for key in (b"one", b"two", b"three"))
    (tmp_path / "..data").mkdir()
    (tmp_path / "a").write_text(f"# comment\n\nsha256:{one}\n  SHA256:{two.upper()}  \nsha256:12\none\n")
    (tmp_path / "b").write_text(f"sha256:{three}")
    assert read_hashes(tmp_path) == {bytes.fromhex(digest) for digest in (one, two, three)}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic one", "Bearer two", "one"])
def test_what_is_no_valid_key_is_a_401(tmp_path, header):
    (tmp_path / "a").write_text(f"sha256:{hashlib.sha256(b'one').hexdigest()}")
    keys = ApiKeys(tmp_path)
    keys.check("Bearer one")
    keys.check("bearer  one ")
    with pytest.raises(ApiError) as refused:
        keys.check(header)
    assert refused.value.status == 401
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}


def test_an_empty_folder_admits_nobody_and_no_folder_everybody(tmp_path):
    ApiKeys(None).check(None)
    with pytest.raises(ApiError):
        ApiKeys(tmp_path).check("Bearer one")
    with pytest.raises(ConfigError):
        ApiKeys(tmp_path / "missing")


def test_a_folder_that_vanishes_leaves_the_keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "a").write_text(f"sha256:{hashlib.sha256(b'one').hexdigest()}")
    keys = ApiKeys(folder)
    (folder / "a").unlink()
    folder.rmdir()
    keys.reload()
    keys.check("Bearer one")
