"""A model of your own behind vLLM's `base_url`, and a hosted one above it for what it is not asked.

pip install "costopt[langchain,served]" langchain-openai
docker compose -f cookbook/deploy/vllm/compose.yaml up -d
export VLLM_BASE_URL=http://localhost:8000/v1 VLLM_API_KEY=... OPENAI_API_KEY=...
python cookbook/vllm_server.py

Without a server and without a key: python -m cookbook vllm_server
"""

import os
import sys

from langchain_openai import ChatOpenAI

from costopt import Price, Tier
from langchain_costopt import ChatQuantized, RouterRunnable

QUESTIONS = [
    "What is the capital of France?",
    "Good or bad? The parcel never came.",
    "Translate into German: the door is open.",
    "Which of these is a fruit: table, pear, lamp?",
    "Prove step by step that the sum of two odd numbers is even, then write a Python function that checks it.",
    "Name three rivers.",
]


def price() -> Price:
    """What a million tokens of your own cost: the GPU's hour, shared out over what it makes in an hour.

    The tokens a second are those of your traffic: `vllm bench serve` measures them.
    """
    dollars_an_hour = float(os.environ.get("GPU_DOLLARS_PER_HOUR", "1.20"))
    tokens_a_second = float(os.environ.get("GPU_TOKENS_PER_SECOND", "2500"))
    a_million = dollars_an_hour / (tokens_a_second * 3600) * 1_000_000
    return Price(input=a_million, output=a_million)


def main() -> None:
    if "VLLM_BASE_URL" not in os.environ:
        sys.exit("set VLLM_BASE_URL to where vLLM listens, e.g. http://localhost:8000/v1")
    own = ChatQuantized(
        model=os.environ.get("VLLM_MODEL", "Qwen/Qwen2.5-7B-Instruct-AWQ"),
        base_url=os.environ["VLLM_BASE_URL"],
        api_key=os.environ.get("VLLM_API_KEY"),
        temperature=0,
    )
    hosted = ChatOpenAI(model="gpt-4o", temperature=0)
    # If the server is down, or a prompt does not fit it, the hosted model answers.
    tiers = [Tier(own, name="own", price=price(), context_window=16_384), Tier(hosted)]
    llm = RouterRunnable(tiers=tiers)

    for question, answer in zip(QUESTIONS, llm.batch(QUESTIONS), strict=True):
        print(f"{answer.response_metadata['costopt']['chosen']:7} {question}\n        {answer.content}")
    stats = llm.stats()
    print(f"one's own tokens: ${price().output:.3f} a million; {stats}")
    print(f"saved ${stats.baseline - stats.cost:.6f} of ${stats.baseline:.6f} ({1 - stats.cost / stats.baseline:.0%})")


if __name__ == "__main__":
    main()
