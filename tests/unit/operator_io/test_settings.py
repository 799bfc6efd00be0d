"""The operator's settings: defaults, the environment, and a wrong value named in the error."""

import pytest

from stepaudio_operator.errors import SettingsError
from stepaudio_operator.kube.lease import LeaseSettings
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.settings import HealthSettings, LogSettings, Settings, from_environment


def test_everything_can_be_set_and_the_pod_gives_its_identity() -> None:
    settings = from_environment(
        {
            "POD_NAME": "operator-1",
            "POD_NAMESPACE": "system",
            "STEPAUDIO_OPERATOR_NAMESPACE": "speech",
            "STEPAUDIO_OPERATOR_LEASE_NAME": "lease",
            "STEPAUDIO_OPERATOR_LEASE_DURATION_S": "30",
            "STEPAUDIO_OPERATOR_RUNTIME_VERSION": "1.4.2",
            "STEPAUDIO_OPERATOR_IMAGE_REGISTRY": "registry.example.com/team",
            "STEPAUDIO_OPERATOR_WORKERS": "4",
            "STEPAUDIO_OPERATOR_LOG_FORMAT": "json",
            "STEPAUDIO_OPERATOR_LOG_LEVEL": "DEBUG",
            "STEPAUDIO_OPERATOR_HEALTH_HOST": "127.0.0.1",
            "STEPAUDIO_OPERATOR_HEALTH_PORT": "9090",
        }
    )
    assert settings == Settings(
        lease=LeaseSettings("system", "lease", "operator-1", 30.0, 10.0, 2.0),
        images=ImageDefaults("1.4.2", "registry.example.com/team"),
        namespace="speech",
        workers=4,
        log=LogSettings(True, "DEBUG"),
        health=HealthSettings("127.0.0.1", 9090),
    )


def test_an_empty_value_counts_as_not_set() -> None:
    settings = from_environment({"STEPAUDIO_OPERATOR_NAMESPACE": "", "STEPAUDIO_OPERATOR_WORKERS": " "})
    assert (settings.namespace, settings.workers, settings.lease.namespace) == (None, 16, "default")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
        ("HEALTH_PORT", "http"),
        ("LEASE_RENEW_S", "20"),
        ("LEASE_RETRY_S", "0"),
        ("IMAGE_REGISTRY", "registry.example.com/team/"),
        ("IMAGE_REGISTRY", "https://registry.example.com"),
        ("RUNTIME_VERSION", "1.4.2+build"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"STEPAUDIO_OPERATOR_{name}"):
        from_environment({f"STEPAUDIO_OPERATOR_{name}": value})
