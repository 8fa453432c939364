"""Reading logs of model calls, whoever wrote them. See `LogReader`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from costopt.audit.readers.formats import Format
from costopt.audit.readers.langfuse import LANGFUSE
from costopt.audit.readers.langsmith import LANGSMITH
from costopt.audit.readers.ledger import is_sqlite, ledger_records
from costopt.audit.readers.lines import MAX_LINE, Skipped, objects
from costopt.audit.readers.litellm import LITELLM
from costopt.audit.readers.openai import OPENAI
from costopt.audit.record import Record
from costopt.errors import ConfigError

__all__ = ["FORMATS", "Format", "LogReader", "Skipped"]

# The most telling first: OpenAI's is what is left.
FORMATS: Mapping[str, Format] = {each.name: each for each in (LANGSMITH, LANGFUSE, LITELLM, OPENAI)}
"""The formats of text by name; a ledger is known by its file."""

_LOOKED_AT = 200
_TOO_MANY_SHAPES = 10_000


class LogReader:
    """The attempts in a log, one after the other, in the order in which it has them.

    Args:
        source: A file of JSON lines or a JSON array, gzip'd if its name ends in ".gz"; a ledger; "-" for stdin.
        format: A name in `FORMATS`, or "ledger"; None: by the first rows.
        max_line: Bytes; longer lines are passed over.

    Attributes:
        format: The format, once reading has begun.
        skipped: Lines that could not be read.
        others: Rows that are no model calls, such as steps of a trace.
        unknown: Names of fields that this reader does not know, with how many rows have them.

    Raises:
        ConfigError: If the format is none of those.

    Example:
        >>> row = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}], "colour": 1}'
        >>> _ = (tmp / "log.jsonl").write_text(row + chr(10) + "oh no")
        >>> reader = LogReader(tmp / "log.jsonl")
        >>> [record.model for record in reader], reader.format, reader.unknown, reader.skipped.count
        (['gpt-4o'], 'openai', {'colour': 1}, 1)
    """

    def __init__(self, source: str | Path, *, format: str | None = None, max_line: int = MAX_LINE) -> None:  # noqa: A002
        if format is not None and format not in (*FORMATS, "ledger"):
            raise ConfigError(f"there is no format {format!r}: give one of {', '.join((*FORMATS, 'ledger'))}")
        self.source = source
        self.format = format
        self.skipped = Skipped()
        self.others = 0
        self._max_line = max_line
        self._shapes: dict[tuple[str, ...], int] = {}
        self.progress: Callable[[int], object] | None = None

    @property
    def unknown(self) -> dict[str, int]:
        """Names of fields that the reader does not know, the most frequent first."""
        chosen = FORMATS.get(self.format or "")
        known = chosen.fields if chosen else frozenset()
        found: Counter[str] = Counter()
        for shape, count in self._shapes.items():
            for name in shape:
                if name not in known:
                    found[name] += count
        return dict(found.most_common())

    def __iter__(self) -> Iterator[Record]:
        """Read it.

        Raises:
            ConfigError: If it cannot be read, or none of the formats fits.
        """
        if self.format == "ledger" or (self.format is None and str(self.source) != "-" and is_sqlite(self.source)):
            self.format = "ledger"
            yield from ledger_records(self.source, self.progress)
            return
        rows = objects(self.source, self.skipped, self.progress, self._max_line)
        first = list(islice(rows, _LOOKED_AT))
        chosen = self._chosen([row for _, row in first])
        self.format = chosen.name
        for number, row in first:
            record = self._record(chosen, number, row)
            if record is not None:
                yield record
        del first
        for number, row in rows:
            record = self._record(chosen, number, row)
            if record is not None:
                yield record

    def _chosen(self, rows: list[dict[str, Any]]) -> Format:
        if self.format is not None and rows:
            return FORMATS[self.format]
        votes = Counter(found.name for row in rows if (found := _format_of(row)) is not None)
        if votes:
            return FORMATS[votes.most_common(1)[0][0]]
        if not rows:
            if not self.skipped.first:
                raise ConfigError(f"{self.source} is empty: give a log with a JSON object on each line")
            number, reason = self.skipped.first[0]
            raise ConfigError(
                f"{self.source} has no line that can be read (line {number}: {reason}): give a log with a JSON "
                "object on each line"
            )
        names = ", ".join(sorted(rows[0])[:12])
        raise ConfigError(
            f"{self.source} is of no format that is known; its first row has {names or 'no fields'}: give a ledger, an "
            "export of LangSmith, Langfuse or LiteLLM, or lines with OpenAI's "
            '{"model", "messages", "usage"}; or name the format by --format'
        )

    def _record(self, chosen: Format, number: int, row: dict[str, Any]) -> Record | None:
        shape = tuple(row)
        times = self._shapes.get(shape, 0)
        if times or len(self._shapes) < _TOO_MANY_SHAPES:
            self._shapes[shape] = times + 1
        try:
            record = chosen.read(row)
        except ValueError as error:
            self.skipped.add(number, str(error))
            return None
        except (TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            # A field of another type than its documentation says.
            self.skipped.add(number, f"cannot be read as {chosen.name}: {error!r}")
            return None
        if record is None:
            self.others += 1
        return record


def _format_of(row: Mapping[str, Any]) -> Format | None:
    return next((each for each in FORMATS.values() if each.fits(row)), None)
