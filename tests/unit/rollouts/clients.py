"""Clients who call at every moment of a change."""

from tests.unit.rollouts.world import World


def served_through(world: World, rounds: int) -> None:
    """Somebody calls at every moment of so many `rounds`, a second each; nobody is turned away."""
    for _ in range(rounds):
        for uid in sorted(world.gateways):
            world.begin_request(uid)
        for request in list(world.requests):
            world.request_moves(request)
        world.round()
        world.pass_time(1)
    assert world.settle()
    assert set(world.told) == {"served"}
