"""The engine as a whole, on a model whose right answers are known."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from costopt.errors import ConfigError, ContextLengthError, EngineClosedError, EngineError, OutOfMemoryError
from costopt.local.engine import Engine, Generation, GenerationRequest, joined
from costopt.local.transformers_engine import TransformersEngine
from tests.tiny_models import FACTS, answer, question


def ask(name: str, **options: Any) -> GenerationRequest:
    return GenerationRequest.chat(question(name), **{"max_tokens": 20, **options})


def right(found: list[Generation]) -> int:
    return sum(one.text == answer(name) for one, name in zip(found, FACTS, strict=True))


def test_it_is_an_engine(engine: TransformersEngine, facts_model: Path) -> None:
    seam: Engine = engine
    assert seam.name == f"{facts_model}:none:float32"


def test_it_knows_every_fact_asked_by_threads_and_by_tasks(engine: TransformersEngine) -> None:
    async def together() -> list[Generation]:
        return await asyncio.gather(*(engine.submit(ask(name)).aresult() for name in FACTS))

    with ThreadPoolExecutor(16) as threads:
        by_threads = list(threads.map(lambda name: engine.submit(ask(name)).result(60), FACTS))
    assert right(by_threads) == len(FACTS)
    assert right(asyncio.run(together())) == len(FACTS)


def test_together_they_say_token_for_token_what_transformers_says_for_each(
    engine: TransformersEngine, reference: Any
) -> None:
    """Prompts of mixed lengths, long answers: greedy and in fp32."""
    model, tokenizer = reference
    chosen = random.Random(4)
    chats = []
    for count in (1, 2, 5, 9, 3, 12, 1, 7, 2, 4, 6, 8):
        names = chosen.sample(sorted(FACTS), count)
        turns = [turn for name in names for turn in (("user", question(name)), ("assistant", answer(name)))]
        chats.append([{"role": role, "content": text} for role, text in turns[:-1]])
    handles = [engine.submit(GenerationRequest(messages=tuple(chat), max_tokens=40)) for chat in chats]
    for chat, handle in zip(chats, handles, strict=True):
        tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            made = model.generate(tokens, max_new_tokens=40, do_sample=False)[0, tokens.shape[1] :]
        found = handle.result(60)
        assert found.text == tokenizer.decode(made, skip_special_tokens=True)
        assert found.usage is not None
        assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (tokens.shape[1], len(made))


def test_requests_that_come_together_share_passes(engine: TransformersEngine) -> None:
    before = engine.stats().steps
    handles = [engine.submit(ask(name)) for name in list(FACTS)[:32]]
    tokens = sum(handle.result(60).usage.completion_tokens for handle in handles)  # type: ignore[union-attr]
    assert engine.stats().steps - before < tokens / 6


def test_streamed_or_whole_by_thread_or_loop_the_answer_is_the_same(engine: TransformersEngine) -> None:
    name = next(iter(FACTS))

    async def awaited() -> list[Generation]:
        pieces = [delta async for delta in engine.submit(ask(name, logprobs=1))]
        return [joined(pieces), await engine.submit(ask(name, logprobs=1)).aresult()]

    pieces = list(engine.submit(ask(name, logprobs=1)))
    assert len([piece for piece in pieces if piece.text]) >= 3, "it comes token by token"
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    answers = [joined(pieces), engine.submit(ask(name, logprobs=1)).result(60), *asyncio.run(awaited())]
    assert len({found.text for found in answers}) == 1
    assert all(found.usage == answers[0].usage for found in answers)
    first = [[token.token for token in found.logprobs] for found in answers]
    assert all(tokens == first[0] for tokens in first)
    assert "".join(first[0]) == answer(name) + "<|im_end|>", "every token has its probability, the last one, too"


def test_waiting_for_an_answer_leaves_the_event_loop_free(engine: TransformersEngine) -> None:
    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await asyncio.gather(*(engine.submit(ask(name)).aresult() for name in list(FACTS)[:8]))
        counting.cancel()
        return turns

    assert asyncio.run(main()) > 8


def test_a_seed_draws_the_same_whatever_else_runs(engine: TransformersEngine) -> None:
    def drawn(seed: int | None, crowd: int) -> str:
        others = [engine.submit(ask(name)) for name in list(FACTS)[:crowd]]
        request = GenerationRequest.chat("Well?", temperature=2.0, seed=seed, max_tokens=20)
        text = engine.submit(request).result(60).text
        for other in others:
            other.result(60)
        return text

    assert drawn(1, 0) == drawn(1, 7) == drawn(1, 3)
    assert len({drawn(seed, 0) for seed in range(5)}) > 1
    assert len({drawn(None, 0) for _ in range(5)}) > 1


def test_stop_texts_length_and_default_length(engine: TransformersEngine, facts_model: Path) -> None:
    name = next(iter(FACTS))
    cut = engine.submit(ask(name, stop=(" has",))).result(60)
    assert (cut.text, cut.finish_reason) == (name, "stop")
    short = engine.submit(ask(name, max_tokens=2)).result(60)
    assert (short.finish_reason, short.usage and short.usage.completion_tokens) == ("length", 2)
    with TransformersEngine(facts_model, quantization="none", max_tokens=3) as brief:
        found = brief.submit(GenerationRequest.chat(question(name))).result(60)
        assert (found.finish_reason, found.usage and found.usage.completion_tokens) == ("length", 3)


def test_a_prompt_is_gone_on_from_and_not_repeated(engine: TransformersEngine) -> None:
    name = next(iter(FACTS))
    prompt = f"<|im_start|>user\n{question(name)}<|im_end|>\n<|im_start|>assistant\n{name} has"
    found = engine.submit(GenerationRequest(prompt=prompt, max_tokens=20)).result(60)
    assert found.text == f" {FACTS[name]}."


def test_too_long_says_how_long_and_what_is_allowed(engine: TransformersEngine, facts_model: Path) -> None:
    with pytest.raises(ContextLengthError, match=r"context length exceeded.*512 of the model") as caught:
        engine.submit(GenerationRequest(prompt="x " * 1000)).result(60)
    assert caught.value.limit == 512
    assert caught.value.prompt_tokens > 512
    with TransformersEngine(facts_model, quantization="none", context=64) as small:
        with pytest.raises(ContextLengthError, match=r"64 of this engine \(context=\)"):
            small.submit(ask("Anna", max_tokens=60)).result(60)
        filled = small.submit(GenerationRequest.chat(question("Anna"))).result(60)
        assert filled.usage is not None
        assert filled.usage.total_tokens <= 64, "an answer without a length of its own takes what is left"


def test_all_who_ask_for_a_model_share_it_while_anybody_holds_it(facts_model: Path) -> None:
    one = TransformersEngine.shared(facts_model, quantization="none")
    assert TransformersEngine.shared(str(facts_model) + "/", quantization="none") is one
    assert TransformersEngine.shared(facts_model, quantization="none", max_rows=2) is not one
    with ThreadPoolExecutor(8) as threads:
        engines = set(threads.map(lambda _: TransformersEngine.shared(facts_model, quantization="none"), range(32)))
    assert engines == {one}
    one.close()
    assert one.closed
    two = TransformersEngine.shared(facts_model, quantization="none")
    assert two is not one
    two.close()


def test_nothing_is_loaded_before_it_is_needed_and_all_is_given_back(facts_model: Path) -> None:
    engine = TransformersEngine(facts_model, quantization="none")
    assert engine.stats().weight_bytes == 0
    handle = engine.submit(ask("Anna"))
    threads = {thread.name for thread in threading.enumerate()}
    assert "costopt-model" in threads
    handle.result(60)
    model = weakref.ref(engine._worker.ready.loaded.model)  # type: ignore[union-attr]
    assert engine.stats().weight_bytes > 0
    engine.close()
    engine.close()
    gc.collect()
    assert model() is None
    assert engine.stats().weight_bytes == 0
    with pytest.raises(EngineClosedError, match="make another one"):
        engine.submit(ask("Anna")).result(60)
    with pytest.raises(EngineClosedError):
        engine.load()


def test_an_engine_that_nobody_holds_ends_but_not_before_its_answers(facts_model: Path) -> None:
    def make() -> tuple[Any, Any, Any]:
        engine = TransformersEngine(facts_model, quantization="none")
        return engine.submit(ask("Anna")), weakref.ref(engine), engine._worker._thread

    handle, engine, thread = make()
    assert handle.result(60).text
    del handle
    for _ in range(100):  # the engine's own thread lets go of it last
        gc.collect()
        thread.join(0.1)
        if not thread.is_alive():
            break
    assert engine() is None
    assert not thread.is_alive()


def test_the_interpreter_ends_with_an_engine_at_work(facts_model: Path) -> None:
    code = (
        "import sys\nfrom costopt.local.engine import GenerationRequest\n"
        "from costopt.local.transformers_engine import TransformersEngine\n"
        "engines = [TransformersEngine(sys.argv[1], quantization='none', batching=b) for b in ('rows', 'continuous')]\n"
        "handles = [e.submit(GenerationRequest.chat('Well?', max_tokens=400, temperature=t)) for e in engines "
        "for t in (0, 2.0)]\n"
        "next(iter(handles[0])), next(iter(handles[2]))\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(facts_model)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_engines_that_load_at_the_same_time_do_not_disturb_each_other(facts_model: Path) -> None:
    engines = [TransformersEngine(facts_model, quantization="none", max_rows=rows) for rows in range(1, 5)]
    names = list(FACTS)[:10]
    handles = [[engine.submit(ask(name)) for name in names] for engine in engines]
    for each in handles:
        assert [handle.result(120).text for handle in each] == list(map(answer, names))
    for engine in engines:
        engine.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_made_by_a_fork_is_told_to_make_its_own(engine: TransformersEngine) -> None:
    engine.submit(ask("Anna")).result(60)
    child = os.fork()
    if child == 0:
        try:
            engine.submit(ask("Anna")).result(5)
        except EngineError as error:
            os._exit(0 if "after forking" in str(error) or "forked" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert engine.submit(ask("Anna")).result(60).text, "the parent goes on"


def test_counts_add_up(facts_model: Path) -> None:
    with TransformersEngine(facts_model, quantization="none") as engine:
        found = [engine.submit(ask(name)).result(60) for name in list(FACTS)[:3]]
        engine.submit(GenerationRequest.chat("Well?", max_tokens=400)).cancel()
        with pytest.raises(ContextLengthError):
            engine.submit(ask("Anna", max_tokens=10_000)).result(60)
        engine.submit(ask("Anna")).result(60)
        stats = engine.stats()
        assert (stats.requests, stats.finished, stats.failed, stats.cancelled) == (6, 4, 1, 1)
        assert (stats.waiting, stats.running) == (0, 0)
        usages = [one.usage for one in found if one.usage]
        assert stats.prompt_tokens > sum(usage.prompt_tokens for usage in usages)
        assert stats.completion_tokens > sum(usage.completion_tokens for usage in usages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "q4"}, "quantization='q4': use one of 'none', 'int8', 'fp4', 'nf4'"),
        ({"dtype": "int4"}, "dtype"),
        ({"batching": "big"}, "batching"),
        ({"context": 0}, "context=0"),
        ({"max_rows": 0}, "max_rows=0"),
        ({"concurency": 3}, "no option concurency"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_at_once(
    options: dict[str, Any], message: str, facts_model: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformersEngine(facts_model, **options)


def test_a_model_that_will_not_fit_is_refused_before_it_is_loaded(
    facts_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from costopt.local import plan

    monkeypatch.setattr(plan, "free_bytes", lambda device: 30_000_000)
    with TransformersEngine(facts_model, quantization="none", concurrency=32) as engine:
        with pytest.raises(OutOfMemoryError, match="would fit"):
            engine.load()
        monkeypatch.undo()
        engine.load()  # there is room now
        assert engine.stats().weight_bytes > 0
