"""Chats for the tests, and what a provider with a prompt cache would charge for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

Message = dict[str, Any]

_NAMES = "amber birch cedar delta ember fjord grove heron ivory jade koala lotus maple north olive pearl".split()


def log(seed: int, lines: int) -> str:
    """What a tool gives back: one event a line."""
    told = random.Random(seed)
    return "\n".join(
        f"{i:03} host {told.choice(_NAMES)} answered {told.choice(_NAMES)} after {told.randint(1, 999)} ms"
        for i in range(lines)
    )


def essay(seed: int, sentences: int) -> str:
    """What a person pastes: prose."""
    told = random.Random(seed)
    return " ".join(
        f"The {told.choice(_NAMES)} team met the {told.choice(_NAMES)} team about {told.choice(_NAMES)}."
        for _ in range(sentences)
    )


def call(number: int, **arguments: Any) -> Message:
    """The assistant calls the tool `logs`."""
    function = {"name": "logs", "arguments": str(arguments).replace("'", '"')}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call-{number}", "type": "function", "function": function}],
    }


def result(number: int, content: Any) -> Message:
    """What it gave back."""
    return {"role": "tool", "tool_call_id": f"call-{number}", "content": content}


def agent_chat(seed: int, steps: int) -> list[Message]:
    """An agent at work: calls with short and long results, now and then an answer and another request."""
    told = random.Random(seed)
    chat: list[Message] = [
        {"role": "system", "content": "You look after servers. " + essay(seed, 60)},
        {"role": "user", "content": f"Which host was slowest to answer {told.choice(_NAMES)}?"},
    ]
    for i in range(steps):
        chat += [call(i, host=told.choice(_NAMES)), result(i, log(told.randrange(50), told.choice((2, 10, 40, 120))))]
        if told.random() < 0.25:
            said = essay(told.randrange(50), told.choice((2, 5, 150)))
            chat += [{"role": "assistant", "content": said}]
            asked = essay(told.randrange(50), told.choice((1, 1, 150)))
            rule = told.choice(("", f"\nNever restart {told.choice(_NAMES)}.\n"))
            chat += [{"role": "user", "content": f"And {told.choice(_NAMES)}? {asked}{rule} {asked} What then?"}]
    return chat


def sent(chat: Sequence[Message], compress: Callable[[Sequence[Message]], Sequence[Message]]) -> list[list[Message]]:
    """What the model gets at each of its calls, as the chat grows."""
    calls = [i for i, message in enumerate(chat) if message["role"] == "assistant"]
    return [list(compress(chat[:i])) for i in [*calls, len(chat)]]


def charged(prompts: Sequence[Sequence[Message]], count: Callable[[Message], int], share: float) -> float:
    """Tokens that are paid for, in tokens at full price: what begins as the prompt before costs `share` of it."""
    total, before = 0.0, list[Message]()
    for prompt in prompts:
        same = next((i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), len(before))
        known = sum(map(count, prompt[:same]))
        total += known * share + sum(map(count, prompt[same:]))
        before = list(prompt)
    return total
