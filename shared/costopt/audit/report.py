"""The audit of a log, from the file to a report. See `audit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from costopt.audit.batchable import batchable
from costopt.audit.bill import Bill, bill_of
from costopt.audit.columns import Columns, Log
from costopt.audit.context import context_of
from costopt.audit.gpu import gpu_load
from costopt.audit.overrouted import Routing, bounded_routing, trained_routing
from costopt.audit.questions import Questions, answered, local_rows
from costopt.audit.readers import LogReader
from costopt.audit.readers.ledger import is_sqlite, ledger_rows
from costopt.audit.repeats import TTL_S, exact_hits
from costopt.audit.replay import LEVERS, LeverResult, Replay
from costopt.audit.semantic import CASES, Texts, WordedRepeats, worded_repeats
from costopt.audit.spend import dearest_templates, spend_of
from costopt.errors import ConfigError
from costopt.gpu import GpuSample
from costopt.pricing import Price, listed, price_list

if TYPE_CHECKING:
    from costopt.caching.judge import Judge
    from costopt.embedding import Embedder
    from costopt.routing import GainEstimator

__all__ = ["CostReport", "Steps", "audit"]

_VERSION = 1


class Steps(Protocol):
    """Shows how far the audit is: each step is entered with its name, and told of progress within."""

    def step(self, name: str, total: int | None) -> AbstractContextManager[Callable[[int], object]]:
        """Enter a step of so many units, if that is known."""


class _Silent:
    def step(self, name: str, total: int | None) -> AbstractContextManager[Callable[[int], object]]:
        return nullcontext(lambda _: None)


@dataclass(frozen=True, slots=True)
class CostReport:
    """What a log says of its spending, and what each lever would have saved.

    Attributes:
        source: Of what it was made: file, format, rows, lines that could not be read, unknown fields.
        spend: What was paid, over time and by model; what could not be priced.
        questions: The five questions, answered.
        levers: Each lever by itself.
        together: All levers, one on top of the other, net of their own cost.
        templates: The ten dearest prompt templates.
        notes: What a reader should know before relying on it.
    """

    source: Mapping[str, Any]
    spend: Mapping[str, Any]
    questions: Questions
    levers: Sequence[LeverResult]
    together: Mapping[str, Any]
    templates: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON; amounts of money as text, so that none is rounded."""
        return {
            "version": _VERSION,
            "source": dict(self.source),
            "spend": dict(self.spend),
            "questions": self.questions.as_dict(),
            "levers": [{name: getattr(lever, name) for name in lever.__slots__} for lever in self.levers],
            "together": dict(self.together),
            "templates": [dict(template) for template in self.templates],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class _Options:
    prices: Mapping[str, Price] | None
    cheaper: Sequence[str]
    router: GainEstimator | None
    embedder: Embedder | None
    judge: Judge | None
    ttl_s: float
    cpu_hour: float


def audit(
    source: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    router: GainEstimator | None = None,
    embedder: Embedder | None = None,
    judge: Judge | None = None,
    prices: Mapping[str, Price] | None = None,
    cheaper: Sequence[str] = (),
    gpu: Sequence[GpuSample] | None = None,
    ttl_s: float = TTL_S,
    cpu_hour: float = 0.05,
    keep_text: bool = True,
    steps: Steps | None = None,
) -> CostReport:
    r"""Audit a log of model calls: what was spent, on what, and what each lever would have saved. Nothing is sent.

    Args:
        source: A log: see `LogReader`.
        format: Its format; None: by its first rows.
        router: A trained router; without one it is unknown which requests were over-routed.
        embedder: For the semantic pass (and the router); None: without it.
        judge: Decides on reworded repeats; None: without the semantic pass.
        prices: Prices of one's own by the model's name.
        cheaper: Models that could be used, beside those of the log.
        gpu: What a `GpuSampler` wrote.
        ttl_s: How long a cache would serve an answer, in seconds.
        cpu_hour: US dollars for an hour of a processor core, for what the levers themselves take.
        keep_text: Whether the report may show how prompts begin.
        steps: Shown progress.

    Raises:
        ConfigError: If the log cannot be read or holds no model calls, a router is given without an embedder, or no
            price is known of one of `cheaper`.

    Example:
        >>> import json
        >>> row = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}], "answer": "So."}
        >>> _ = (tmp / "log.jsonl").write_text("\n".join([json.dumps(row)] * 4))
        >>> report = audit(tmp / "log.jsonl")
        >>> report.questions.repeats["exact_share"], report.levers[0].name
        (0.75, 'exact cache')
    """
    if router is not None and embedder is None:
        raise ConfigError("a router reads embeddings: give embedder=, e.g. default_embedder()")
    _check_cheaper(cheaper, prices)
    if not ttl_s > 0 or not cpu_hour >= 0:
        raise ConfigError(f"ttl_s={ttl_s}, cpu_hour={cpu_hour}: give seconds above 0, and dollars of at least 0")
    shown = steps or _Silent()
    reader = LogReader(source, format=format)
    log = _read(reader, shown, keep_texts=embedder is not None)
    if not len(log):
        first = f" (line {reader.skipped.first[0][0]}: {reader.skipped.first[0][1]})" if reader.skipped.first else ""
        raise ConfigError(f"{source} holds no model calls{first}; {reader.others:,} rows are other things")
    options = _Options(prices, cheaper, router, embedder, judge, ttl_s, cpu_hour)
    return _reported(log, reader, options, gpu, keep_text, shown)


def _check_cheaper(cheaper: Sequence[str], prices: Mapping[str, Price] | None) -> None:
    if isinstance(cheaper, str):
        raise ConfigError(f"cheaper is the string {cheaper!r}: give a list, cheaper=[{cheaper!r}]")
    for name in cheaper:
        found = listed(name)
        if name not in (prices or {}) and (found is None or found.price() is None):
            raise ConfigError(
                f"cheaper: no price is known of {name!r}: give the name that its provider has, or its price by prices= "
                "(--price)"
            )


def _read(reader: LogReader, steps: Steps, *, keep_texts: bool) -> Log:
    columns = Columns(keep_texts=keep_texts)
    path = Path(str(reader.source))
    size = path.stat().st_size if path.is_file() else None
    if size is not None and is_sqlite(path):
        size = ledger_rows(path)
    with steps.step("reading", size) as advance:
        reader.progress = advance
        for record in reader:
            try:
                columns.add(record)
            except ValueError as error:
                reader.skipped.add(len(columns) + reader.skipped.count + reader.others + 1, str(error))
    return columns.log()


def _reported(
    log: Log, reader: LogReader, options: _Options, gpu: Sequence[GpuSample] | None, keep_text: bool, steps: Steps
) -> CostReport:
    with steps.step("pricing", None):
        bill = bill_of(log, options.prices)
        context, waiting = context_of(log), batchable(log)
        exact = exact_hits(log, options.ttl_s)
    worded, routing = _semantic(log, bill, exact, options, steps)
    with steps.step("replaying", None):
        chance = np.zeros((len(CASES), len(log))) if worded is None else worded.chance
        replay = Replay(
            log, bill, context, exact, chance, routing, waiting,
            prices=options.prices, cpu_hour=options.cpu_hour, semantic_known=worded is not None,
        )  # fmt: skip
        questions = answered(
            log, bill, routing=routing, exact=exact, worded=worded, context=context, waiting=waiting,
            gpu=gpu_load(gpu, _busy(log)), keep_text=keep_text,
        )  # fmt: skip
        return CostReport(
            _source(log, reader),
            spend_of(log, bill),
            questions,
            replay.results(),
            _together(replay),
            dearest_templates(log, bill, keep_text=keep_text),
            _notes(log, bill, reader, worded),
        )


def _semantic(
    log: Log, bill: Bill, exact: Any, options: _Options, steps: Steps
) -> tuple[WordedRepeats | None, Routing]:
    embedder = options.embedder
    if embedder is None:
        return None, bounded_routing(log, bill.rates, options.cheaper, options.prices)
    with steps.step("embedding and judging", len(log.texts)) as advance:
        texts = Texts(log.texts, embedder, advance)
        worded = None
        if options.judge is not None:
            worded = worded_repeats(log, texts, embedder, options.judge, exact, options.ttl_s)
        if options.router is not None:
            return worded, trained_routing(log, options.router, texts, bill.rates, options.prices)
    return worded, bounded_routing(log, bill.rates, options.cheaper, options.prices)


def _busy(log: Log) -> list[tuple[float, float]]:
    rows = np.flatnonzero(local_rows(log) & (log["latency"] >= 0)) if log.timed else np.zeros(0, np.intp)
    starts, took = log["started"][rows].tolist(), log["latency"][rows].tolist()
    return [(start, start + latency) for start, latency in zip(starts, took, strict=True)]


def _source(log: Log, reader: LogReader) -> dict[str, Any]:
    return {
        "file": Path(str(reader.source)).name,
        "format": reader.format,
        "calls": len(log),
        "other_rows": reader.others,
        "skipped": reader.skipped.count,
        "skipped_first": [{"line": line, "reason": reason} for line, reason in sorted(reader.skipped.first)],
        "unknown_fields": reader.unknown,
        "from": _iso(log["started"][0]) if log.dated else None,
        "to": _iso(log["started"][-1]) if log.dated else None,
        "prices": str(price_list()),
    }


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(float(moment), UTC).isoformat(timespec="seconds")


def _together(replay: Replay) -> dict[str, Any]:
    before = replay.before
    found: dict[str, Any] = {"before": _usd(before)}
    after = {case: replay.total(LEVERS, case) for case in CASES}
    least, likely, most = sorted(after.values(), reverse=True)
    for name, value in (("after", likely), ("after_low", least), ("after_high", most)):
        found[name] = _usd(value)
    found |= {"saves": _usd(before - likely), "saves_low": _usd(before - least), "saves_high": _usd(before - most)}
    found["share"] = round((before - likely) / before, 6) if before else 0.0
    found["share_low"] = round((before - least) / before, 6) if before else 0.0
    found["share_high"] = round((before - most) / before, 6) if before else 0.0
    found["steps"] = [{"name": name, "saves": _usd(saved)} for name, saved in replay.steps()]
    return found


def _usd(amount: float) -> Decimal:
    return Decimal(repr(amount)).quantize(Decimal("0.000001"))


def _notes(log: Log, bill: Bill, reader: LogReader, worded: WordedRepeats | None) -> list[str]:
    unpriced, count = int((~bill.known).sum()), len(log)
    notes = []
    if unpriced:
        notes.append(f"{unpriced:,} calls have no cost that is known; they are in no sum of dollars.")
    if not log.timed:
        notes.append("The log does not tell when its calls were made: all are taken to be of one day, priced as today.")
    elif not log.dated:
        notes.append("The log tells no dates, only seconds: its calls are priced as today.")
    if reader.skipped.count:
        notes.append(f"{reader.skipped.count:,} lines could not be read and were left out.")
    if not (log["exact"] != 0).any():
        notes.append("The log holds no prompts: repeats, context and over-routing cannot be told from it.")
    if worded is None:
        notes.append("Reworded repeats were not looked for.")
    elif worded.judged < worded.pairs:
        notes.append(
            f"The judge read {worded.judged:,} of {worded.pairs:,} near pairs, spread over models and similarities: "
            f"the reworded repeats are {round(worded.margin):,} more or fewer, with 95 % confidence."
        )
    if count < 1_000:
        notes.append(f"{count:,} calls are few: another week may look quite different.")
    return notes
