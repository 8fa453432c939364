"""Chats: what is shortened, what never is, that it never changes again, and that it never costs more."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt import ConfigError, Price
from costopt.compression.compressor import Compressor
from costopt.compression.history import HistoryCompressor, HistoryResult, compress_history
from costopt.compression.prompt_cache import PromptCache
from costopt.tokens import count_tokens
from tests.costopt.compression.chats import Message, agent_chat, call, charged, essay, log, result, sent
from tests.faults.words import Words

SEEDS = st.integers(0, 30)


@lru_cache
def compressor(**options: Any) -> HistoryCompressor:
    """One for all tests with these options: it remembers its work."""
    return HistoryCompressor(embedder=Words(), **options)


def at(share: float, **options: Any) -> HistoryCompressor:
    """A compressor for a model whose cached tokens cost this share of new ones."""
    return compressor(price=Price(1, 1, share), max_tool_tokens=120, max_turn_tokens=400, **options)


def tokens(message: Message) -> int:
    return _tokens(json.dumps(message))


@lru_cache(maxsize=4096)  # of a chat that grows, the same messages are counted again and again
def _tokens(message: str) -> int:
    return count_tokens([json.loads(message)], "gpt-4o").tokens - 3


def pieces_are_slices(found: HistoryResult) -> None:
    for each in found.shortened:
        original = found.originals[each.message]["content"]
        text = original if each.block is None else original[each.block]["text"]
        assert each.result.restore() == (text,)
        for piece in each.result.kept:
            assert piece.rewritten or piece.text == text[piece.start : piece.end]


# What is shortened, and what never is.


def test_an_old_tool_result_keeps_the_lines_that_its_call_was_about() -> None:
    lines = [f"{i:02} host heron answered after {i} ms" for i in range(40)] + ["99 host olive is down since 4:10"]
    chat: list[Message] = [
        {"role": "user", "content": "Why does nobody reach the host?"},
        call(1, host="olive"),
        result(1, "\n".join(lines)),
        {"role": "assistant", "content": "Olive is down."},
        {"role": "user", "content": "Since when?"},
    ]
    found = HistoryCompressor(max_tool_tokens=60, keep_last=2, prompt_cache=False).compress(chat)
    kept = found.messages[2]["content"].splitlines()
    assert set(kept) < set(lines)
    assert lines[-1] in kept
    assert [message for i, message in enumerate(found.messages) if i != 2] == chat[:2] + chat[3:]
    assert count_tokens(found.messages[2]["content"], "gpt-4o").tokens <= 60
    assert found.tokens_before == count_tokens(chat, "gpt-4o").tokens
    assert found.tokens_after == count_tokens(list(found.messages), "gpt-4o").tokens
    assert found.restore() == tuple(chat)


@settings(max_examples=25)
@given(seed=SEEDS, steps=st.integers(0, 14), share=st.sampled_from([1, 0.5, 0.1]), keep_last=st.integers(1, 8))
def test_only_the_text_of_what_is_old_changes(seed: int, steps: int, share: float, keep_last: int) -> None:
    chat = agent_chat(seed, steps)
    before = json.dumps(chat)
    found = at(share, keep_last=keep_last).compress(chat)
    assert json.dumps(chat) == before, "what came in is left alone"
    assert len(found.messages) == len(chat), "no message goes, so no call loses its result"
    changed = {each.message for each in found.shortened}
    for i, (new, old) in enumerate(zip(found.messages, chat, strict=True)):
        assert {**new, "content": 0} == {**old, "content": 0}
        if i not in changed:
            assert new is old
        else:
            assert old["role"] in ("user", "assistant", "tool")
            assert 0 < tokens(dict(new)) < tokens(old)
            assert i < len(chat) - keep_last
    assert all(found.messages[i] is chat[i] for i in found.waiting)
    assert found.tokens_after <= found.tokens_before
    pieces_are_slices(found)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_an_instruction_is_never_touched(role: str) -> None:
    chat = [{"role": role, "content": essay(1, 400)}, *agent_chat(1, 12)]
    found = at(1).compress(chat)
    assert found.shortened
    assert found.messages[0] is chat[0]


def test_a_request_that_is_worked_on_stays_whole_and_an_answered_one_keeps_both_its_ends() -> None:
    request = "Sort these notes. " + essay(2, 200) + " Begin with the newest."
    work = [each for i in range(9) for each in (call(i), result(i, "done"))]
    chat: list[Message] = [{"role": "user", "content": request}, *work]
    assert at(1, keep_last=3).compress(chat).messages[0] is chat[0]
    chat[1:1] = [{"role": "assistant", "content": "Sorted."}, {"role": "user", "content": "Thanks. Go on."}]
    found = at(1, keep_last=3).compress(chat)
    assert [each.message for each in found.shortened] == [0]
    text = found.messages[0]["content"]
    assert text.startswith("Sort these notes. ")
    assert text.endswith(" Begin with the newest.")


def test_what_a_user_once_said_about_how_to_answer_stays() -> None:
    rule = "Always answer in German, with the host first."
    pasted = f"Sort these notes.\n{essay(2, 60)}\n{rule}\n{essay(3, 60)}\nBegin with the newest."
    chat: list[Message] = [{"role": "user", "content": pasted}]
    chat += [{"role": "assistant", "content": "Sorted."}, {"role": "user", "content": "Thanks."}] * 3
    found = at(1, keep_last=3).compress(chat)
    assert [each.message for each in found.shortened] == [0]
    assert rule in found.messages[0]["content"]


def test_the_results_of_named_tools_stay() -> None:
    chat = agent_chat(3, 12)
    assert {each.message for each in at(1, keep_tools=("logs",)).compress(chat).shortened} < {
        each.message for each in at(1).compress(chat).shortened
    }
    kept = at(1, keep_tools=("logs",)).compress(chat)
    assert all(chat[each.message]["role"] != "tool" for each in kept.shortened)


def test_json_is_kept_whole_and_written_without_its_white_space() -> None:
    data = [{"host": f"h{i}", "ms": i, "note": "no answer, it is down"} for i in range(60)]
    chat = [{"role": "user", "content": "Which is down?"}, call(1), result(1, json.dumps(data, indent=2))]
    chat += [{"role": "assistant", "content": "All."}] * 8
    found = at(1).compress(chat)
    assert json.loads(found.messages[2]["content"]) == data
    assert found.saved_tokens > 500


def test_blocks_are_shortened_one_by_one_and_what_something_points_into_is_not() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    cited = {"type": "text", "text": log(1, 90), "annotations": [{"start": 3, "end": 9}]}
    long = {"type": "text", "text": log(2, 90), "cache_control": {"type": "ephemeral"}}
    own = {"type": "output_text", "text": essay(3, 300), "id": "msg_1"}
    chat: list[Message] = [
        {"role": "user", "content": "Who was slow?"},
        call(1),
        result(1, [picture, cited, long, "short"]),
        {"role": "assistant", "content": [own]},
        *({"role": "user", "content": "And then?"} for _ in range(7)),
    ]
    found = at(1).compress(chat)
    assert [(each.message, each.block) for each in found.shortened] == [(2, 2)]
    new = found.messages[2]["content"]
    assert [new[i] is block for i, block in enumerate(chat[2]["content"])] == [True, True, False, True]
    assert {**new[2], "text": ""} == {**long, "text": ""}


# A shortened turn never changes again.


@settings(max_examples=15)
@given(seed=SEEDS, share=st.sampled_from([1, 0.5, 0.25, 0.1]), keep_last=st.integers(1, 6))
def test_a_chat_compressed_turn_by_turn_is_the_chat_compressed_at_once(seed: int, share: float, keep_last: int) -> None:
    chat, own = agent_chat(seed, 10), at(share, keep_last=keep_last)
    fed: list[Any] = []
    shortened: dict[int, Any] = {}
    for i in range(len(chat)):
        at_once = own.compress(chat[: i + 1])
        fed = list(own.compress([*fed, chat[i]]).messages)
        assert fed == list(at_once.messages)
        for place, message in shortened.items():
            assert at_once.messages[place] == message
        shortened |= {each.message: at_once.messages[each.message] for each in at_once.shortened}
        assert shortened.keys() == {each.message for each in at_once.shortened}


def test_what_was_shortened_does_not_hang_on_what_is_asked_later() -> None:
    chat = agent_chat(5, 12)
    one, other = ([*chat, {"role": "user", "content": text}] for text in ("And amber?", "Never mind. Tell me a joke."))
    assert at(1).compress(one).messages[:-1] == at(1).compress(other).messages[:-1]


def test_another_process_shortens_a_chat_in_the_same_way() -> None:
    code = (
        "from tests.costopt.compression.test_history import agent_chat, at\n"
        "print(repr(at(0.5).compress(agent_chat(6, 10)).messages))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == repr(at(0.5).compress(agent_chat(6, 10)).messages)


def test_awaiting_gives_the_same() -> None:
    chat = agent_chat(7, 10)
    assert asyncio.run(at(0.5).acompress(chat)) == at(0.5).compress(chat)


def test_many_threads_shorten_in_the_same_way() -> None:
    chats = [agent_chat(seed, 10) for seed in range(4)]
    expected = [at(0.5).compress(chat) for chat in chats]
    fresh = HistoryCompressor(embedder=Words(), price=Price(1, 1, 0.5), max_tool_tokens=120, max_turn_tokens=400)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fresh.compress, chats * 8)) == expected * 8


# It never costs more.


@settings(max_examples=15)
@given(seed=SEEDS, steps=st.integers(1, 16), share=st.sampled_from([1, 0.5, 0.25, 0.1, 0]))
def test_with_payback_at_once_no_chat_is_dearer(seed: int, steps: int, share: float) -> None:
    chat = agent_chat(seed, steps)
    plain = charged(sent(chat, list), tokens, share)
    shorter = charged(sent(chat, lambda said: at(share, payback_calls=1).compress(said).messages), tokens, share)
    assert shorter <= plain


@pytest.mark.parametrize(("share", "most"), [(1, 0.55), (0.5, 0.65), (0.25, 0.75), (0.1, 0.9)])
def test_long_chats_are_much_cheaper_however_cheap_cached_tokens_are(share: float, most: float) -> None:
    chat = agent_chat(8, 40)
    plain = charged(sent(chat, list), tokens, share)
    shorter = charged(sent(chat, lambda said: at(share).compress(said).messages), tokens, share)
    assert shorter < most * plain


def test_where_cached_tokens_are_free_nothing_is_shortened_and_it_is_said() -> None:
    found = at(0).compress(agent_chat(9, 20))
    assert not found.shortened
    assert found.waiting
    assert "will be when that saves more" in found.notes[0]
    assert found.kept_ratio == 1


def test_the_price_list_tells_what_a_cached_token_costs() -> None:
    assert PromptCache.of("gpt-4o").share == 0.5
    assert PromptCache.of("claude-haiku-4-5").share == 0.1
    assert PromptCache.of("a-model-of-mine").share == 1
    assert PromptCache.of(len).share == 1
    assert PromptCache.of("gpt-4o", price=Price(2, 1, 3)).share == 1


# What may come in.


@pytest.mark.parametrize(
    "chat",
    [
        [],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}, {"role": "assistant"}],
        [{"role": "tool", "content": "\n".join("nobody called" for _ in range(900))}] * 9,
        [{"role": "user", "content": "\U0001f600" * 5_000}, {"role": "user", "content": "?"}] * 5,
        [{"role": "critic", "content": "hm " * 900}] * 9,
        [{"role": "user", "content": [{"type": "tool_result", "content": "x " * 900}]}] * 9,
        [{"role": "tool", "content": "<|endoftext|> [SEP] < \ud800 " * 200}] * 9,
    ],
)
def test_odd_chats_come_back_whole_or_shorter(chat: list[Message]) -> None:
    found = at(1).compress(chat)
    assert len(found.messages) == len(chat)
    assert found.tokens_after <= found.tokens_before
    assert all(
        message.get("content") or not old.get("content") for message, old in zip(found.messages, chat, strict=True)
    )
    pieces_are_slices(found)


@pytest.mark.parametrize("chat", [["Hello"], [{"content": "Hello"}], [None]])
def test_what_is_no_message_is_refused(chat: Any) -> None:
    with pytest.raises(ConfigError, match="role"):
        compress_history(chat)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tool_tokens": 0},
        {"max_turn_tokens": -1},
        {"keep_last": 0},
        {"keep_last": True},
        {"payback_calls": 0},
        {"payback_calls": 1.5},
        {"keep_tools": "logs"},
        {"protect": [3]},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HistoryCompressor(embedder=Words(), **options)


def test_a_compressor_that_is_there_is_used() -> None:
    own = HistoryCompressor(compressor=Compressor(model=len, embedder=Words()), max_tool_tokens=400)
    chat = agent_chat(3, 12)
    found = own.compress(chat)
    assert found.counted_by == "len"
    assert all(len(each.result.text) <= 400 for each in found.shortened if chat[each.message]["role"] == "tool")


def test_work_is_remembered() -> None:
    class Counting(Words):
        calls = 0

        def embed(self, texts: Any) -> Any:
            self.calls += 1
            return super().embed(texts)

    words = Counting()
    own = HistoryCompressor(embedder=words, prompt_cache=False)
    chat = agent_chat(1, 12)
    first = own.compress(chat)
    calls = words.calls
    assert own.compress(chat) == first
    assert words.calls == calls
