"""What the options of a router must be: checked when it is made, for else they fail at the first request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costopt.arguments import able, switch

__all__ = ["check_kinds"]

# What an option must be able to do, and what is right if it cannot.
_ABLE = {
    "estimator": ("scores", 'give an estimator, as in estimator=load_router("router") for a file of one'),
    "policy": ("thresholds", "give a target, as in policy=StrongShare(0.3)"),
    "embedder": ("embed", "give an embedder, as in embedder=MiniLMEmbedder()"),
    "budget": ("reserve", "give dollars in a window, as in budget=Budget(5, seconds=86_400), or a SpendingLimit"),
    "cascade": ("verdict", "give a cascade, as in cascade=Cascade(min_logprob=-0.5)"),
    "log": ("__call__", 'give a function of request and decision, as in log=DecisionLog("decisions.jsonl")'),
    "sticky": ("keep", "give True or False, or how, as in sticky=Sticky(seconds=600)"),
}


def check_kinds(options: Mapping[str, Any]) -> None:
    """Refuse options that cannot do what the router will ask of them.

    Args:
        options: All of those of `Router`; None is not given.

    Raises:
        ConfigError: If there is one.
    """
    for name, (method, mend) in _ABLE.items():
        value = options[name]
        if value is not None and not (name == "sticky" and isinstance(value, bool)):
            able(name, value, method, mend)
    switch("shadow", options["shadow"])
