"""Ten thousand requests through OpenAI's batch API: half the price, and nothing is paid twice when it is interrupted.

    pip install "costopt[batch]"
    export OPENAI_API_KEY=...        # without one: python -m cookbook batch_reviews
    python cookbook/batch_reviews.py

Stop it at any moment, and start it again: it goes on where it was. The journal holds prompts and answers for 30 days.
"""

import itertools
from collections import Counter

from costopt.batch import Backoff, BatchRequest, BatchRunner, OpenAIBatches

ROWS = 10_000
OPENINGS = ["After two weeks", "On the first day", "All in all", "To be fair", "For the price", "As a gift", "In short"]
THINGS = ["the kettle", "the lamp", "the shoes", "the backpack", "the tent", "the radio", "the jacket", "the scales"]
VERDICTS = ["broke", "did what it should", "was a joy", "smelled odd", "was too small", "arrived late", "is worth it"]
ENDINGS = ["", " The box was open.", " I would buy it again.", " My brother has one, too.", " Delivery was quick."]


def reviews(rows: int) -> list[str]:
    """So many reviews, some of them to the letter the same, as people write them."""
    parts = itertools.product(OPENINGS, THINGS, VERDICTS, ENDINGS, range(1, 6))
    different = ["{}, {} {}.{} {} of 5 stars.".format(*part) for part in parts]
    return [different[number % len(different)] for number in range(rows)]


def request(review: str) -> BatchRequest:
    """What is asked of one: any body that the provider takes."""
    system = "Answer with one word: good, bad or mixed."
    messages = [{"role": "system", "content": system}, {"role": "user", "content": review}]
    return BatchRequest({"model": "gpt-4o-mini", "temperature": 0, "max_tokens": 3, "messages": messages})


def main() -> None:
    # It looks again after 10 seconds, and then ever later: a batch may take a day, and is mostly done in minutes.
    runner = BatchRunner(OpenAIBatches(), backoff=Backoff(first=10))
    job = runner.submit(map(request, reviews(ROWS)))
    print(f"job {job.id}: {job.rows:,} rows, {job.distinct:,} different, {job.answered:,} answered before")
    result = runner.collect(job.id)
    said = Counter(str(item.body["choices"][0]["message"]["content"])[:6] for item in result if item.body)
    print(f"{len(result):,} rows, {len(result.errors)} without an answer; {said.most_common(3)}")
    saved, would = result.baseline - result.cost, result.baseline
    print(f"saved ${saved:.6f} of ${would:.6f} ({saved / would:.0%})")


if __name__ == "__main__":
    main()
