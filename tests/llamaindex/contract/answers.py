"""Every way of asking gives the model's answer, whoever else asks at the same time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import LLM

from tests.llamaindex.contract.setting import ASYNC, Setting, Way, each, fine, text_of, user
from tests.openai_server import OpenAIServer
from tests.timed import timed

__all__ = ["Answers"]

_CALLERS = 16
_SERVED_S, _LONGEST_GAP_S = 0.4, 0.2


def _told(response: Any) -> dict[str, Any]:
    """All of a response but what is another at every call, and what a wrapper says of itself."""
    told: dict[str, Any] = response.model_dump(exclude={"raw"})
    told["additional_kwargs"].pop("costopt", None)
    usage = getattr(response.raw, "usage", None)
    return {**told, "tokens": getattr(usage, "total_tokens", None), "model": getattr(response.raw, "model", None)}


class Answers(Setting):
    """The eight methods."""

    @each("way")
    def test_the_answer_is_the_model_s(self, llm: LLM, plain: LLM, server: OpenAIServer, way: Way) -> None:
        self.tell(server, fine(logprobs=(-0.5,)))
        right, found = way(plain, "Count to three.")[-1], way(llm, "Count to three.")[-1]
        assert text_of(found) == text_of(right) == "one two three"
        if self.wraps:
            assert _told(found) == _told(right)
        again = way(llm, "Count to three.")[-1]
        assert text_of(again) == "one two three"
        assert type(again) is type(found) is type(right)
        if isinstance(again, ChatResponse):
            assert again.message.role == right.message.role == "assistant"

    @each("stream")
    def test_deltas_add_up_to_the_message(self, llm: LLM, server: OpenAIServer, stream: Way) -> None:
        self.tell(server, fine())
        for _ in range(2):
            pieces = stream(llm, "Count to three.")
            assert "".join(piece.delta or "" for piece in pieces) == text_of(pieces[-1]) == "one two three"
            texts = [text_of(piece) for piece in pieces]
            assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        # As it comes, and not all at once; of what is at hand already, there is nothing to wait for.
        assert len(stream(llm, "Count to 3 again, please.")) > 2

    @each("way")
    def test_all_that_is_asked_arrives(self, llm: LLM, server: OpenAIServer, way: Way) -> None:
        way(llm, "Count to three.", temperature=0.3, max_tokens=7)
        [sent] = server.requests
        assert (sent["temperature"], sent["max_tokens"]) == (0.3, 7)
        assert [(each["role"], each["content"]) for each in sent["messages"]] == [("user", "Count to three.")]

    def test_a_conversation_arrives(self, llm: LLM, server: OpenAIServer) -> None:
        said = [("system", "Be brief."), ("user", "Count."), ("assistant", "one"), ("user", "Go on.")]
        llm.chat([ChatMessage(role=role, content=text) for role, text in said])
        assert [(each["role"], each["content"]) for each in server.requests[0]["messages"]] == said

    def test_what_is_asked_is_not_changed(self, llm: LLM) -> None:
        asked = [ChatMessage(role="system", content="Be brief."), *user("Count to three.")]
        before = [message.model_dump() for message in asked]
        for _ in range(2):
            llm.chat(asked)
        assert [message.model_dump() for message in asked] == before

    def test_each_thread_gets_its_own_answer(self, llm: LLM, server: OpenAIServer) -> None:
        self.echo(server)
        asked = [f"Say number {number}." for number in range(_CALLERS)]
        with ThreadPoolExecutor(_CALLERS) as pool:
            chats = list(pool.map(lambda text: llm.chat(user(text)).message.content, asked))
            texts = list(pool.map(lambda text: list(llm.stream_complete(text))[-1].text, asked))
        assert chats == texts == [f"You said: {text}" for text in asked]

    async def test_each_task_gets_its_own_answer(self, llm: LLM, server: OpenAIServer) -> None:
        self.echo(server)
        asked = [f"Say number {number}." for number in range(_CALLERS)]
        chats = await asyncio.gather(*(ASYNC["achat"](llm, text) for text in asked))
        texts = await asyncio.gather(*(ASYNC["astream_complete"](llm, text) for text in asked))
        right = [f"You said: {text}" for text in asked]
        assert [text_of(each) for each in chats] == [text_of(each[-1]) for each in texts] == right

    @timed
    async def test_awaiting_never_blocks_the_event_loop(self, llm: LLM, server: OpenAIServer) -> None:
        """A task that wants the loop every millisecond gets it, while all four ways of awaiting wait for a server."""
        for way in ASYNC.values():  # clients, embedder and store are there
            await way(llm, "Say number 0.")
        self.tell(server, fine(seconds=_SERVED_S))
        for _ in range(2):
            asking = asyncio.gather(*(way(llm, f"Say {name}.") for name, way in ASYNC.items()))
            assert await _largest_gap(asking) < _LONGEST_GAP_S
        arrived = {request["messages"][-1]["content"] for request in server.requests}
        assert arrived >= {f"Say {name}." for name in ASYNC}


async def _largest_gap(asking: asyncio.Future[Any]) -> float:
    """Seconds that a ticking task had to wait for its turn."""
    loop, gaps = asyncio.get_running_loop(), [0.0]
    last = loop.time()
    while not asking.done():
        await asyncio.sleep(0.001)
        gaps.append(loop.time() - last)
        last = loop.time()
    await asking
    return max(gaps)
