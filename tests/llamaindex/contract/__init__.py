"""The suite that every LLM of `llamaindex_costopt` goes through: inherit from `LLMContract`, say how one is made."""

import pytest

# Before they are imported: asserts in modules that are no tests say little otherwise.
for _name in ("answers", "events", "faults", "state", "tools"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from tests.llamaindex.contract.answers import Answers  # noqa: E402
from tests.llamaindex.contract.events import Events  # noqa: E402
from tests.llamaindex.contract.faults import Faults  # noqa: E402
from tests.llamaindex.contract.setting import KEY, MODELS, openai_like  # noqa: E402
from tests.llamaindex.contract.state import State  # noqa: E402
from tests.llamaindex.contract.tools import Tools  # noqa: E402

__all__ = ["KEY", "MODELS", "LLMContract", "openai_like"]


class LLMContract(Answers, Events, Faults, Tools, State):
    """What LlamaIndex expects of an LLM, each call made twice: a cache answers the second by itself."""
