"""The file that `costopt init` writes."""

from __future__ import annotations

__all__ = ["TEMPLATE"]

TEMPLATE = """\
# The levers of an application, for costopt.Optimizer.from_toml("costopt.toml").
# A section that is missing is a lever that is off; a key that is missing has its default. Relative paths count from
# this file's folder. "env:NAME" is what the environment variable NAME says: secrets belong there, not here.

[cache]                             # never pays twice for one question, however it is worded
# store = "env:COSTOPT_REDIS_URL"   # a Redis, or a file; by default COSTOPT_REDIS_URL, else a file of yours
max_error = 0.05                    # share of the answers served to reworded questions that may be wrong
# policy = "policy.json"            # what `costopt cache tune` learnt from your own pairs
# exact_only = true                 # serve the same text only
# shadow = true                     # look on and count, serve nothing: a way to begin
ttl = 86400                         # seconds for which an answer is good, or "never": for ever
# tenant = "acme"                   # answers are never shared between tenants
# tags = ["docs-v3"]                # for cache.invalidate(tag="docs-v3")
# split = "Question:"               # RAG: what stands before it must match exactly, the question loosely
# portable = ["gpt-4o-mini"]        # models whose answers LangChain and LlamaIndex share

[router]                            # the cheapest model that will do; only where several models are given
# thresholds = [0.5]                # one number for each step between models: lower asks the stronger one more often
# estimator = "router"              # what `costopt router train` learnt from your own outcomes
# policy = { strong_share = 0.3 }   # or { dollars_per_1000 = 2.5 }, or { quality_floor = 0.95 }, in place of thresholds
# shadow = true                     # decide on paper, ask the strongest model
# split = "Question:"               # RAG: how hard a prompt is, is read from what stands after it
# cascade = { min_logprob = -0.5 }  # look at the cheap answer, and ask the next model if it will not do

[compressor]                        # of retrieved documents, what the question needs
target_ratio = 0.5                  # share of their tokens to keep
# target_tokens = 2000              # or so many, of all documents together
# protect = ["code", "numbers"]     # what is never cut through; by default all kinds

[history]                           # of chats of LangChain's agents: old tool results and long turns, shortened
max_tool_tokens = 300
max_turn_tokens = 1000
keep_last = 6                       # the newest steps stay as they are
# keep_tools = ["search"]           # whose results stay as they are
# prompt_cache = false              # if your provider has no prompt cache

[ledger]                            # one row for each call, for `costopt report` and `costopt audit`
# path = "ledger.db"                # by default COSTOPT_LEDGER, else a file in your data folder
# keep_text = true                  # keep prompts and answers in clear; by default only their hashes and sizes

# [limit]                           # dollars for each UTC day or month, over all processes; it needs the ledger
# dollars = 20
# period = "month"
# hard = false                      # only tell, refuse nothing

# [batch]                           # half the price for what can wait: app.batch_runner()
# journal = "batches.db"
# urgent = 1                        # calls of up to so many inputs go at once, at the full price
"""
