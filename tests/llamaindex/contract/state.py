"""What an LLM says of itself, what is left of it in data and pickles, and how an application takes it up."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.llms import LLM
from llama_index.core.prompts import PromptTemplate

from tests.llamaindex.contract.setting import KEY, MODELS, Setting, fine
from tests.openai_server import OpenAIServer

__all__ = ["State"]


class State(Setting):
    """Metadata, serialisation, `Settings`."""

    # LlamaIndex's own models keep their keys in their pickles.
    keeps_no_secrets = True

    def test_metadata(self, llm: LLM, plain: LLM) -> None:
        told = llm.metadata
        assert told.is_chat_model
        assert told.is_function_calling_model
        assert told.model_name
        if self.wraps:
            assert told.context_window == plain.metadata.context_window

    def test_class_name(self, llm: LLM) -> None:
        data = llm.to_dict()
        assert data["class_name"] == llm.class_name() == type(llm).class_name()
        assert llm.class_name() not in (base.class_name() for base in type(llm).__mro__[1:] if issubclass(base, LLM))

    def test_data_without_secrets(self, llm: LLM) -> None:
        told = json.dumps(llm.to_dict())
        assert any(model in told for model in MODELS)
        assert json.loads(llm.to_json()) == json.loads(told)
        assert KEY not in told or not self.keeps_no_secrets

    def test_through_a_pickle_without_secrets(
        self, llm: LLM, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.tell(server, fine())
        kept = pickle.dumps(llm)
        assert KEY.encode() not in kept or not self.keeps_no_secrets
        # A key is looked for where an SDK looks for it.
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
        copy: Any = pickle.loads(kept)
        assert type(copy) is type(llm)
        assert copy.metadata == llm.metadata
        assert copy.to_dict() == llm.to_dict()
        assert copy.complete("Count to three.").text == llm.complete("Count to three.").text == "one two three"

    async def test_as_the_application_s_model(
        self, llm: LLM, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.tell(server, fine())
        monkeypatch.setattr(Settings, "_llm", None)
        Settings.llm = llm
        assert Settings.llm is llm
        for _ in range(2):
            assert Settings.llm.predict(PromptTemplate("Say {word}"), word="hello") == "one two three"
            assert await Settings.llm.apredict(PromptTemplate("Say {word}"), word="there") == "one two three"
            assert "".join(Settings.llm.stream(PromptTemplate("Say {word}"), word="again")) == "one two three"
