"""Why an answer stopped, in the words of its provider."""

from __future__ import annotations

from typing import Literal

__all__ = ["fault_of"]

Fault = Literal["truncated", "filtered", "failed"]

# The words for an answer that stopped before its end, was taken away or went wrong: OpenAI, Anthropic, Gemini,
# Bedrock, Cohere, Mistral, Ollama. Matched as parts ("MAX_TOKENS", "content_filter", "model_length").
_CUT_SHORT = "length max_token max_output incomplete pause cancel abort timeout window"
_TAKEN_AWAY = "filter safety refus recitation blocklist prohibited spii guardrail language"
_FAILED = "error fail malformed unexpected"
_WORDS: tuple[tuple[Fault, list[str]], ...] = (
    ("truncated", _CUT_SHORT.split()),
    ("filtered", _TAKEN_AWAY.split()),
    ("failed", _FAILED.split()),
)


def fault_of(finish: str | None) -> Fault | None:
    """What a finish reason says is wrong with the answer; None if nothing is, or nobody said.

    Example:
        >>> fault_of("MAX_TOKENS"), fault_of("stop")
        ('truncated', None)
    """
    said = (finish or "").lower()
    return next((fault for fault, words in _WORDS if any(word in said for word in words)), None)
