"""The `rollout` part of the specs: how pods are replaced, and when a revision is given up."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from stepaudio_operator.spec.fields import Duration, Int, Model, Rule

Strategy = Literal["Auto", "Surge", "InPlace", "Recreate", "Canary"]
AUTO: Final = "Auto"
SURGE: Final = "Surge"
IN_PLACE: Final = "InPlace"
RECREATE: Final = "Recreate"
CANARY: Final = "Canary"
SURGE_TIMEOUT = "5m"


class CanaryStep(Model):
    """A share of the traffic, held for a while."""

    traffic: Annotated[Int, Field(ge=1, le=99)] = Field(
        description="Per cent of the requests that go to the new revision."
    )
    pause: Duration = Field(description="How long it is watched at this share before the next step.")


class Canary(Model):
    """The steps of strategy Canary, and what ends it. A step that too few requests reach passes."""

    steps: Annotated[tuple[CanaryStep, ...], Field(min_length=1, max_length=10)] = Field(
        description="Shares of the traffic, rising; after the last the new revision takes all."
    )
    min_requests: Annotated[Int, Field(ge=1, le=100000)] = Field(
        default=20, description="Requests that the new revision has to have had before it is judged."
    )
    max_error_percent: Annotated[Int, Field(ge=0, le=100)] = Field(
        default=5, description="Failed requests, in points above those of the old revision."
    )
    max_slowdown_percent: Annotated[Int, Field(ge=1, le=1000)] = Field(
        default=50, description="How much later the first audio may come than from the old revision."
    )

    RULES = (
        Rule(
            cel="self.steps.map(s, s.traffic).isSorted()",
            message="the shares of the steps rise: put them in order",
            field="steps",
            holds=lambda s: [x.traffic for x in s.steps] == sorted(x.traffic for x in s.steps),
        ),
    )


class Rollout(Model):
    """How pods are replaced. The gateway's always surge, by its Deployment."""

    strategy: Strategy = Field(
        default="Auto",
        description=(
            "Auto: one pod more at first, in place where no node has had room for it for surgeTimeout."
            " Surge: one pod more, however long it waits. InPlace: an old pod goes first, within"
            " maxUnavailable. Recreate: all at once, with an outage. Canary: by shares of the traffic."
        ),
    )
    max_unavailable: Annotated[Int, Field(ge=1, le=100)] = Field(
        default=1, description="Replicas of a pool that may be missing at once while it is being changed."
    )
    drain_timeout: Duration | None = Field(
        default=None, description="How long a pod that ends waits for its requests; nano 60s, step-audio 10m."
    )
    surge_timeout: Duration | None = Field(
        default=None,
        description=f"How long Auto lets one pod more wait for a node; {SURGE_TIMEOUT} where it is left out.",
    )
    progress_deadline: Duration = Field(
        default="45m",
        description=(
            "How long a new pod may load, counted while its container runs; waiting for a node, an image"
            " or a volume does not count."
        ),
    )
    auto_rollback: bool = Field(
        default=True, description="Whether a pool goes back to its last good revision where a new one fails."
    )
    history_limit: Annotated[Int, Field(ge=0, le=100)] = Field(
        default=10, description="Stored revisions that are kept beside those in use."
    )
    canary: Canary | None = Field(default=None, description="Of strategy Canary.")

    RULES = (
        Rule(
            cel="self.strategy != 'Canary' || has(self.canary)",
            message="strategy Canary needs its steps: set canary.steps",
            field="canary",
            holds=lambda s: s.strategy != CANARY or s.canary is not None,
        ),
        Rule(
            cel="self.strategy == 'Canary' || !has(self.canary)",
            message="only strategy Canary reads this: set strategy to Canary or remove it",
            field="canary",
            holds=lambda s: s.strategy == CANARY or s.canary is None,
        ),
        Rule(
            cel="self.strategy == 'Auto' || !has(self.surgeTimeout)",
            message="only strategy Auto stops waiting: set strategy to Auto or remove it",
            field="surgeTimeout",
            holds=lambda s: s.strategy == AUTO or s.surge_timeout is None,
        ),
    )
