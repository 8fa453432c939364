"""What the tests of cost trackers share."""

from __future__ import annotations

from typing import Any

from langchain_openai import ChatOpenAI

from tests.openai_server import OpenAIServer


def chat(server: OpenAIServer, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"base_url": server.url, "api_key": "sk-none", "max_retries": 0, "model": "gpt-4o-mini", **options}
    )
