"""A log in columns: what the audit needs of each row, in some 150 bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.audit.keys import keys_of
from costopt.audit.money import picodollars
from costopt.audit.record import UNKNOWN, Record
from costopt.audit.waste import LEAST_CHARS, Waste
from costopt.tokens import count_tokens

__all__ = ["Columns", "Flag", "Log", "Template", "Toolset"]

_MOST_TEXTS = 1_000_000
_MOST_TEMPLATES = 100_000
_LONGEST_TEXT = 2_000
"""Of what may match loosely: no embedder tells all of a longer one."""

_PREVIEW = 160
_FIRST_DATE = 1e8  # in 1973
_MOST_COUNTED, _LONGEST_COUNTED = 2_000, 100_000
_CHARS_A_TOKEN = 4
_PER_MESSAGE = 4
_HIGH = ((1 << 31) - 1) << 31
_MOST_DOLLARS = 1e6
# What applications call work that nobody waits for.
_PATIENT = frozenset(
    "batch background offline bulk backfill nightly cron job eval evaluation dataset async-job scheduled".split()
)
_KINDS = {
    "started": "f8", "latency": "f4", "model": "u2", "input": "i4", "output": "i4", "cached": "i4", "written": "i4",
    "billed": "i8", "flags": "u2", "exact": "i8", "scope": "i8", "upto": "i8", "before": "i8", "text": "i4",
    "template": "i4", "toolset": "i4", "system": "i4", "history": "i4", "question": "i4", "tools": "i4", "blanks": "i4",
    "twice": "i4",
}  # fmt: skip
_ROW = np.dtype([(name, f"<{kind}") for name, kind in _KINDS.items()])
_CODES = {"f8": "d", "f4": "f", "u2": "H", "i4": "i", "i8": "q"}
_PACK = struct.Struct("<" + "".join(_CODES[kind] for kind in _KINDS.values()))
# Rows are kept in parts, so that growing never copies them all.
_PART_ROWS = 1 << 15


class Flag:
    """Bits of the column `flags`."""

    FAILED = 1
    HIT = 2
    STREAMED = 4
    BATCHED = 8
    ESTIMATED = 16
    UNCOUNTED = 32
    PATIENT = 64
    TELLS_CACHED = 128
    OFFERS_TOOLS = 256
    CALLS_TOOLS = 512
    MEDIA = 1024
    JSON = 2048
    TURNS = 4096
    PROMPT = 8192
    LOGGED_COST = 16384


@dataclass(slots=True)
class Template:
    """Requests that share their system prompts, their tools and their name.

    Attributes:
        name: What the application calls them, if it does.
        preview: How the prompt begins.
        tokens: Of the system prompts.
    """

    name: str | None
    preview: str
    tokens: int = 0


@dataclass(slots=True)
class Toolset:
    """The tools that some requests offer.

    Attributes:
        names: Of the tools, in their order.
        sizes: Characters of each one's definition.
        tokens: Of each one's definition.
        called: Those that were called at least once.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    called: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Characters of all definitions."""
        return sum(self.sizes)


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log, its rows in the order of time.

    Attributes:
        columns: By name, each of shape (rows,).
        models: (name, provider) by their numbers in the column `model`.
        texts: What may match loosely, by number.
        templates: By number.
        toolsets: By number.
        timed: Whether the log tells when its calls were made.
    """

    columns: dict[str, NDArray[Any]]
    models: Sequence[tuple[str, str | None]]
    texts: Sequence[str]
    templates: Sequence[Template]
    toolsets: Sequence[Toolset]
    timed: bool

    def __len__(self) -> int:
        return len(self.columns["started"])

    @property
    def dated(self) -> bool:
        """Whether its moments are dates; some logs count seconds from their own beginning."""
        return self.timed and bool(self.columns["started"][0] >= _FIRST_DATE)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def has(self, flag: int) -> NDArray[np.bool_]:
        """Which rows have this flag."""
        found: NDArray[np.bool_] = (self.columns["flags"] & flag) != 0
        return found


class Columns:
    """Takes records one after the other, and keeps numbers.

    Args:
        keep_texts: Whether the texts are kept that may match loosely; without them the log needs less memory.

    Example:
        >>> from costopt.audit.record import Record
        >>> columns = Columns()
        >>> columns.add(Record(0.0, "gpt-4o", messages=[{"role": "user", "content": "Why?"}]))
        >>> len(columns.log()), columns.log().texts
        (1, ['Why?'])
    """

    def __init__(self, *, keep_texts: bool = True) -> None:
        self._keep_texts = keep_texts
        self._parts: list[bytearray] = [bytearray()]
        self._rows = 0
        self._models: dict[tuple[str, str | None], int] = {}
        self._texts: dict[str, int] = {}
        self._templates: dict[Any, int] = {}
        self._template_list: list[Template] = [Template("others", "")]
        self._toolsets: dict[str, int] = {}
        self._toolset_list: list[Toolset] = [Toolset((), ())]
        self._waste = Waste()
        self._counted = 0
        self._patient: dict[tuple[str, ...], bool] = {}

    def __len__(self) -> int:
        return self._rows

    def add(self, record: Record) -> None:
        """Keep what is needed of one record."""
        model = self._models.setdefault((record.model, record.provider), len(self._models))
        flags = self._flags(record)
        toolset = self._toolset(record) if record.tools else 0
        if record.messages:
            flags, told = self._told(record, toolset, flags)
        else:
            told = self._hashed(record, toolset)
        read, written = record.input_tokens, record.output_tokens
        if read == UNKNOWN:
            read, written, more = self._estimated(record, sum(told[-6:-2]))
            flags |= more
        if told[-2] or told[-1]:
            told = (*told[:-2], min(told[-2], read), min(told[-1], read))
        billed = -1 if record.cost is None or record.cost < 0 else picodollars(min(record.cost, _MOST_DOLLARS))
        try:
            packed = _PACK.pack(
                -1.0 if record.started is None else record.started,
                -1.0 if record.latency_s is None else record.latency_s,
                model, read, written, record.cached_tokens, record.cache_write_tokens, billed, flags, *told,
            )  # fmt: skip
        except (struct.error, OverflowError) as error:
            raise ValueError(f"a number is beyond what a model call can have ({error})") from None
        if len(self._parts[-1]) >= _PART_ROWS * _PACK.size:
            self._parts.append(bytearray())
        self._parts[-1] += packed
        self._rows += 1

    def _told(self, record: Record, toolset: int, flags: int) -> tuple[int, tuple[int, ...]]:
        """(flags, columns from `exact` on) of a row whose prompt the log holds."""
        keys = keys_of(record, toolset)
        flags |= Flag.PROMPT | (Flag.TURNS if keys.before else 0) | (Flag.MEDIA if keys.media else 0)
        text = -1
        if keys.text is not None and self._keep_texts and len(keys.text) <= _LONGEST_TEXT:
            text = self._text(keys.text)
        template = self._template(record, keys.system, toolset, keys.text)
        blanks = twice = 0
        size = keys.system_size + keys.history_size + keys.question_size
        if size >= LEAST_CHARS:
            blanks, twice = self._waste.of(keys.contents, record.model)
        tools = self._toolset_list[toolset].size if toolset else 0
        return flags, (
            keys.exact, keys.scope, keys.upto, keys.before, text, template, toolset, keys.system_size,
            keys.history_size, keys.question_size, tools, blanks, twice,
        )  # fmt: skip

    def _hashed(self, record: Record, toolset: int) -> tuple[int, ...]:
        """The same of a row of which the log holds hashes and sizes at most."""
        shape = record.shape
        exact = 0
        if record.prompt_hash is not None:
            exact = hash((record.tenant, record.model, record.prompt_hash)) & _HIGH
        if shape is None:
            return (exact, 0, 0, 0, -1, 0, toolset, 0, 0, 0, 0, 0, 0)
        upto = hash((record.model, shape.system_hash)) & _HIGH
        template = self._template(record, (shape.system_hash or "",), 0, None)
        sizes = (shape.system, shape.history, shape.question, shape.tools)
        return (exact, 0, upto, 0, -1, template, toolset, *sizes, 0, 0)

    def log(self) -> Log:
        """What was kept, in the order of time."""
        rows = [np.frombuffer(bytes(part), _ROW) for part in self._parts]
        columns = {name: np.concatenate([part[name] for part in rows]) for name in _KINDS}
        timed = bool(len(self)) and bool((columns["started"] >= 0).any())
        if timed:
            columns["started"] = _filled(columns["started"])
            order = np.argsort(columns["started"], kind="stable")
            if (np.diff(order) != 1).any():
                columns = {name: column[order] for name, column in columns.items()}
        models = list(self._models)
        return Log(columns, models, list(self._texts), self._template_list, self._toolset_list, timed)

    def _flags(self, record: Record) -> int:
        flags = (
            (0 if record.ok else Flag.FAILED)
            | (Flag.HIT if record.hit else 0)
            | (Flag.STREAMED if record.stream else 0)
            | (Flag.BATCHED if record.batch else 0)
            | (Flag.ESTIMATED if record.estimated else 0)
            | (Flag.TELLS_CACHED if record.tells_cached else 0)
            | (Flag.OFFERS_TOOLS if record.tools else 0)
            | (Flag.CALLS_TOOLS if record.called else 0)
            | (0 if record.cost is None else Flag.LOGGED_COST)
            | (Flag.JSON if "response_format" in record.params else 0)
        )
        if record.tags and self._is_patient(tuple(record.tags)):
            flags |= Flag.PATIENT
        return flags

    def _is_patient(self, tags: tuple[str, ...]) -> bool:
        known = self._patient.get(tags)
        if known is None:
            known = not _PATIENT.isdisjoint(tag.lower() for tag in tags)
            if len(self._patient) < _MOST_TEMPLATES:
                self._patient[tags] = known
        return known

    def _toolset(self, record: Record) -> int:
        tools = record.tools or ()
        written = json.dumps(tools, default=str)
        found = self._toolsets.get(written)
        if found is None:
            if len(self._toolsets) >= _MOST_TEMPLATES:
                return 0
            found = self._toolsets[written] = len(self._toolset_list)
            sizes = tuple(len(json.dumps(tool, default=str)) for tool in tools)
            tokens = tuple(self._tokens(json.dumps(tool, separators=(",", ":"), default=str), record) for tool in tools)
            self._toolset_list.append(Toolset(tuple(map(_tool_name, tools)), sizes, tokens))
        self._toolset_list[found].called.update(record.called)
        return found

    def _text(self, text: str) -> int:
        known = self._texts.get(text)
        if known is None:
            if len(self._texts) >= _MOST_TEXTS:
                return -1
            known = self._texts[text] = len(self._texts)
        return known

    def _template(self, record: Record, system: tuple[str, ...], toolset: int, text: str | None) -> int:
        # Without a system prompt or a name: by how the text begins.
        key: Any = (system, toolset, record.name, None if system or record.name else (text or "")[:24])
        known = self._templates.get(key)
        if known is None:
            if len(self._templates) >= _MOST_TEMPLATES:
                return 0
            known = self._templates[key] = len(self._template_list)
            shown = " ".join(" ".join((*system, text or "") if record.messages else ())[: 4 * _PREVIEW].split())
            tokens = sum(self._tokens(text, record) for text in system) if record.messages else 0
            self._template_list.append(Template(record.name, shown[:_PREVIEW], tokens))
        return known

    def _tokens(self, text: str, record: Record) -> int:
        """As the model counts, for the first thousands of texts: a log may have a prompt of its own in each row."""
        if self._counted >= _MOST_COUNTED or len(text) > _LONGEST_COUNTED:
            return -(-len(text) // _CHARS_A_TOKEN)
        self._counted += 1
        return count_tokens(text, record.model).tokens

    def _estimated(self, record: Record, chars: int) -> tuple[int, int, int]:
        """(input tokens, output tokens, flags) where the log does not tell: four characters a token."""
        if not record.ok and not record.answer:
            return 0, 0, 0  # a call that failed at once
        if not record.messages:
            return 0, 0, Flag.UNCOUNTED
        read = -(-chars // _CHARS_A_TOKEN) + _PER_MESSAGE * len(record.messages)
        return read, -(-len(record.answer or "") // _CHARS_A_TOKEN), Flag.ESTIMATED


def _tool_name(tool: Any) -> str:
    if not isinstance(tool, dict):
        return str(tool)[:80]
    inner = tool.get("function")
    name = inner.get("name") if isinstance(inner, dict) else tool.get("name")
    return str(name)[:80]


def _filled(started: NDArray[Any]) -> NDArray[Any]:
    """Rows without a moment get that of the row before them, the first ones that of the first that has one."""
    known = started >= 0
    if known.all():
        return started
    place = np.where(known, np.arange(len(started)), -1)
    place = np.maximum.accumulate(place)
    place[place < 0] = int(np.argmax(known))
    return started[place]
