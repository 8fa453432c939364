"""The options of a router as the adapters take them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from costopt.arguments import known_options, names
from costopt.embedding import Embedder
from costopt.errors import ConfigError
from costopt.prompts import Split
from costopt.routing.budget import Spendable
from costopt.routing.cascade import Cascade
from costopt.routing.decision import RouteDecision
from costopt.routing.estimator import Estimator
from costopt.routing.policies import Policy
from costopt.routing.request import RouteRequest
from costopt.routing.router import Router
from costopt.routing.sticky import Sticky

__all__ = ["RoutingOptions", "router_of"]


class RoutingOptions(TypedDict, total=False):
    """The options of `costopt.Router`; its `tags` are `required_tags` here, since frameworks have tags of their own."""

    estimator: Estimator
    policy: Policy
    thresholds: Sequence[float]
    default: str
    embedder: Embedder
    regions: Iterable[str]
    required_tags: Iterable[str]
    budget: Spendable
    sticky: Sticky | bool
    split: Split
    cascade: Cascade
    shadow: bool
    explore: float
    log: Callable[[RouteRequest, RouteDecision], None]
    seed: int


def router_of(tiers: Sequence[Any], router: Router | None, options: Mapping[str, Any]) -> Router:
    """The router that was given, or one over these tiers.

    Args:
        tiers: From the cheapest to the strongest.
        router: One that is there already.
        options: `RoutingOptions`.

    Raises:
        ConfigError: If both are given, or an option is not known or not what it must be.

    Example:
        >>> router_of([Tier("gpt-4o-mini"), Tier("gpt-4o")], None, {"required_tags": ()}).names
        ('gpt-4o-mini', 'gpt-4o')
    """
    if router is not None:
        if tiers or options:
            raise ConfigError("give either router= or tiers and options, not both")
        return router
    known_options("a router", options, [*RoutingOptions.__annotations__, "tags"])
    given = dict(options)
    if "required_tags" in given:
        given["tags"] = names("required_tags", given.pop("required_tags"))
    return Router(tiers, **given)
