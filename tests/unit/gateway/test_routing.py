"""The gateway's choice of an endpoint: release, weights, load, conversations, failures; for any history."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepaudio_runtime.errors import Unavailable
from stepaudio_runtime.gateway.routing import (
    COOL_DOWN_S,
    Balancer,
    Endpoint,
    Listed,
    PoolRoute,
    Routing,
    listed_endpoints,
    parse_routing,
)
from stepaudio_runtime.gateway.static_routing import parse_static

OLD, NEW = "aaaaaaaa", "bbbbbbbb"


def endpoints(revision, count):
    return tuple(Endpoint(f"chat-{revision}-{i}", f"http://{revision}-{i}", revision) for i in range(count))


def balancer(weights, found, *, serving=True, retry_after=None):
    made = Balancer()
    route = PoolRoute("prod-chat", 8000, weights)
    made.update(Routing(1, "r", serving, retry_after, {"chat": route}), {"chat": found})
    return made


def test_the_documented_object_is_parsed():
    text = json.dumps(
        {
            "generation": 3,
            "release": "b1946ac9",
            "serving": True,
            "retryAfterSeconds": None,
            "pools": {"chat": {"service": "prod-chat", "port": 8000, "revisions": {"1f0c22aa": 100}}},
        }
    )
    assert parse_routing(text) == Routing(
        3, "b1946ac9", True, None, {"chat": PoolRoute("prod-chat", 8000, {"1f0c22aa": 100})}
    )


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"generation": 1, "release": "", "serving": true, "pools": {"x": {}}}']
)
def test_what_is_no_routing_object_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_routing(text)


def endpoint(pod, address, **conditions):
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}}


def test_only_pods_of_the_pool_that_stay_are_listed_and_ready_or_not():
    slices = [
        {
            "ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": 8123}],
            "endpoints": [
                endpoint("prod-chat-1f0c22aa-1", "10.0.0.2", ready=True),
                endpoint("prod-chat-1f0c22aa-0", "10.0.0.1"),  # absent counts as ready
                endpoint("prod-chat-1f0c22aa-2", "10.0.0.3", ready=False),
                endpoint("prod-chat-1f0c22aa-3", "10.0.0.4", ready=True, terminating=True),
                endpoint("stranger", "10.0.0.5", ready=True),
                {"addresses": ["10.0.0.6"]},
            ],
        },
        {"ports": None, "endpoints": [endpoint("prod-chat-9d3e77b1-0", "fd00::1", ready=True)]},
        {"ports": None, "endpoints": [endpoint("prod-chat-9d3e77b1-0", "10.0.0.7", ready=False)]},
        {"endpoints": None},
    ]
    assert listed_endpoints(slices, "prod-chat", 8000) == Listed(
        ready=(
            Endpoint("prod-chat-1f0c22aa-0", "http://10.0.0.1:8123", "1f0c22aa"),
            Endpoint("prod-chat-1f0c22aa-1", "http://10.0.0.2:8123", "1f0c22aa"),
            Endpoint("prod-chat-9d3e77b1-0", "http://[fd00::1]:8000", "9d3e77b1"),
        ),
        unready=(Endpoint("prod-chat-1f0c22aa-2", "http://10.0.0.3:8123", "1f0c22aa"),),
    )


def test_a_static_file_names_urls():
    routing, found = parse_static(
        '{"pools": {"chat": ["http://a:1/", {"name": "n", "url": "http://b", "revision": "r"}]}}'
    )
    assert found == {"chat": (Endpoint("http://a:1", "http://a:1", "static"), Endpoint("n", "http://b", "r"))}
    assert routing.pools["chat"].revisions == {"static": 100, "r": 100}
    for bad in ("[]", "{}", '{"pools": {"chat": [5]}}'):
        with pytest.raises(ValueError):
            parse_static(bad)


def test_no_routing_no_endpoint_and_not_serving_are_unavailable():
    cases = (
        (Balancer(), 5),
        (balancer({OLD: 100}, ()), 5),
        (balancer({OLD: 100}, endpoints(NEW, 2)), 5),
        (balancer({OLD: 0}, endpoints(OLD, 2), retry_after=17), 17),
        (balancer({OLD: 100}, endpoints(OLD, 2), serving=False, retry_after=60), 60),
    )
    for made, retry_after in cases:
        with pytest.raises(Unavailable) as refused:
            made.pick("chat", now=0)
        assert refused.value.retry_after_s == retry_after


def test_the_longest_unused_of_the_least_loaded_is_next():
    made = balancer({OLD: 100}, endpoints(OLD, 3))
    order = []
    for _ in range(6):
        chosen = made.pick("chat", now=0)
        with made.holding("chat", chosen):
            order.append(chosen.name[-1])
    assert order == list("012012")


def test_weights_are_shares_over_any_run():
    made = balancer({OLD: 95, NEW: 5}, endpoints(OLD, 2) + endpoints(NEW, 1))
    count = Counter(made.pick("chat", now=0).revision for _ in range(200))
    assert count == {OLD: 190, NEW: 10}
    keyed = Counter(made.pick("chat", now=0, key=bytes([i % 256, i // 256])).revision for i in range(4000))
    assert 120 < keyed[NEW] < 290


def test_a_weight_without_endpoints_leaves_its_share_to_the_others():
    made = balancer({OLD: 50, NEW: 50}, endpoints(NEW, 1))
    assert {made.pick("chat", now=0).revision for _ in range(5)} == {NEW}


def test_a_failed_endpoint_is_passed_over_for_a_while_unless_it_is_the_only_one():
    first, second = endpoints(OLD, 2)
    made = balancer({OLD: 100}, (first, second))
    made.failed("chat", first, now=10.0)
    assert {made.pick("chat", now=10.0 + COOL_DOWN_S / 2) for _ in range(4)} == {second}
    assert made.pick("chat", now=10.1, avoid=frozenset({second.name})) == first
    assert made.pick("chat", now=10.1 + COOL_DOWN_S) == first


KEYS = st.binary(min_size=1, max_size=40)


@settings(deadline=None)
@given(
    keys=st.lists(KEYS, min_size=1, max_size=30, unique=True), count=st.integers(2, 6), gone=st.integers(0, 5)
)
def test_a_conversation_moves_only_if_its_own_endpoint_goes(keys, count, gone):
    found = endpoints(OLD, count)
    whole, other_gateway = balancer({OLD: 100}, found), balancer({OLD: 100}, found)
    left = tuple(e for i, e in enumerate(found) if i != gone % count)
    smaller = balancer({OLD: 100}, left)
    for key in keys:
        before = whole.pick("chat", now=0, key=key)
        assert other_gateway.pick("chat", now=5, key=key) == before
        after = smaller.pick("chat", now=0, key=key)
        assert after == before or before not in left


@settings(max_examples=200, deadline=None)
@given(data=st.data(), count=st.integers(1, 5))
def test_load_stays_bounded_and_counts_are_exact_for_any_history(data, count):
    """Requests begin and end in any order, with and without conversations, while endpoints come and go."""
    made = balancer({OLD: 100}, endpoints(OLD, count))
    open_ = []
    for _ in range(data.draw(st.integers(0, 40))):
        action = data.draw(st.sampled_from(["begin", "talk", "end", "resize"]))
        if action == "resize":
            count = data.draw(st.integers(1, 5))
            route = PoolRoute("prod-chat", 8000, {OLD: 100})
            made.update(Routing(2, "r", True, None, {"chat": route}), {"chat": endpoints(OLD, count)})
        elif action == "end" and open_:
            _, place = open_.pop(data.draw(st.integers(0, len(open_) - 1)))
            place.__exit__(None, None, None)
        elif action != "end":
            key = data.draw(KEYS) if action == "talk" else None
            chosen = made.pick("chat", now=0, key=key)
            assert chosen in made.candidates("chat")
            loads = made.in_flight("chat")
            present = [loads.get(e.name, 0) for e in made.candidates("chat")]
            mine = loads.get(chosen.name, 0)
            if key is None:
                assert mine == min(present)
            else:
                assert mine < -(-5 * (sum(present) + 1) // (4 * len(present)))
            place = made.holding("chat", chosen)
            place.__enter__()
            open_.append((chosen.name, place))
        expected = Counter(name for name, _ in open_)
        assert {name: n for name, n in made.in_flight("chat").items() if n} == dict(expected)
    for _, place in open_:
        place.__exit__(None, None, None)
    assert not any(made.in_flight("chat").values())


RELEASES = {"one": OLD, "two": NEW}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_request_meets_two_releases_and_the_generation_tells_of_the_oldest(data):
    """Requests of several steps begin, go on and end in any order, while the routing object changes."""
    pools = ("tokenizer", "chat", "tts")
    found = {p: endpoints(OLD, 2) + endpoints(NEW, 2) for p in pools}
    made, generation, serving, release = Balancer(), 0, True, "one"
    on_their_way = []  # (context, path, release it met, generation it began under)
    changed_at = {}  # the first generation of the era that a path belongs to -> the last one

    def route(name, on):
        nonlocal generation, serving, release
        if (name, on) != (release, serving) or not generation:
            changed_at[generation + 1] = generation + 1
        else:
            changed_at[max(changed_at)] = generation + 1
        generation, serving, release = generation + 1, on, name
        routes = {p: PoolRoute(f"prod-{p}", 8000, {RELEASES[name]: 100}) for p in pools}
        made.update(Routing(generation, name, on, None if on else 9, routes), found)

    route("one", True)
    for _ in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["begin", "go on", "go on", "end", "route"]))
        if action == "route":
            route(data.draw(st.sampled_from(sorted(RELEASES))), data.draw(st.booleans()))
        elif action == "begin":
            context = made.path()
            on_their_way.append([context, context.__enter__(), None, None])
        elif on_their_way:
            one = data.draw(st.sampled_from(on_their_way))
            if action == "end":
                one[0].__exit__(None, None, None)
                on_their_way.remove(one)
                continue
            try:
                met = made.pick(data.draw(st.sampled_from(pools)), now=0, path=one[1]).revision
            except Unavailable:
                assert one[2] is None  # what has begun is never turned away half way
                assert not serving
                continue
            assert met == (one[2] or RELEASES[release])
            one[2:] = [met, one[3] or max(changed_at)]
        oldest = [changed_at[era] for *_, era in on_their_way if era]
        assert made.generation == min([*oldest, generation])
