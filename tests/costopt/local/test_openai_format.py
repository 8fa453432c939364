"""Requests and answers as OpenAI's API has them, and what a run says of itself."""

from __future__ import annotations

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from costopt.local.batch_report import BatchProgress
from costopt.local.engine import Generation, GenerationRequest, LocalUsage, TokenLogprob, ToolCall
from costopt.local.openai_format import chat_body, completion_of, request_of

requests = st.builds(
    GenerationRequest,
    messages=st.just(({"role": "user", "content": "Hello"},)),
    max_tokens=st.none() | st.integers(1, 100),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0.1, 1),
    stop=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    seed=st.none() | st.integers(0, 1000),
    logprobs=st.none() | st.integers(0, 5),
    response_schema=st.none() | st.just({"type": "object"}) | st.just({"title": "A", "type": "array"}),
)


@given(requests)
def test_a_body_says_all_that_a_request_does(request: GenerationRequest) -> None:
    assert request_of(json.loads(json.dumps(chat_body(request, "m")))) == request


def test_a_completion_says_all_that_an_answer_does() -> None:
    made = Generation(
        "",
        (ToolCall("add", '{"a": 1}', "c1"),),
        "tool_calls",
        LocalUsage(3, 4),
        (TokenLogprob("x", -0.1, (("x", -0.1), ("y", -2.0))),),
    )
    body = completion_of(made, "m", name="chatcmpl-1", created=1)
    [choice] = body["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert choice["logprobs"]["content"][0]["top_logprobs"][1]["token"] == "y"
    assert body["usage"]["total_tokens"] == 7


def test_progress_in_words() -> None:
    progress = BatchProgress(1_000, 200, 1, 99, 5_000, 3_000, 10.0, Decimal("0.0123"), 0.87)
    assert str(progress) == "300 of 1,000 rows, 300 tokens/s, 1 failed, $0.0123, GPU 87%"
