"""From a request to a sequence that a loaded model can go on from, or the reason why it cannot."""

from __future__ import annotations

from dataclasses import dataclass

from costopt.errors import ConfigError, ContextLengthError
from costopt.local.channel import Channel
from costopt.local.chat import prompt_tokens
from costopt.local.constrain import SchemaConstraints, call_schema
from costopt.local.engine import GenerationRequest
from costopt.local.loading import Loaded
from costopt.local.sampling import Constraint, Sampling
from costopt.local.sequence import Sequence
from costopt.local.toolparse import template_parser

__all__ = ["Limits", "Preparation"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine allows.

    Attributes:
        context: Most tokens of prompt and answer together.
        context_by: What sets that limit, for the message of who goes over it.
        max_tokens: Of an answer, where the request does not say.
    """

    context: int
    context_by: str
    max_tokens: int


class Preparation:
    """Prepares requests for one model; for the thread that owns it.

    Args:
        loaded: The model.
        limits: What is allowed.
    """

    def __init__(self, loaded: Loaded, limits: Limits) -> None:
        import torch

        self._loaded = loaded
        self._limits = limits
        embedded = loaded.model.get_output_embeddings()
        self._constraints = SchemaConstraints(loaded.tokenizer, embedded.weight.shape[0], loaded.ends)
        self._unseeded = torch.Generator()
        self._unseeded.seed()

    def sequence(self, request: GenerationRequest, channel: Channel) -> Sequence:
        """The sequence of a request.

        Raises:
            ContextLengthError: If prompt and answer are longer than the context.
            ConfigError: If the model cannot do what is asked, e.g. has no chat template.
            MissingExtraError: llguidance is not installed, and the answer is to follow a schema.
        """
        prompt = prompt_tokens(self._loaded.tokenizer, request)
        if not prompt:
            raise ConfigError("the prompt has no tokens: give a text that is not empty")
        return Sequence(
            request,
            channel,
            prompt,
            self._most(len(prompt), request.max_tokens),
            self._sampling(request),
            self._loaded.ends,
            self._loaded.tokenizer,
            template_parser(self._loaded.tokenizer, prompt, request.tools),
        )

    def _most(self, prompt: int, asked: int | None) -> int:
        left = self._limits.context - prompt
        if left < (asked or 1):
            raise ContextLengthError(prompt, asked or 1, self._limits.context, self._limits.context_by)
        return min(self._limits.max_tokens, left) if asked is None else asked

    def _sampling(self, request: GenerationRequest) -> Sampling:
        import torch

        generator = self._unseeded
        if request.seed is not None:
            generator = torch.Generator()
            generator.manual_seed(request.seed)
        return Sampling(
            temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else request.top_p,
            logprobs=request.logprobs,
            generator=generator,
            constraint=self._constraint(request),
        )

    def _constraint(self, request: GenerationRequest) -> Constraint | None:
        if request.tools and request.tool_choice not in ("auto", "none"):
            return self._constraints.follow(call_schema(request.tools, request.tool_choice))
        if request.response_schema is None:
            return None
        if request.tools and request.tool_choice == "auto":
            raise ConfigError("response_schema leaves no room for tool calls: use tool_choice='none' with it")
        return self._constraints.follow(request.response_schema)
