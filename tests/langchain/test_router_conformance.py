"""LangChain's own suites for chat models: a router over real `ChatOpenAI`s, against a server on loopback."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import SecretStr

from costopt import Tier
from langchain_costopt import RouterRunnable
from tests.langchain.conformance import LoopbackIntegrationTests


def chat(url: str, model: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key=SecretStr("sk-none"), model=model, stream_usage=True, **options)


def tiers(url: str) -> list[Any]:
    return [Tier(chat(url, "gpt-4o-mini")), chat(url, "gpt-4o")]


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return RouterRunnable

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"tiers": tiers("http://127.0.0.1:1/v1")}


# Of ChatOpenAI itself, with or without a router: it serialises what it parsed, and knows no pydantic 1 schemas.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings", "ignore:Received a Pydantic BaseModel V1")
class TestIntegration(LoopbackIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return RouterRunnable

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"tiers": tiers(self.server.url)}

    @property
    def model_override_value(self) -> str | None:
        return "gpt-4o"  # the name of a tier: a short question would not go there
