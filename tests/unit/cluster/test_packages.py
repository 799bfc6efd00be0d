"""On which distributions missing packages are installed without asking."""

import pytest

from stepaudio_cluster.packages import has_apt_packages


@pytest.mark.parametrize(
    ("os_release", "installs"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n', True),
        ('NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n', True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ('ID="ubuntu"\n', True),
        ('NAME="Fedora Linux"\nID=fedora\nHOME_URL="https://debian.example.com"\n', False),
        ("", False),
    ],
)
def test_debian_and_what_is_made_of_it(os_release: str, installs: bool) -> None:
    assert has_apt_packages(os_release) == installs
