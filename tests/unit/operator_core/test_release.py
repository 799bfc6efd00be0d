"""What the gateways are told to serve, and when they are told anew."""

from stepaudio_operator.records import PoolRecord, RoutedPool, Routing
from stepaudio_operator.release import plan_routing, release
from stepaudio_operator.spec import parse_deployment

OLD, NEW = "0000000a", "0000000b"


def pool_record(component: str, revision: str, ready: dict[str, int]) -> PoolRecord:
    raw = {
        "metadata": {"name": f"prod-{component}"},
        "spec": {"component": component, "deployment": "prod"},
        "status": {
            "revision": revision,
            "revisions": [{"name": name, "ready": count} for name, count in ready.items()],
        },
    }
    return PoolRecord.from_raw(raw)


SPEC = parse_deployment({"metadata": {"name": "prod"}, "spec": {"preset": "nano"}})


class TestRouting:
    def pools(self, **tts: int) -> dict[str, PoolRecord]:
        return {
            "chat": pool_record("chat", NEW, {NEW: 1}),
            "tts": pool_record("tts", NEW, tts),
            "tokenizer": pool_record("tokenizer", "", {}),
            "gateway": pool_record("gateway", NEW, {NEW: 1}),
        }

    def test_it_names_the_pools_that_have_a_revision(self) -> None:
        routing = plan_routing(SPEC, "prod", self.pools(), None)
        assert routing == Routing(
            generation=1,
            release=release({"chat": NEW, "tts": NEW}),
            serving=True,
            retry_after_s=None,
            pools={
                "chat": RoutedPool("prod-chat", 8000, {NEW: 100}),
                "tts": RoutedPool("prod-tts", 8000, {NEW: 100}),
            },
        )

    def test_its_generation_rises_only_when_it_changes(self) -> None:
        first = plan_routing(SPEC, "prod", self.pools(**{NEW: 1}), None)
        assert first is not None
        assert plan_routing(SPEC, "prod", self.pools(**{NEW: 5}), first) is None
        assert plan_routing(SPEC, "prod", self.pools(), first) is None
        mixed = plan_routing(SPEC, "prod", self.pools(**{OLD: 2, NEW: 1}), first)
        assert mixed is not None
        assert mixed.generation == 2
        assert mixed.pools["tts"].revisions == {OLD: 67, NEW: 33}

    def test_nothing_is_routed_without_a_gateway_or_without_pools(self) -> None:
        alone = parse_deployment(
            {"metadata": {"name": "prod"}, "spec": {"preset": "nano", "gateway": {"enabled": False}}}
        )
        assert plan_routing(alone, "prod", self.pools(), None) is None
        assert plan_routing(SPEC, "prod", {}, None) is None
