"""Of what the input of each row consists, in tokens, and which of them were avoidable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.audit.columns import Flag, Log

__all__ = ["CACHE_TTL_S", "LEAST_CACHED", "Context", "context_of"]

CACHE_TTL_S = 300.0
"""How long a provider's prompt cache keeps a prefix that nobody asks for, in seconds; some keep it longer."""

LEAST_CACHED = 1_024
"""Tokens of a prefix below which providers do not cache it; some ask for more."""

Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens of each row, each of shape (rows,).

    The parts are those of prompts that the log holds; system prompts and tools are counted by the model's tokenizer
    where it is at hand, and what is left of the input is divided by characters.

    Attributes:
        system: Of system prompts.
        tools: Of definitions of tools.
        history: Of the turns before the last human one.
        question: The rest.
        repeated: Of system prompts that an earlier row had, too.
        unused: Of definitions of tools that no answer in the log ever called.
        blanks: Of blanks in pretty-printed JSON.
        twice: Of passages that are in the prompt already.
        prefix: At the head of the prompt, and asked of the same model within `CACHE_TTL_S` before.
        opening: Of a prefix that was not, and would have had to be written to the provider's cache.
    """

    system: Tokens
    tools: Tokens
    history: Tokens
    question: Tokens
    repeated: Tokens
    unused: Tokens
    blanks: Tokens
    twice: Tokens
    prefix: Tokens
    opening: Tokens


def context_of(log: Log) -> Context:
    """Look at every row."""
    read = log["input"].astype(np.int64)
    held = log.has(Flag.PROMPT) | (log["system"] + log["history"] + log["question"] > 0)
    whole = np.where(held, read, 0)
    system = np.minimum(_system_tokens(log), whole)
    tools = np.minimum(_tool_tokens(log), whole - system)
    rest = whole - system - tools
    turns = log["history"].astype(np.int64) + log["question"]
    history = np.where(turns > 0, rest * log["history"] // np.maximum(turns, 1), 0)
    first = _first_of(log["template"], system > 0)
    repeated = np.where(first, 0, system)
    unused = np.minimum(_unused(log), tools)
    prefix, opening = _prefixes(log, system + tools, history)
    blanks = np.minimum(log["blanks"], whole).astype(np.int64)
    twice = np.minimum(log["twice"], whole - blanks).astype(np.int64)
    return Context(system, tools, history, rest - history, repeated, unused, blanks, twice, prefix, opening)


def _system_tokens(log: Log) -> Tokens:
    counted: Tokens = np.array([template.tokens for template in log.templates], np.int64)[log["template"]]
    # A ledger without texts knows sizes only.
    guessed = -(-log["system"].astype(np.int64) // 4)
    return np.where(log["system"] == 0, 0, np.where(counted > 0, counted, guessed))


def _tool_tokens(log: Log) -> Tokens:
    counted = np.array([sum(toolset.tokens) for toolset in log.toolsets], np.int64)[log["toolset"]]
    return np.where(counted > 0, counted, -(-log["tools"].astype(np.int64) // 4))


def _unused(log: Log) -> Tokens:
    """Of tools that were offered again and again, and never called under any toolset."""
    called = set().union(*(toolset.called for toolset in log.toolsets))
    idle = [
        sum(tokens for name, tokens in zip(each.names, each.tokens, strict=True) if name not in called)
        for each in log.toolsets
    ]
    unused: Tokens = np.array(idle, np.int64)[log["toolset"]]
    return unused


def _first_of(template: NDArray[np.int32], has: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows are the first of their template."""
    first = np.zeros(len(template), np.bool_)
    rows = np.flatnonzero(has)
    _, places = np.unique(template[rows], return_index=True)
    first[rows[places]] = True
    return first


def _prefixes(log: Log, fixed: Tokens, history: Tokens) -> tuple[Tokens, Tokens]:
    """(tokens that a provider's prompt cache would have had, tokens that would have had to be written to it)."""
    prefix = np.zeros(len(log), np.int64)
    opening = np.zeros(len(log), np.int64)
    if not log.timed:
        return prefix, opening
    rows = np.flatnonzero((fixed + history >= LEAST_CACHED) & ~log.has(Flag.HIT) & ~log.has(Flag.BATCHED))
    fresh = _seen_lately(log, rows)
    long = fixed[rows] >= LEAST_CACHED
    prefix[rows] = np.where(fresh & long, fixed[rows], 0)
    opening[rows] = np.where(~fresh & long, fixed[rows], 0)
    talks = rows[log["before"][rows] != 0]
    if len(talks):
        continued = talks[_continued(log, talks)]
        grown = fixed[continued] + history[continued]
        prefix[continued] = grown
        opening[continued] = 0
    return prefix, opening


def _seen_lately(log: Log, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which rows have a row of the same model and template shortly before them."""
    # The part of the key that providers compare is text, not meaning: models never share a cache.
    key = log["template"][rows].astype(np.int64) * (len(log.models) + 1) + log["model"][rows]
    order = np.lexsort((log["started"][rows], key))
    near = np.zeros(len(rows), np.bool_)
    same = (key[order][1:] == key[order][:-1]) & (np.diff(log["started"][rows][order]) <= CACHE_TTL_S)
    near[order[1:]] = same
    return near


def _continued(log: Log, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of these rows go on where a row shortly before them had stopped."""
    wanted = set(log["before"][rows].tolist())
    asked = set(rows.tolist())
    last: dict[int, float] = {}
    found: dict[int, bool] = {}
    uptos, befores, moments = log["upto"].tolist(), log["before"].tolist(), log["started"].tolist()
    for row, upto in enumerate(uptos):
        if row in asked:
            found[row] = moments[row] - last.get(befores[row], -np.inf) <= CACHE_TTL_S
        if upto in wanted:
            last[upto] = moments[row]
    return np.array([found[row] for row in rows.tolist()], np.bool_)
