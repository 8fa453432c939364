"""The measured table of README.md: of the whole one in RESULTS.md, what stands for each lever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cookbook.benchmarks.claims import CLAIMS, verdict
from cookbook.benchmarks.findings import percent
from cookbook.benchmarks.recorded import Record
from cookbook.benchmarks.savings import Line, lines

__all__ = ["block", "with_block"]

BEGIN, END = "<!-- savings: written by make bench -->", "<!-- /savings -->"
_COLUMNS = ("lever", "measured on", "claimed", "saved", "quality", "the claim, here")
_TOGETHER = "combined"


def block(records: Mapping[str, Record]) -> str:
    """For each lever its first line, and all of the one application that has every lever."""
    every = lines(records)
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_row, _chosen(every))]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    said = [verdict(CLAIMS[line.lever], line.saved, line.change) for line in every if line.lever in CLAIMS]
    holds, fails = (sum(words.startswith(start) for words in said) for start in ("holds", "**does not hold**"))
    unsure = len(said) - holds - fails
    return (
        f"{table}\n\nIn brackets 95 % intervals. Claimed is a textbook's word. Of all {len(said)} lines that are held "
        f"against it in\nRESULTS.md, with what peers do on the same data, {holds} hold, {fails} do not, and of "
        f"{unsure} it cannot be told. `make bench` wrote this."
    )


def with_block(text: str, table: str) -> str:
    """The README with this table in its place."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"


def _chosen(every: Sequence[Line]) -> Iterator[Line]:
    seen = set()
    for line in every:
        if line.lever not in seen or line.section == _TOGETHER:
            yield line
        seen.add(line.lever)


def _row(line: Line) -> list[str]:
    claim = CLAIMS.get(line.lever)
    judged = verdict(claim, line.saved, line.change)
    saved, quality = f"{percent(line.saved)} of {line.of}", f"{percent(line.change, sign=True)} {line.quality}"
    return [line.lever, line.data, claim.words if claim else "the most", saved, quality, judged]
