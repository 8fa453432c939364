"""See `costopt.usage`, which batches need as well."""

from costopt.usage import usage_of, usage_of_anthropic, usage_of_langchain, usage_of_openai

__all__ = ["usage_of", "usage_of_anthropic", "usage_of_langchain", "usage_of_openai"]
