"""What an application says about a call beside it: in LangChain's metadata, in LlamaIndex's tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from costopt.conversation import conversation_of

__all__ = ["About", "about_call"]


class About(TypedDict):
    """Fields of `costopt.audit.recorder.Call`."""

    session: str | None
    tenant: str | None
    batch: str | None
    tags: tuple[str, ...]


def about_call(said: Mapping[str, Any]) -> About:
    """Conversation, tenant, batch and tags of a call.

    Example:
        >>> about_call({"thread_id": 7, "costopt_tags": "faq"})
        {'session': '7', 'tenant': None, 'batch': None, 'tags': ('faq',)}
    """
    tags = said.get("costopt_tags") or ()
    return About(
        session=conversation_of(said),
        tenant=_text(said.get("costopt_tenant")),
        batch=_text(said.get("costopt_batch")),
        tags=tuple(map(str, [tags] if isinstance(tags, str) else tags)),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
