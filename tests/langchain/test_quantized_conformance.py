"""LangChain's own suites for chat models: `ChatQuantized` on a server, which stands on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_costopt import ChatQuantized
from tests.openai_server import OpenAIServer, openai_server


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatQuantized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "m", "base_url": "http://127.0.0.1:1/v1"}


class TestIntegration(ChatModelIntegrationTests):
    server: OpenAIServer

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with openai_server() as cls.server:
            yield

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatQuantized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "m", "base_url": self.server.url}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str | None:
        return "another"

    @property
    def supports_image_inputs(self) -> bool:
        return False  # it would fetch a picture from the web; test_quantized.py looks at images
