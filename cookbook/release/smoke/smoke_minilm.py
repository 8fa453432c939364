"""The packaged MiniLM and judge: a cache as it is, a compressor as it is, and a doctor who finds nothing wrong."""

import json
import subprocess
import sys
from pathlib import Path

from words import ASKED, FOLDER, REWORDED

from costopt import Answer, Compressor, LocalStore, Optimizer, SemanticCache, Usage, default_embedder

assert default_embedder().embed(["a text"]).shape == (1, 384)
cache = SemanticCache(LocalStore(FOLDER / "cache.db"))
asked, reworded, other = (
    cache.request([{"role": "user", "content": text}], model="gpt-4o-mini")
    for text in (ASKED, REWORDED, "How do I reset my router?")
)
cache.update(asked, Answer(({"kind": "chat", "content": "Settings > Security."},), Usage(10, 5)))
hit = cache.lookup(reworded)
assert hit is not None and hit.tier == "semantic", (hit, cache.stats())
assert cache.lookup(other) is None

page = "The museum opened in 1931. It is built of brick. Tickets cost 12 EUR. No dogs, please."
short = Compressor(target_ratio=0.4).compress(page, "How much is a ticket?")
assert short.text == "Tickets cost 12 EUR.", short.text

command = Path(sys.executable).with_name("costopt")
written = subprocess.run([command, "init", "--path", FOLDER / "costopt.toml"], capture_output=True, text=True)
assert written.returncode == 0, written.stderr
assert Optimizer.from_toml(FOLDER / "costopt.toml")
done = subprocess.run([command, "doctor", "--json"], capture_output=True, text=True)
bad = [check for check in json.loads(done.stdout) if check["state"] == "bad"]
assert not bad and done.returncode == 0, (bad, done.stderr)
print(f"judged hit at {hit.similarity:.2f}, kept {short.kept_ratio:.2f}, doctor finds nothing bad")
