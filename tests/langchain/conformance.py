"""LangChain's integration suite for a chat model whose provider stands on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.openai_server import OpenAIServer, openai_server

__all__ = ["LoopbackIntegrationTests"]


class LoopbackIntegrationTests(ChatModelIntegrationTests):
    """One server for the class."""

    server: OpenAIServer

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with openai_server() as cls.server:
            yield

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return False  # it would fetch a picture from the web; test_quantized.py and test_router.py look at images
