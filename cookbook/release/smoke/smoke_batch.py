"""A batch of OpenAI's and one of Anthropic's through their SDKs, priced."""

import anthropic
import openai
from words import FOLDER, address

from costopt.batch import AnthropicBatches, Backoff, BatchRequest, BatchRunner, OpenAIBatches

url = address("batches")
clients = {
    "gpt-4o-mini": OpenAIBatches(openai.OpenAI(base_url=f"{url}/v1", api_key="none")),
    "claude-haiku-4-5": AnthropicBatches(anthropic.Anthropic(base_url=url, api_key="none")),
}
said = []
for model, provider in clients.items():
    runner = BatchRunner(provider, journal=FOLDER / f"{model}.db", backoff=Backoff(first=0.05))
    bodies = [
        {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": text}]} for text in ("a", "b", "a")
    ]
    result = runner.run([BatchRequest(body) for body in bodies])
    assert [item.source for item in result] == ["batch", "batch", "duplicate"], list(result)
    assert result.cost < result.baseline, result
    assert not result.unpriced, result
    said.append(f"{provider.name}: ${result.cost} instead of ${result.baseline}")
print(", ".join(said))
