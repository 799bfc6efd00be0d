"""Proves that clusters at once never share an address, and that names which could harm are refused."""

import ipaddress
from pathlib import Path

import pytest

from stepaudio_cluster import netns
from stepaudio_cluster.errors import ClusterError
from stepaudio_cluster.settings import SLOTS, Addresses, Mode, Places, Record, Wish


def test_no_two_slots_share_an_address() -> None:
    networks = [
        ipaddress.ip_network(text) for slot in range(SLOTS) for text in Addresses.of_slot(slot).networks
    ]

    assert len(networks) == 3 * SLOTS
    assert len(list(ipaddress.collapse_addresses(networks))) <= len(networks)
    assert sum(network.num_addresses for network in ipaddress.collapse_addresses(networks)) == sum(
        network.num_addresses for network in networks
    )


def test_both_ends_lie_in_the_link_and_services_in_their_network() -> None:
    addresses = Addresses.of_slot(5)

    link = ipaddress.ip_network(addresses.link)
    assert {str(host) for host in link.hosts()} == {addresses.host, addresses.node}
    assert ipaddress.ip_address(addresses.dns) in ipaddress.ip_network(addresses.services)
    assert addresses.server == "https://10.213.5.2:6443"


@pytest.mark.parametrize(
    ("used", "free"),
    [([], True), (["192.0.2.0/24"], True), (["10.214.3.128/25"], False), (["10.0.0.0/8"], False)],
)
def test_a_slot_is_free_when_no_route_overlaps(used: list[str], free: bool) -> None:
    assert netns.free(Addresses.of_slot(3), [ipaddress.IPv4Network(text) for text in used]) is free


@pytest.mark.parametrize("name", ["", "Upper", "../etc", "a/b", "-x", "1a", "a" * 31])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="must match"):
        Wish(name)


def test_a_record_reads_back_as_written(tmp_path: Path) -> None:
    places = Places("one", tmp_path, tmp_path / "run")
    places.state.mkdir()
    record = Record(Mode.NODE, Addresses.of_slot(7), fake_gpus=4)

    assert Record.read(places) is None
    record.write(places)

    assert Record.read(places) == record
