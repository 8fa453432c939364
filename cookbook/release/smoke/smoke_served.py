"""A model behind a server that speaks OpenAI's API."""

from words import address

from costopt import GenerationRequest, OpenAICompatibleEngine

engine = OpenAICompatibleEngine(base_url=address("openai"), model="gpt-4o-mini")
answer = engine.submit(GenerationRequest.chat("What is the capital of France?", max_tokens=8)).result(timeout=60)
assert answer.text and answer.usage.completion_tokens > 0, answer
parts = [delta.text for delta in engine.submit(GenerationRequest.chat("And of Spain?"))]
assert "".join(parts)
assert engine.stats().finished == 2, engine.stats()
engine.close()
print(f"answered and streamed in {len(parts)} parts")
