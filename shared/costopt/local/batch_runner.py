"""Batches on a machine of one's own: OpenAI's batch files in and out, many requests at once, what it took and cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

from costopt.errors import (
    ConfigError,
    CostOptError,
    EngineClosedError,
    EngineError,
    MissingExtraError,
    OutOfMemoryError,
)
from costopt.gpu import GpuSampler
from costopt.local.batch_files import AnswerFile, Row, read_rows
from costopt.local.batch_report import BatchProgress, BatchReport, MachinePrice
from costopt.local.engine import Engine, Generation, GenerationRequest
from costopt.local.openai_format import completion_of, request_of

__all__ = ["LocalBatchRunner"]

_FATAL = (EngineClosedError, MissingExtraError, OutOfMemoryError)


class LocalBatchRunner:
    """Runs a file of requests through an engine, as many at once as it can take.

    Rows are known by what they say: a run that was interrupted, by `kill -9`, too, goes on where it stopped, and a row
    that was changed is asked again. Rows that fail go to a file of their own, and are asked again the next time.

    Args:
        engine: Whatever answers.
        concurrency: Most rows under way at once.
        price: What the machine costs.
        give_up_after: So many rows failing one after the other end the run.
        sampler: Watches the GPUs; None: all of them, and writes nothing.

    Raises:
        ConfigError: If an argument cannot be meant.

    Example:
        >>> from costopt.local.shared import shared_engine
        >>> engine = shared_engine(facts_model, quantization="none")
        >>> row = '{"custom_id": "1", "body": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}}'
        >>> _ = (tmp / "asked.jsonl").write_text(row)
        >>> report = LocalBatchRunner(engine).run(tmp / "asked.jsonl", tmp / "answers.jsonl")
        >>> report.done, report.failed
        (1, 0)
        >>> engine.close()
    """

    def __init__(
        self,
        engine: Engine,
        *,
        concurrency: int = 64,
        price: MachinePrice | None = None,
        give_up_after: int = 100,
        sampler: GpuSampler | None = None,
    ) -> None:
        if concurrency < 1 or give_up_after < 1:
            raise ConfigError(f"concurrency={concurrency}, give_up_after={give_up_after}: use 1 or more")
        self._engine, self._concurrency, self._price = engine, concurrency, price
        self._give_up_after, self._sampler = give_up_after, sampler

    def run(
        self,
        source: str | Path,
        output: str | Path,
        *,
        on_progress: Callable[[BatchProgress], None] | None = None,
    ) -> BatchReport:
        """Answer every row of a file.

        Args:
            source: JSON lines with "custom_id" and "body", as OpenAI's batch API takes them; may be gzip'd; "-" is
                standard input.
            output: Where the answers go, behind those that are there already; each with when it was asked, how long it
                took and its share of the cost, for `costopt audit`. Rows that fail go beside it, to a file that ends in
                ".errors.jsonl".
            on_progress: Told after every row.

        Raises:
            ConfigError: If a file cannot be read or written.
            OutOfMemoryError: If the model does not fit.
            EngineError: If too many rows fail one after the other; what was answered is kept.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.arun(source, output, on_progress=on_progress))
        with ThreadPoolExecutor(1) as pool:  # a notebook has an event loop of its own
            return pool.submit(asyncio.run, self.arun(source, output, on_progress=on_progress)).result()

    async def arun(
        self,
        source: str | Path,
        output: str | Path,
        *,
        on_progress: Callable[[BatchProgress], None] | None = None,
    ) -> BatchReport:
        """`run`, without blocking the event loop."""
        load = getattr(self._engine, "load", None)
        total = await asyncio.to_thread(_counted, source)
        with contextlib.ExitStack() as held:
            answers = held.enter_context(AnswerFile(output))
            if load is not None:
                await asyncio.to_thread(load)  # a model that is not there is one error, not one for each row
            errors = held.enter_context(_Errors(Path(f"{Path(output)}.errors.jsonl")))
            sampler = held.enter_context(self._sampler or GpuSampler())
            run = _Run(self, answers, errors, sampler, total, on_progress)
            await run.through(source)
            held.pop_all().close()
        return run.report()


class _Run:
    """One run: what it has done so far."""

    def __init__(
        self,
        runner: LocalBatchRunner,
        answers: AnswerFile,
        errors: _Errors,
        sampler: GpuSampler,
        total: int | None,
        on_progress: Callable[[BatchProgress], None] | None,
    ) -> None:
        self._runner, self._answers, self._errors, self._sampler = runner, answers, errors, sampler
        self._total, self._on_progress = total, on_progress
        self._began = time.monotonic()
        self._done = self._failed = self._before = self._in_a_row = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._seconds = 0.0
        self._first_error = ""
        self._charged = Decimal(0)

    async def through(self, source: str | Path) -> None:
        under_way: set[asyncio.Task[None]] = set()
        known = set(self._answers.done)
        try:
            async for row in _arows(source):
                if row.name in known:
                    self._before += 1
                    continue
                known.add(row.name)
                while len(under_way) >= self._runner._concurrency:
                    ended, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    _raised(ended)
                under_way.add(asyncio.create_task(self._answer(row)))
            while under_way:
                ended, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                _raised(ended)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            self._seconds = time.monotonic() - self._began

    def report(self) -> BatchReport:
        use = self._sampler.use
        price = self._runner._price
        joules = None if use is None else use.joules
        return BatchReport(
            output=self._answers.path,
            errors=self._errors.path if self._failed else None,
            first_error=self._first_error,
            done=self._done,
            failed=self._failed,
            before=self._before,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            seconds=self._seconds,
            gpu=use,
            gpu_note=self._sampler.reason,
            dollars=None if price is None else price.cost(self._seconds, joules),
        )

    async def _answer(self, row: Row) -> None:
        try:
            request = _asked(row)
        except ConfigError as error:
            self._fail(row, error)
        else:
            await self._ask(row, request)
        if self._on_progress is not None:
            self._on_progress(self._progress())

    async def _ask(self, row: Row, request: GenerationRequest) -> None:
        started, began = time.time(), time.monotonic()
        try:
            generation = await self._runner._engine.submit(request).aresult()
        except _FATAL:
            raise
        except CostOptError as error:
            self._fail(row, error)
            self._in_a_row += 1
            if self._in_a_row >= self._runner._give_up_after:
                raise EngineError(
                    f"{self._in_a_row} rows failed one after the other, the last with: {error}"
                ) from error
        else:
            taken = {"started": round(started, 3), "latency_s": round(time.monotonic() - began, 3)}
            self._succeed(row, generation, taken)

    def _succeed(self, row: Row, generation: Generation, taken: dict[str, float]) -> None:
        model = str(row.body.get("model") or self._runner._engine.name)
        body = completion_of(generation, model, name=f"chatcmpl-{row.name[10:]}", created=int(time.time()))
        response = {"status_code": 200, "request_id": row.name, "body": body}
        answer = {"id": row.name, "custom_id": row.custom_id, "response": response, "error": None}
        self._answers.append({**answer, "provider": "local", **taken, **self._share()})
        self._done += 1
        self._in_a_row = 0
        if generation.usage is not None:
            self._prompt_tokens += generation.usage.prompt_tokens
            self._completion_tokens += generation.usage.completion_tokens

    def _share(self) -> dict[str, str]:
        """What the machine has cost since the last answer: one answer's share says little, but their sum is right."""
        if self._runner._price is None:
            return {}
        before, now = self._charged, self._cost_so_far()
        self._charged = max(before, now)
        return {"cost_usd": f"{self._charged - before:.12f}"}

    def _cost_so_far(self) -> Decimal:
        price = self._runner._price or MachinePrice()
        return price.cost(time.monotonic() - self._began, self._sampler.joules)

    def _fail(self, row: Row, error: CostOptError) -> None:
        said = {"code": _code(error), "message": str(error)}
        self._errors.append({"id": row.name, "custom_id": row.custom_id, "response": None, "error": said})
        self._failed += 1
        self._first_error = self._first_error or (f"{row.custom_id}: " if row.custom_id else "") + str(error)

    def _progress(self) -> BatchProgress:
        seconds = time.monotonic() - self._began
        return BatchProgress(
            total=self._total,
            done=self._done,
            failed=self._failed,
            before=self._before,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            seconds=seconds,
            dollars=None if self._runner._price is None else self._cost_so_far(),
            utilisation=self._sampler.latest,
        )


class _Errors:
    """The rows that fail in this run; a file only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: AnswerFile | None = None
        with contextlib.suppress(FileNotFoundError):
            path.unlink()

    def append(self, row: dict[str, object]) -> None:
        if self._file is None:
            self._file = AnswerFile(self.path)
        self._file.append(row)

    def __enter__(self) -> _Errors:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


async def _arows(source: str | Path) -> AsyncIterator[Row]:
    """Read in a thread: standard input may have nothing to say for a while."""
    rows: Iterator[Row] = read_rows(source)
    while (row := await asyncio.to_thread(next, rows, None)) is not None:
        yield row


def _asked(row: Row) -> GenerationRequest:
    if row.problem:
        raise ConfigError(row.problem)
    return request_of(row.body)


def _counted(source: str | Path) -> int | None:
    return None if str(source) == "-" else sum(1 for _ in read_rows(source))


def _raised(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.result()


def _code(error: CostOptError) -> str:
    """The name of the error as OpenAI writes codes: ContextLengthError is "context_length"."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
