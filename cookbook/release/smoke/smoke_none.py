"""The base install: prices, a cache with an embedder of one's own, a router, the ledger, an audit, the command line."""

import json
import subprocess
import sys
from pathlib import Path

from words import ASKED, FOLDER, REWORDED, Words

from costopt import (
    Answer,
    Compressor,
    Ledger,
    LocalStore,
    Router,
    RouteRequest,
    SemanticCache,
    SimilarityJudge,
    Tier,
    Usage,
)
from costopt.audit import Attempt
from costopt.pricing import cost

cache = SemanticCache(LocalStore(FOLDER / "cache.db"), embedder=Words(), judge=SimilarityJudge(0.7))
asked, reworded = (
    cache.request([{"role": "user", "content": text}], model="gpt-4o-mini") for text in (ASKED, REWORDED)
)
cache.update(asked, Answer(({"kind": "chat", "content": "Settings > Security."},), Usage(10, 5)))
hit = cache.lookup(reworded)
assert hit is not None and hit.tier == "semantic", hit

assert cost("gpt-4o-mini", Usage(1_000_000, 0)) is not None
router = Router([Tier("gpt-4o-mini"), Tier("gpt-4o")])
assert router.decide(RouteRequest("What is the capital of France?")).chosen == "gpt-4o-mini"

short = Compressor(embedder=Words()).compress(
    "Tickets cost 12 EUR. It is of brick. No dogs.", "What do tickets cost?", target_tokens=8
)
assert "12 EUR" in short.text, short.text

ledger = Ledger(FOLDER / "ledger.db")
ledger.record(Attempt("gpt-4o-mini", usage=Usage(10, 5)))
ledger.flush()
assert ledger.totals().attempts == 1
ledger.close()

log = FOLDER / "log.jsonl"
row = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": ASKED}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
log.write_text("".join(json.dumps(row) + "\n" for _ in range(3)))
command = Path(sys.executable).with_name("costopt")
done = subprocess.run([command, "audit", log, "--no-semantic"], capture_output=True, text=True)
assert done.returncode == 0, done.stderr
doctor = subprocess.run([command, "doctor", "--json"], capture_output=True, text=True)
assert {check["name"] for check in json.loads(doctor.stdout)} >= {"python", "embedder", "prices"}, doctor.stderr
print(f"cache hit at {hit.similarity:.2f}, routed, compressed to {short.tokens_after} tokens, ledger, audit, doctor")
