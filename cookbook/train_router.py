"""A router trained on your own log: which of your prompts does the cheaper model answer as the dearer one did?

pip install "costopt[langchain,minilm]" langchain-openai
export OPENAI_API_KEY=...        # without one: python -m cookbook train_router
python cookbook/train_router.py
"""

import json
import random
import re
from pathlib import Path

from langchain_openai import ChatOpenAI

from costopt import default_embedder
from costopt.routing import QualityFloor, calibrate_router, load_router, read_outcomes, train_router
from costopt.routing.calibrate import request_costs
from langchain_costopt import CostTracker, RouterRunnable

CHEAP, STRONG = "gpt-4o-mini", "gpt-4o"


def log(rows: int = 400) -> list[dict[str, str]]:
    """What the strong model was asked and said; yours comes from your traces."""
    chosen, made = random.Random(4), {}
    while len(made) < rows:
        a, b, c, d = (chosen.randint(2, 60) for _ in range(4))
        if chosen.random() < 0.6:
            thing = chosen.choice(["hours", "boxes of 60 pens", "trays of 60 eggs", "rolls of 60 metres"])
            made[f"How much is {a} {thing}, all told? We open at {b}."] = a * 60
        else:
            text = (
                f"Two presses make {a} and {b} parts an hour. After {c} hours {d} parts are scrap. How many are good?"
            )
            made[text] = (a + b) * c - d
    return [{"prompt": prompt, "answer": f"That makes {right}."} for prompt, right in made.items()]


def same(answer: str, reference: str) -> float:
    """1 if both end in the same number; for text of yours: a test, a rubric, a judge."""
    return float(re.findall(r"-?\d+", answer)[-1:] == re.findall(r"-?\d+", reference)[-1:])


def main() -> None:
    rows, tracker = log(), CostTracker()
    past, coming = rows[:300], rows[300:]

    # Labels: the cheaper model is asked what the log has already. `BatchRunner(cheap).batch` does so at half price.
    cheap, strong = ChatOpenAI(model=CHEAP, temperature=0), ChatOpenAI(model=STRONG, temperature=0)
    answers = cheap.batch([row["prompt"] for row in past], {"callbacks": [tracker], "max_concurrency": 8})
    with Path("outcomes.jsonl").open("w") as file:
        for row, answer in zip(past, answers, strict=True):
            scores = {CHEAP: same(str(answer.content), row["answer"]), STRONG: 1.0}
            file.write(json.dumps({"prompt": row["prompt"], "scores": scores}) + "\n")

    # The same as `costopt router train outcomes.jsonl --out router`, and `costopt router calibrate`.
    outcomes = read_outcomes("outcomes.jsonl", [CHEAP, STRONG])
    vectors = default_embedder().embed(outcomes.prompts)
    trained = train_router(outcomes, default_embedder(), vectors=vectors).router
    costs = request_costs(outcomes.prompts, outcomes.tiers, {}, output_tokens=10)
    set_up = calibrate_router(trained, QualityFloor(0.97), outcomes.prompts, vectors, costs)
    set_up.router.save("router")
    print(
        f"expected: {set_up.shares}, {set_up.quality:.1%} of the quality; the labels cost ${tracker.totals().cost:.6f}"
    )

    llm = RouterRunnable(tiers=[cheap, strong], estimator=load_router("router"))
    routed = llm.batch([row["prompt"] for row in coming], {"max_concurrency": 8})
    right = sum(same(str(answer.content), row["answer"]) for answer, row in zip(routed, coming, strict=True))
    stats = llm.stats()
    print(f"{right:.0f} of {len(coming)} answers as before; {stats}")
    print(f"saved ${stats.baseline - stats.cost:.6f} of ${stats.baseline:.6f} ({1 - stats.cost / stats.baseline:.0%})")


if __name__ == "__main__":
    main()
