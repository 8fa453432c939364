"""Alone it is but a library that follows schemas; what it serves, a local model, says what it is missing."""

import llguidance

from costopt import MemoryPlan, MissingExtraError

assert llguidance.LLMatcher
try:
    MemoryPlan.of(".")
    raise AssertionError("a local model without transformers")
except MissingExtraError as error:
    assert "costopt[local]" in str(error), error
print("the library is there, and [local] is asked for")
