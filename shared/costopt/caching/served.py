"""What a served answer says about itself, as plain data that a framework can carry along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costopt.caching.results import CacheHit
from costopt.errors import ConfigError

__all__ = ["explanation", "rejection_of"]

_REJECTED_BY = ("tenant", "request_key", "key", "scope", "asked", "matched", "probability")


def explanation(hit: CacheHit) -> dict[str, Any]:
    """Why an answer was served, what that avoided, and what `rejection_of` needs.

    Args:
        hit: As a lookup gave it.

    Returns:
        JSON-like data; ``avoided_usd`` is None where the model's price is not known.

    Example:
        >>> hit = CacheHit(Answer(()), "exact", "Hi", "Hi", 1.0, "same text", "k", "k", "t", 2.0)
        >>> explanation(hit)["cache"], explanation(hit)["reason"]
        ('exact', 'same text')
    """
    usage, avoided = hit.answer.usage, hit.answer.cost
    return {
        "cache": hit.tier,
        "reason": hit.reason,
        "similarity": round(hit.similarity, 4),
        "probability": None if hit.probability is None else round(hit.probability, 4),
        "matched": hit.cached,
        "age": round(hit.age, 3),
        "avoided_input_tokens": usage.input_tokens,
        "avoided_output_tokens": usage.output_tokens,
        "avoided_usd": None if avoided is None else str(avoided),
        "tenant": hit.tenant,
        "request_key": hit.request_key,
        "key": hit.key,
        "scope": hit.scope,
        "asked": hit.asked,
    }


def rejection_of(served: Any) -> tuple[Any, ...]:
    """The arguments of `SemanticCache.reject_match`.

    Args:
        served: What `explanation` said of the answer.

    Returns:
        The arguments, in their order.

    Raises:
        ConfigError: If the answer did not come from a cache.

    Example:
        >>> rejection_of(None)
        Traceback (most recent call last):
        ...
        costopt.errors.ConfigError: this was not served from the cache: give the answer as it was served, or the hit
    """
    if not isinstance(served, Mapping) or "request_key" not in served:
        raise ConfigError("this was not served from the cache: give the answer as it was served, or the hit")
    return tuple(served.get(name) for name in _REJECTED_BY)
