"""What a request asks of a model, and which tiers may serve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from costopt.arguments import names
from costopt.errors import ConfigError
from costopt.routing.tier import Tier
from costopt.tokens import TokenCount, count_tokens

if TYPE_CHECKING:
    from costopt.routing.cascade import Reply

__all__ = ["RouteRequest", "eligible"]

_BYTES_A_TOKEN = 4
# A count that is an estimate is taken for a little more than it says.
_MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """What is to be routed.

    Attributes:
        text: What the estimator reads: the last human turn.
        size: UTF-8 bytes of all that is sent, which no tokenizer makes more tokens of; those of `text` if None.
        count: Tokens of all that is sent as a model counts, from its name; None counts `text`.
        tools: Whether tools are offered.
        vision: Whether there are images.
        json: Whether the answer must follow a JSON schema.
        regions: Where it may be answered; None: anywhere.
        tags: What a tier must have, all of it.
        max_output_tokens: Most tokens of the answer, if the request says.
        generations: How many answers are asked for at once.
        conversation: The conversation it belongs to; None: none, or not known yet.
        barred: Tiers that cannot serve it for a reason that only the caller knows, by name.
        tier: The tier that was asked for by name.
        valid: Whether an answer is what was asked for (its schema holds); None: nothing to check.
        next_conversation: From the answer, what the conversation will be known by from now on; None: as before.

    Example:
        >>> RouteRequest("Is the moon made of cheese?", tools=True).size
        27
    """

    text: str
    size: int = -1
    count: Callable[[str], TokenCount] | None = None
    tools: bool = False
    vision: bool = False
    json: bool = False
    regions: frozenset[str] | None = None
    tags: frozenset[str] = field(default_factory=frozenset)
    max_output_tokens: int | None = None
    generations: int = 1
    conversation: str | None = None
    barred: Mapping[str, str] = field(default_factory=dict)
    tier: str | None = None
    valid: Callable[[Any], bool] | None = None
    next_conversation: Callable[[Reply], str | None] | None = None

    def __post_init__(self) -> None:
        for what in ("regions", "tags"):
            value = getattr(self, what)
            if value is not None and not isinstance(value, frozenset):
                object.__setattr__(self, what, frozenset(names(what, value)))
        if self.size < 0:
            object.__setattr__(self, "size", len(self.text.encode("utf-8", "replace")))

    @property
    def likely_tokens(self) -> int:
        """A quick estimate of the input's tokens."""
        return -(-self.size // _BYTES_A_TOKEN)

    def tokens(self, model: str) -> TokenCount:
        """Tokens of the input, as this model counts."""
        return self.count(model) if self.count else count_tokens(self.text, model)


def eligible(
    tiers: Sequence[Tier],
    request: RouteRequest,
    regions: frozenset[str] | None = None,
    tags: frozenset[str] = frozenset(),
) -> tuple[list[int], dict[str, str]]:
    """Which tiers may serve a request at all.

    Args:
        tiers: From the cheapest to the strongest.
        request: What is asked.
        regions: Where any request may be answered; None: anywhere.
        tags: What any tier must have.

    Returns:
        The places of those that may, rising; and the others by name, each with the reason.

    Raises:
        ConfigError: If none may; it names each tier and why.

    Example:
        >>> eligible([Tier("gpt-4o-mini", vision=False), Tier("gpt-4o")], RouteRequest("What is this?", vision=True))
        ([1], {'gpt-4o-mini': 'no vision'})
    """
    may: list[int] = []
    excluded: dict[str, str] = {}
    for place, tier in enumerate(tiers):
        reason = _unfit(tier, request, regions, tags)
        if reason is None:
            may.append(place)
        else:
            excluded[tier.name] = reason
    if request.tier is not None:
        return _asked_for(tiers, request.tier, excluded)
    if not may:
        raise ConfigError(f"no tier may serve this request: {_listed(excluded)}: add a tier that can")
    return may, excluded


def _asked_for(tiers: Sequence[Tier], name: str, excluded: dict[str, str]) -> tuple[list[int], dict[str, str]]:
    place = next((i for i, tier in enumerate(tiers) if tier.name == name), None)
    if place is None:
        names = ", ".join(repr(tier.name) for tier in tiers)
        raise ConfigError(f"there is no tier {name!r} to send this request to: the tiers are {names}")
    if name in excluded:
        raise ConfigError(f"tier {name!r}, which was asked for, may not serve this request: {excluded[name]}")
    others = {tier.name: "another was asked for" for tier in tiers if tier.name != name}
    return [place], {**others, **excluded}


def _unfit(tier: Tier, request: RouteRequest, regions: frozenset[str] | None, tags: frozenset[str]) -> str | None:
    if tier.name in request.barred:
        return request.barred[tier.name]
    for allowed in (regions, request.regions):
        if allowed is not None and tier.region not in allowed:
            return f"region {tier.region or 'unknown'} is not among {', '.join(sorted(allowed))}"
    missing = (tags | request.tags) - frozenset(tier.tags)
    if missing:
        return f"no tag {', '.join(sorted(missing))}"
    lacking = tier.lacks(request.tools, request.vision, request.json)
    return f"no {lacking}" if lacking else _too_long(tier, request)


def _too_long(tier: Tier, request: RouteRequest) -> str | None:
    """Counts only where the number of bytes leaves a doubt."""
    window = tier.window
    room = request.max_output_tokens or 0
    if window is None or request.size + room <= window:
        return None
    count = request.tokens(tier.model_name)
    needed = (count.tokens if count.exact else int(count.tokens * _MARGIN)) + room
    return f"needs {needed:,} tokens, has {window:,}" if needed > window else None


def _listed(excluded: Mapping[str, str]) -> str:
    return "; ".join(f"{name!r}: {reason}" for name, reason in excluded.items())
