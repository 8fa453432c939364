"""What must match exactly and what may match loosely, in LlamaIndex; each test shows both, for either alone is easy."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.llms.openai_like import OpenAILike
from pydantic import create_model

from costopt import SemanticCache
from llamaindex_costopt import CachedLLM, RouterLLM
from tests.llamaindex.conftest import MakeCache, MakeLLM, openai
from tests.llamaindex.served import tier, user
from tests.openai_server import OpenAIServer
from tests.rewordings import PARAPHRASE, QUESTION, UNRELATED

PICTURE = base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=")


@pytest.mark.parametrize("words", [0, 300, 3000])
def test_no_system_prompt_makes_unrelated_questions_alike(make_llm: MakeLLM, server: OpenAIServer, words: int) -> None:
    """A long system prompt, embedded along, would make every question equal to every other."""
    llm = make_llm()
    system = ("You are a helpful assistant of a shop. " + "Be kind and brief. " * (words // 4)) if words else None
    llm.chat(user(QUESTION, system))
    for question in UNRELATED:
        assert tier(llm.chat(user(question, system))) is None
    assert tier(llm.chat(user(PARAPHRASE, system))) == "semantic"
    assert len(server.requests) == 1 + len(UNRELATED)


def test_another_system_prompt_model_or_parameter_never_hits(make_llm: MakeLLM) -> None:
    llm, french = make_llm(), "Answer in French."
    tool = {"type": "function", "function": {"name": "search", "description": "", "parameters": {"type": "object"}}}
    llm.chat(user(QUESTION, french))
    others: list[tuple[CachedLLM, str | None, dict[str, Any]]] = [
        (llm, "Answer in German.", {}),
        (llm, None, {}),
        (make_llm(model="gpt-4o"), french, {}),
        (make_llm(temperature=1.0), french, {}),
        (make_llm(additional_kwargs={"seed": 1}), french, {}),
        (make_llm(api_base="http://127.0.0.1:9/v1"), french, {}),
        (llm, french, {"temperature": 1.0}),
        (llm, french, {"stop": ["."]}),
        (llm, french, {"tools": [tool]}),
        (llm, french, {"response_format": {"type": "json_object"}}),
    ]
    for other, system, more in others[:5] + others[6:]:
        assert tier(other.chat(user(QUESTION, system), **more)) is None, more
    elsewhere = others[5][0]
    assert elsewhere._request("chat", user(QUESTION, french), {}) != llm._request("chat", user(QUESTION, french), {})
    assert tier(make_llm(api_key="sk-new", timeout=9.0).chat(user(PARAPHRASE, french))) == "semantic"


def test_another_tenant_never_hits_and_a_paraphrase_still_does(make_llm: MakeLLM, make_cache: MakeCache) -> None:
    tenant = ["acme"]
    llm = make_llm(asked=make_cache(tenant=lambda: tenant[0]))
    llm.chat(user(QUESTION))
    for other in ("globex", "ACME", "acme10", "*"):
        tenant[0] = other
        assert [tier(llm.chat(user(QUESTION))) for _ in range(2)] == [None, "exact"]
    tenant[0] = "acme"
    assert tier(llm.chat(user(PARAPHRASE))) == "semantic"


def test_another_history_never_hits_and_ids_and_usage_in_it_do_not_matter(make_llm: MakeLLM) -> None:
    llm = make_llm()

    def history(answer: str, number: int, question: str = "And for business customers?") -> list[ChatMessage]:
        kwargs = {"usage": {"total_tokens": number}, "created": number}
        said = ChatMessage(role="assistant", content=answer, additional_kwargs=kwargs)
        return [*user("How long may I return a book?"), said, *user(question)]

    llm.chat(history("30 days.", 1))
    assert tier(llm.chat(history("It costs 3 euros.", 2))) is None
    assert tier(llm.chat(user("And for business customers?"))) is None
    assert tier(llm.chat(history("30 days.", 99))) == "exact"
    assert tier(llm.chat(history("30 days.", 7, "and for business customers"))) == "semantic"


def test_tool_results_are_scope_and_call_ids_are_not(make_llm: MakeLLM) -> None:
    llm = make_llm()

    def turn(call_id: str, result: str, args: Any) -> list[ChatMessage]:
        call = ToolCallBlock(tool_call_id=call_id, tool_name="weather", tool_kwargs=args)
        answer = ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call_id})
        return [*user("What is the weather in Paris?"), ChatMessage(role="assistant", blocks=[call]), answer]

    llm.chat(turn("call_a", "sunny", {"city": "Paris"}))
    assert tier(llm.chat(turn("call_b", "sunny", '{"city": "Paris"}'))) == "exact"
    assert tier(llm.chat(turn("call_a", "rain", {"city": "Paris"}))) is None
    assert tier(llm.chat(turn("call_a", "sunny", {"city": "Rome"}))) is None


def test_an_image_is_scope_and_the_text_beside_it_may_match_loosely(make_llm: MakeLLM, tmp_path: Path) -> None:
    llm = make_llm()

    def look(text: str, image: ImageBlock) -> list[ChatMessage]:
        return [ChatMessage(role="user", blocks=[TextBlock(text=text), image])]

    file = tmp_path / "picture.gif"
    file.write_bytes(PICTURE)
    llm.chat(look("What do you see in this picture?", ImageBlock(path=file)))
    assert tier(llm.chat(look("What can you see in this picture?", ImageBlock(image=PICTURE)))) == "semantic"
    file.write_bytes(PICTURE[:-1] + b"\0;")
    assert tier(llm.chat(look("What do you see in this picture?", ImageBlock(path=file)))) is None
    assert tier(llm.chat(look("What do you see in this picture?", ImageBlock(url="http://a/b.png")))) is None
    assert tier(llm.chat([ChatMessage(role="user", blocks=[ImageBlock(image=PICTURE)])])) is None


def test_a_completion_and_a_chat_keep_an_answer_each(make_llm: MakeLLM, server: OpenAIServer) -> None:
    llm = make_llm()
    llm.chat(user(QUESTION))
    assert tier(llm.complete(QUESTION)) is None
    assert tier(llm.complete(PARAPHRASE)) == "semantic"
    assert tier(llm.chat(user(PARAPHRASE))) == "semantic"


def test_a_prompt_that_is_a_transcript_matches_exactly_only(make_llm: MakeLLM) -> None:
    llm = make_llm()
    llm.complete(f"system: Be brief.\nuser: {QUESTION}\nassistant: ")
    assert tier(llm.complete(f"system: Be brief.\nuser: {PARAPHRASE}\nassistant: ")) is None
    assert tier(llm.complete(f"system: Be brief.\nuser: {QUESTION}\nassistant: ")) == "exact"


def test_a_prompt_that_the_model_puts_into_a_form_of_its_own_is_another_one(
    server: OpenAIServer, cache: SemanticCache
) -> None:
    def like(**options: Any) -> CachedLLM:
        return CachedLLM(OpenAILike(model="m", api_base=server.url, api_key="sk", **options), cache=cache)

    plain, formed = like(), like(completion_to_prompt=lambda text: f"<user>{text}</user>")
    plain.complete(QUESTION)
    assert tier(formed.complete(QUESTION)) is None
    assert tier(formed.complete(QUESTION, formatted=True)) is None
    assert [request["prompt"] for request in server.requests] == [QUESTION, f"<user>{QUESTION}</user>", QUESTION]
    assert tier(formed.complete(PARAPHRASE, formatted=True)) == tier(plain.complete(PARAPHRASE)) == "semantic"


def test_classes_of_one_name_with_other_fields_do_not_share_answers(server: OpenAIServer, cache: SemanticCache) -> None:
    """The class that answers shall be of is left out where LlamaIndex writes such an LLM down."""

    def structured(**fields: Any) -> CachedLLM:
        form = create_model("Result", **fields)
        return CachedLLM(openai(server).as_structured_llm(form), cache=cache)

    structured(city=(str, ...)).chat(user(QUESTION))
    assert tier(structured(country=(str, ...)).chat(user(QUESTION))) is None
    assert tier(structured(city=(str, ...)).chat(user(PARAPHRASE))) == "semantic"


def test_the_conversation_that_a_router_is_told_of_is_no_part_of_the_question(
    server: OpenAIServer, cache: SemanticCache
) -> None:
    """An argument that any other model is given may well be one: there it tells calls apart."""
    routed = CachedLLM(RouterLLM(tiers=[openai(server), openai(server, model="gpt-4o")]), cache=cache)
    plain = CachedLLM(openai(server), cache=cache)
    routed.chat(user(QUESTION), conversation_id="one")
    assert tier(routed.chat(user(PARAPHRASE), conversation_id="two")) == "semantic"
    assert tier(routed.chat(user(QUESTION), model="gpt-4o")) is None
    assert plain._request("chat", user(QUESTION), {"session_id": "a"}) != plain._request("chat", user(QUESTION), {})


def test_what_cannot_be_told_from_others_goes_uncached(make_llm: MakeLLM, server: OpenAIServer) -> None:
    """A picture that is nowhere to be found: the model's own error, and not the cache's."""
    llm = make_llm()
    lost = [ChatMessage(role="user", blocks=[ImageBlock(path=None)])]
    with pytest.raises(ValueError, match="No valid source"):
        llm.chat(lost)
    assert server.requests == []
    assert llm.stats().failures == {"request: ValueError": 1}
    assert llm.stats().lookups == 0
