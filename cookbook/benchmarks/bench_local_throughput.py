"""Many requests to one model on this machine, against transformers and LangChain's own ways of running them."""

from __future__ import annotations

import contextlib
import functools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options
from cookbook.benchmarks.timing import interleave
from costopt.local.engine import GenerationRequest
from costopt.local.transformers_engine import TransformersEngine
from tests.tiny_models import FACTS, Shape, question, random_model

__all__ = ["run"]

# 89 million parameters: 12 query heads share 4 of keys and values, as today's models have it.
_SHAPE = Shape(hidden=768, layers=14, heads=12, kv_heads=4, inner=2048, context=1024)
_SMALL = Shape(hidden=384, layers=6, heads=6, kv_heads=2, inner=1024, context=1024)
_REQUESTS, _CALLERS = 32, 16


@dataclass(frozen=True)
class _Run:
    """One way of answering all requests: seconds, seconds of processor, and the latency of each."""

    name: str
    tokens: int
    seconds: float
    cpu: float
    latencies: Sequence[float]

    def row(self) -> list[str]:
        cells = [self.name, f"{self.seconds:.1f}", f"{self.tokens / self.seconds:.1f}", f"{self.tokens / self.cpu:.1f}"]
        if not self.latencies:
            return [*cells, "–", "–"]
        return [*cells, f"{statistics.median(self.latencies):.2f}", f"{self.worst:.2f}"]

    @property
    def worst(self) -> float:
        """95th percentile of latency."""
        return statistics.quantiles(self.latencies, n=20)[-1]


def run(options: Options) -> dict[str, Any]:
    """A batch of 32, 16 callers at once, the first token of a stream, and greedy answers token for token."""
    count = 8 if options.quick else 16
    with tempfile.TemporaryDirectory() as name:
        folder = random_model(Path(name), _SMALL if options.quick else _SHAPE, dtype="bfloat16")
        model, tokenizer = _loaded(folder, "bfloat16")
        texts = _prompts(_REQUESTS)
        batches = _batches(folder, model, tokenizer, texts, count)
        callers = _callers(folder, model, tokenizer, texts, count)
        first = _first_token(folder, model, tokenizer, options)
        same = _same(folder, texts, count)
    columns = ["", "seconds", "tokens a second", "tokens a CPU second", "median latency, s", "95th percentile, s"]
    return {
        "bars": _bars(batches, callers, first, same),
        "tables": [
            table(
                f"{_REQUESTS} requests of mixed length, {count} tokens each, bfloat16",
                columns,
                [r.row() for r in batches],
            ),
            table(f"{_CALLERS} callers, two requests each", columns, [r.row() for r in callers]),
        ],
        "notes": [
            (
                f"A Llama of {9 if options.quick else 89} million random weights; prompts of "
                f"{min(map(len, texts))} to {max(map(len, texts))} "
                "characters; one run each, warmed up. ChatHuggingFace runs its batch in threads."
            ),
            "No GPU was at hand: 'continuous' is transformers' own batching, which the engine takes there.",
        ],
    }


def _bars(batches: Sequence[_Run], callers: Sequence[_Run], first: float, same: int) -> list[dict[str, Any]]:
    ours, peer, loop = batches[0], batches[-2], batches[-1]
    together, threads = callers[0], callers[-1]
    return [
        at_least(
            "ChatQuantized.batch to ChatHuggingFace.batch, tokens a second", peer.seconds / ours.seconds, 2.4, "×"
        ),
        at_least("ChatQuantized.batch to a loop over generate, tokens a second", loop.seconds / ours.seconds, 2.4, "×"),
        at_least(
            "16 callers: the engine to threads calling generate, tokens a CPU second",
            (together.tokens / together.cpu) / (threads.tokens / threads.cpu),
            4,
            "×",
        ),
        at_most("16 callers: median latency to that of threads", _over(together, threads, statistics.median), 1, "×"),
        at_most("16 callers: 95th percentile to that of threads", together.worst / threads.worst, 1, "×"),
        at_most("first token of a stream to a bare prefill", first, 1.3, "×"),
        at_least(f"greedy answers in fp32 the same as one at a time, of {_REQUESTS}", same, _REQUESTS),
    ]


def _prompts(count: int) -> list[str]:
    chosen = random.Random(9)
    return [" ".join(map(question, chosen.sample(sorted(FACTS), chosen.randint(1, 20)))) for _ in range(count)]


def _loaded(folder: Path, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def _engine(folder: Path, batching: str, dtype: str = "bfloat16") -> TransformersEngine:
    return TransformersEngine(folder, quantization="none", dtype=dtype, batching=batching).load()  # type: ignore[arg-type]


def _timed(name: str, tokens: int, call: Callable[[], Sequence[float]]) -> _Run:
    started, cpu = time.perf_counter(), time.process_time()
    latencies = call()
    return _Run(name, tokens, time.perf_counter() - started, time.process_time() - cpu, latencies)


def _generate(model: Any, tokenizer: Any, text: str, count: int) -> list[int]:
    import torch

    chat = [{"role": "user", "content": text}]
    tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        made = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, do_sample=False, pad_token_id=0
        )
    return [int(token) for token in made[0, tokens.shape[1] :]]


def _batches(folder: Path, model: Any, tokenizer: Any, texts: list[str], count: int) -> list[_Run]:
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import pipeline

    from langchain_costopt import ChatQuantized

    tokens, found = len(texts) * count, []
    for batching in ("rows", "continuous"):
        with _engine(folder, batching) as engine:
            chat = ChatQuantized(engine=engine, max_tokens=count)
            chat.batch([*texts[:2]])
            found.append(_timed(f"ChatQuantized.batch, {batching}", tokens, functools.partial(_all, chat, texts)))
    # Told to the pipeline itself: ChatHuggingFace leaves the `pipeline_kwargs` of HuggingFacePipeline out.
    options: Any = {"max_new_tokens": count, "do_sample": False, "return_full_text": False}
    piped = pipeline("text-generation", model=model, tokenizer=tokenizer, **options)
    peer = ChatHuggingFace(llm=HuggingFacePipeline(pipeline=piped), tokenizer=tokenizer)
    peer.invoke(texts[0])
    with _passes(model) as passes:
        found.append(_timed("ChatHuggingFace.batch", tokens, functools.partial(_all, peer, texts)))
        assert passes() == tokens, "it makes as many tokens as ours"
    found.append(
        _timed("a loop", tokens, lambda: [0.0 for text in texts if not _generate(model, tokenizer, text, count)])
    )
    return found


@contextlib.contextmanager
def _passes(model: Any) -> Iterator[Callable[[], int]]:
    """How often the model was run: once for each token of each answer, where nothing is batched."""
    made: list[None] = []
    hook = model.register_forward_hook(lambda *_: made.append(None))
    try:
        yield lambda: len(made)
    finally:
        hook.remove()


def _all(chat: Any, texts: list[str]) -> Sequence[float]:
    chat.batch(texts)
    return ()


def _callers(folder: Path, model: Any, tokenizer: Any, texts: list[str], count: int) -> list[_Run]:
    """Each caller asks for its two answers one after the other."""
    tokens, found = len(texts) * count, []
    for batching in ("rows", "continuous"):
        with _engine(folder, batching) as engine:
            engine.submit(GenerationRequest.chat(texts[0], max_tokens=2)).result()
            call = lambda text, engine=engine: engine.submit(GenerationRequest.chat(text, max_tokens=count)).result()  # noqa: E731
            found.append(_timed(f"engine, {batching}", tokens, lambda call=call: _at_once(call, texts)))
    call = lambda text: _generate(model, tokenizer, text, count)  # noqa: E731
    found.append(_timed("threads calling generate", tokens, lambda: _at_once(call, texts)))
    return found


def _at_once(call: Callable[[str], object], texts: list[str]) -> list[float]:
    start, latencies = threading.Barrier(_CALLERS), []

    def caller(own: list[str]) -> None:
        start.wait()
        for text in own:
            started = time.perf_counter()
            call(text)
            latencies.append(time.perf_counter() - started)

    threads = [threading.Thread(target=caller, args=(texts[i::_CALLERS],)) for i in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def _over(one: _Run, other: _Run, of: Callable[[Sequence[float]], float]) -> float:
    return of(one.latencies) / of(other.latencies)


def _first_token(folder: Path, model: Any, tokenizer: Any, options: Options) -> float:
    import torch

    texts = _prompts(6 if options.quick else 9)

    def prefill(text: str) -> None:
        chat = [{"role": "user", "content": text}]
        tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            model(input_ids=tokens, use_cache=True, logits_to_keep=1).logits.argmax()

    with _engine(folder, "rows") as engine:

        def first(text: str) -> Callable[[], object]:
            pieces = iter(engine.submit(GenerationRequest.chat(text, max_tokens=4, logprobs=0)))
            next(pieces)
            return lambda: list(pieces)  # else the next one waits for a step that is under way

        sides = {"stream": first, "prefill": prefill}
        return interleave(sides, lambda _: texts, 3).ratio("stream", "prefill")


def _same(folder: Path, texts: list[str], count: int) -> int:
    model, tokenizer = _loaded(folder, "float32")
    with _engine(folder, "rows", "float32") as engine:
        requests = [GenerationRequest.chat(text, max_tokens=count) for text in texts]
        said = [handle.result().text for handle in [engine.submit(request) for request in requests]]
    alone = [tokenizer.decode(_generate(model, tokenizer, text, count), skip_special_tokens=True) for text in texts]
    return sum(one == other for one, other in zip(said, alone, strict=True))
