"""A model in this process, as it is and in four bits; what it would need; and a schema, where that is installed."""

import importlib.util
import json

from words import address

from costopt import GenerationRequest, MemoryPlan, MissingExtraError, TransformersEngine

plan = MemoryPlan.of(address("model"), quantization="nf4", context=256)
assert plan.kv_cache > 0
ask = GenerationRequest.chat("What is the code of Anna?", max_tokens=8)
said = []
for quantization in ("none", "nf4"):
    engine = TransformersEngine(
        address("model"), quantization=quantization, device="cpu", context=256, keep_quantized=False
    )
    first, again = (engine.submit(ask).result(timeout=300) for _ in range(2))
    assert first.text == again.text and first.usage.completion_tokens > 0, (first, again)
    said.append(f"{quantization} {engine.stats().weight_bytes / 1e6:.1f} MB")
    if quantization == "none":
        schema = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"]}
        wanted = GenerationRequest.chat("Good?", max_tokens=60, response_schema=schema)
        if importlib.util.find_spec("llguidance"):
            answer = engine.submit(wanted).result(timeout=300)
            assert isinstance(json.loads(answer.text)["good"], bool), answer
            said.append(f"schema followed: {answer.text}")
        else:
            try:
                engine.submit(wanted).result(timeout=300)
                raise AssertionError("a schema without llguidance")
            except MissingExtraError as error:
                assert "costopt[structured]" in str(error), error
    engine.close()
print(", ".join(said))
