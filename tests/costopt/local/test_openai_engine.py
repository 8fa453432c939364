"""The engine that asks a server, by the real SDK, against a server on loopback; blocking and awaiting callers alike."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from costopt.errors import (
    ConfigError,
    ContextLengthError,
    CostOptError,
    EngineClosedError,
    EngineError,
    GenerationCancelledError,
    TruncatedOutputError,
)
from costopt.local.engine import Delta, Generation, GenerationRequest, LocalUsage, TokenLogprob, joined
from costopt.local.openai_engine import OpenAICompatibleEngine
from costopt.local.shared import shared_engine
from tests.openai_server import USAGE, Behaviour, OpenAIServer, openai_server

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
HELLO = GenerationRequest.chat("Hello")

Ask = Callable[[OpenAICompatibleEngine, GenerationRequest], Generation]


def blocking(engine: OpenAICompatibleEngine, request: GenerationRequest) -> Generation:
    return engine.submit(request).result(30)


def awaiting(engine: OpenAICompatibleEngine, request: GenerationRequest) -> Generation:
    return asyncio.run(engine.submit(request).aresult())  # type: ignore[arg-type]


def streaming(engine: OpenAICompatibleEngine, request: GenerationRequest) -> Generation:
    return joined(engine.submit(request))


def astreaming(engine: OpenAICompatibleEngine, request: GenerationRequest) -> Generation:
    async def read() -> Generation:
        return joined([delta async for delta in engine.submit(request)])

    return asyncio.run(read())


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with openai_server() as server:
        yield server


@pytest.fixture
def engine(server: OpenAIServer) -> Iterator[OpenAICompatibleEngine]:
    server.requests.clear()
    server.behaviours.clear()
    engine = OpenAICompatibleEngine(base_url=server.url, model="m", max_retries=0)
    yield engine
    engine.close()


@pytest.fixture(params=[blocking, awaiting, streaming, astreaming], ids=lambda way: way.__name__)
def ask(request: pytest.FixtureRequest) -> Ask:
    way: Ask = request.param
    return way


def test_an_answer_with_its_usage(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    server.behaviours["m"] = Behaviour(text="Hello to you, too")
    found = ask(engine, HELLO)
    assert (found.text, found.finish_reason) == ("Hello to you, too", "stop")
    assert found.usage == LocalUsage(USAGE["prompt_tokens"], USAGE["completion_tokens"])
    stats = engine.stats()
    assert (stats.requests, stats.finished, stats.running, stats.waiting) == (1, 1, 0, 0)
    assert (stats.prompt_tokens, stats.completion_tokens) == (30, 12)


def test_every_setting_reaches_the_server(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    request = GenerationRequest.chat(
        "Hello",
        system="Be brief.",
        max_tokens=7,
        temperature=0.0,
        top_p=0.5,
        stop=("END", "\n\n"),
        seed=3,
        logprobs=2,
        template_options={"enable_thinking": False},
    )
    ask(engine, request)
    sent = server.requests[0]
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    wanted = {"max_tokens": 7, "temperature": 0.0, "top_p": 0.5, "stop": ["END", "\n\n"], "seed": 3}
    wanted |= {"logprobs": True, "top_logprobs": 2, "chat_template_kwargs": {"enable_thinking": False}, "model": "m"}
    assert {name: sent[name] for name in wanted} == wanted


def test_what_is_not_set_is_not_sent(engine: OpenAICompatibleEngine, server: OpenAIServer) -> None:
    engine.submit(HELLO).result(30)
    assert sorted(server.requests[0]) == ["messages", "model", "stream", "stream_options"]


def test_tool_calls_come_whole(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    found = ask(engine, GenerationRequest.chat("What is 3 and 3?", tools=(ADD,), tool_choice="add"))
    assert found.finish_reason == "tool_calls"
    [call] = found.tool_calls
    assert (call.name, call.arguments) == ("add", '{"a": 3, "b": 3}')
    assert call.id.startswith("call_")
    assert server.requests[0]["tool_choice"] == {"type": "function", "function": {"name": "add"}}


def test_a_schema_is_asked_for(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    schema = {"title": "Age", "type": "object", "properties": {"years": {"type": "integer"}}, "required": ["years"]}
    found = ask(engine, GenerationRequest.chat("Anna is 30", response_schema=schema))
    assert found.text == '{"years": 30}'
    form = server.requests[0]["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "Age", "schema": schema, "strict": True}}


def test_a_structured_answer_that_was_cut_off_is_an_error(
    engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask
) -> None:
    server.behaviours["m"] = Behaviour(text='{"years": 3', finish="length")
    request = GenerationRequest.chat("Anna is 30", max_tokens=4, response_schema={"type": "object"})
    with pytest.raises(TruncatedOutputError, match="max_tokens=4") as caught:
        ask(engine, request)
    assert caught.value.text == '{"years": 3'
    assert ask(engine, GenerationRequest.chat("Anna is 30", max_tokens=4)).finish_reason == "length"


def test_log_probabilities(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    server.behaviours["m"] = Behaviour(text="a a", logprobs=(-0.1, -0.2))
    found = ask(engine, GenerationRequest.chat("Hello", logprobs=0))
    assert found.logprobs == (TokenLogprob("a", -0.1), TokenLogprob("a", -0.2))


def test_a_text_is_gone_on_from(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    server.behaviours["m"] = Behaviour(text="a time there was", logprobs=(-0.1,))
    found = ask(engine, GenerationRequest(prompt="Once upon", logprobs=2, max_tokens=5))
    assert found.text == "a time there was"
    assert found.usage == LocalUsage(30, 12)
    assert found.logprobs[0].top == (("a", -0.1), ("b", -1.1))
    assert server.requests[0]["prompt"] == "Once upon"
    assert server.requests[0]["logprobs"] == 2


def test_a_server_that_counts_no_tokens(engine: OpenAICompatibleEngine, server: OpenAIServer, ask: Ask) -> None:
    server.behaviours["m"] = Behaviour(usage=None)
    assert ask(engine, HELLO).usage is None


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        (Behaviour(401, "no such key"), ConfigError, "refused the api_key: .*no such key"),
        (Behaviour(404, "no model m"), ConfigError, "no such model or address"),
        (Behaviour(400, "maximum context length is 4096 tokens"), ContextLengthError, "4096"),
        (Behaviour(400, "top_p must be in (0, 1]"), EngineError, "top_p must be"),
        (Behaviour(500, "CUDA error"), EngineError, "CUDA error"),
        (Behaviour(429, "slow down"), EngineError, "slow down"),
        (Behaviour(error_after=1, error="died"), EngineError, "died"),
        (Behaviour(cut_after=1), EngineError, "cannot be reached|failed|before it was whole"),
    ],
    ids=lambda each: getattr(each, "error", None),
)
def test_what_fails_is_one_of_our_errors(
    engine: OpenAICompatibleEngine,
    server: OpenAIServer,
    ask: Ask,
    behaviour: Behaviour,
    kind: type[CostOptError],
    said: str,
) -> None:
    server.behaviours["m"] = behaviour
    with pytest.raises(kind, match=said):
        ask(engine, HELLO)
    stats = engine.stats()
    assert (stats.failed, stats.running) == (1, 0)
    server.behaviours.clear()
    assert ask(engine, HELLO).finish_reason == "stop"


def test_no_server(ask: Ask) -> None:
    engine = OpenAICompatibleEngine(base_url="http://127.0.0.1:1/v1", model="m", max_retries=0)
    with pytest.raises(EngineError, match=r"cannot be reached .*: is the server running"):
        ask(engine, HELLO)
    engine.close()


def test_a_server_that_says_nothing(server: OpenAIServer, ask: Ask) -> None:
    server.behaviours["slow"] = Behaviour(seconds=1.0)
    engine = OpenAICompatibleEngine(base_url=server.url, model="slow", timeout=0.1, max_retries=0)
    with pytest.raises(EngineError, match="raise timeout"):
        ask(engine, HELLO)
    engine.close()


def test_the_sdk_asks_again_when_the_server_is_busy(server: OpenAIServer, ask: Ask) -> None:
    server.requests.clear()
    busy = Behaviour(429, headers={"retry-after-ms": "1"})
    server.behaviours["busy"] = lambda number: busy if number == 1 else Behaviour(text="there")
    engine = OpenAICompatibleEngine(base_url=server.url, model="busy", max_retries=1)
    assert ask(engine, HELLO).text == "there"
    assert server.asked("busy") == 2
    engine.close()


def test_submitting_never_waits_and_no_more_are_asked_at_once_than_may_be(server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(seconds=0.05)
    engine = OpenAICompatibleEngine(base_url=server.url, model="m", max_concurrency=2)
    handles = [engine.submit(HELLO) for _ in range(8)]
    seen = []
    while engine.stats().finished < 8:
        stats = engine.stats()
        seen.append(stats.running)
        assert stats.running + stats.waiting + stats.finished == 8
        time.sleep(0.01)
    assert max(seen) == 2
    assert len({handle.result(30).text for handle in handles}) == 8
    engine.close()


def test_threads_and_event_loops_share_an_engine(engine: OpenAICompatibleEngine) -> None:
    ways: list[Ask] = [blocking, awaiting, streaming, astreaming]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: ways[i % 4](engine, HELLO).text, range(32)))
    assert len(set(found)) == 32  # the server numbers its answers: nobody got another's
    assert engine.stats().finished == 32


def settled(engine: OpenAICompatibleEngine) -> Any:
    until = time.monotonic() + 10
    while engine.stats().running + engine.stats().waiting and time.monotonic() < until:
        time.sleep(0.01)
    return engine.stats()


def test_a_request_that_is_given_up(engine: OpenAICompatibleEngine, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(seconds=0.5)
    handle = engine.submit(HELLO)
    handle.cancel()
    with pytest.raises(GenerationCancelledError):
        handle.result(30)
    handle = engine.submit(HELLO)
    del handle
    gc.collect()
    assert (settled(engine).cancelled, engine.stats().running, engine.stats().waiting) == (2, 0, 0)


async def test_a_cancelled_task_gives_its_request_up(engine: OpenAICompatibleEngine, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(seconds=0.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.submit(HELLO).aresult(), 0.05)
    stats = await asyncio.to_thread(settled, engine)
    assert stats.cancelled == 1


def test_a_stream_that_its_reader_leaves(engine: OpenAICompatibleEngine, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="one two three")
    for delta in engine.submit(HELLO):
        assert delta.text == "one"
        break
    gc.collect()
    stats = settled(engine)
    assert stats.cancelled + stats.finished == 1  # the server may have been quicker


def test_closing_ends_what_is_under_way(server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(seconds=0.5)
    engine = OpenAICompatibleEngine(base_url=server.url, model="m", max_concurrency=1)
    handles = [engine.submit(HELLO) for _ in range(3)]
    engine.close()
    for handle in (*handles, engine.submit(HELLO)):
        with pytest.raises(EngineClosedError):
            handle.result(30)
    assert engine.closed
    engine.close()


def test_an_engine_that_nobody_holds_ends_its_thread(server: OpenAIServer) -> None:
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    assert engine.submit(HELLO).result(30).finish_reason == "stop"
    [thread] = [each for each in threading.enumerate() if each.name == "costopt-openai"]
    del engine
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_one_engine_for_all_who_ask_the_same(server: OpenAIServer) -> None:
    a = shared_engine("m", base_url=server.url, timeout=5.0)
    assert shared_engine("m", base_url=server.url, timeout=5.0, api_key=None) is a
    assert shared_engine("m", base_url=server.url, timeout=6.0) is not a
    a.close()
    assert shared_engine("m", base_url=server.url, timeout=5.0) is not a
    with pytest.raises(ConfigError, match="a matter of the server"):
        shared_engine("m", base_url=server.url, quantization="nf4")


def test_the_environment_s_key_is_not_sent(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    assert engine._options["api_key"] == "none"
    assert engine.submit(HELLO).result(30).finish_reason == "stop"
    engine.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_process_has_connections_of_its_own(server: OpenAIServer) -> None:
    code = """
import os, sys
from costopt.local.engine import GenerationRequest
from costopt.local.openai_engine import OpenAICompatibleEngine
engine = OpenAICompatibleEngine(base_url=sys.argv[1], model="m")
assert engine.submit(GenerationRequest.chat("Hello")).result(30).text
child = os.fork()
if child == 0:
    text = engine.submit(GenerationRequest.chat("Hello")).result(30).text
    os._exit(0 if text else 1)
assert os.waitpid(child, 0)[1] == 0
engine.close()
"""
    done = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "localhost:8000"}, "give the whole address"),
        ({"model": ""}, "give the name"),
        ({"timeout": 0}, "more than 0"),
        ({"max_concurrency": 0}, "at least 1"),
    ],
)
def test_arguments_that_cannot_be_meant(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        OpenAICompatibleEngine(**{"base_url": "http://localhost:8000/v1", "model": "m", **options})


def test_nothing_is_imported_or_connected_before_the_first_request() -> None:
    code = (
        "from costopt.local.openai_engine import OpenAICompatibleEngine as E\n"
        "import sys, threading\n"
        "E(base_url='http://localhost:1/v1', model='m')\n"
        "print([n for n in ('openai', 'torch', 'transformers', 'langchain_core') if n in sys.modules],"
        " threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"


def test_deltas_are_pieces(engine: OpenAICompatibleEngine, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="one two three")
    deltas = list(engine.submit(HELLO))
    assert [delta.text for delta in deltas] == ["one", " two", " three", ""]
    assert all(delta == Delta(delta.text) for delta in deltas[:-1])
