"""LangChain's own suites for chat models: `ChatQuantized` on a server, which stands on loopback."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_costopt import ChatQuantized
from tests.langchain.conformance import LoopbackIntegrationTests


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatQuantized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "m", "base_url": "http://127.0.0.1:1/v1"}


class TestIntegration(LoopbackIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatQuantized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "m", "base_url": self.server.url}

    @property
    def model_override_value(self) -> str | None:
        return "another"
