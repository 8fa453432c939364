"""A chat model of your own in this process, its weights in four bits; for a small one a CPU will do.

    pip install "costopt[langchain,local]"
    export COSTOPT_MODEL=Qwen/Qwen2.5-0.5B-Instruct        # a folder, or a name on the hub
    python cookbook/local_chat.py ["A question?" ...]

On Linux `pip install torch` brings several GB for GPUs: without one, install the CPU build of torch first.
"""

import os
import sys
import time

from costopt import MemoryPlan, Usage
from costopt.pricing import cost
from langchain_costopt import ChatQuantized

QUESTIONS = ["Who wrote Emma?", "Name three rivers.", "Good or bad: the parcel never came?", "What is 17 plus 25?"]
HOSTED = "gpt-4o-mini"  # what the same tokens would have been bought from


def main() -> None:
    model = os.environ.get("COSTOPT_MODEL")
    if not model:
        sys.exit("set COSTOPT_MODEL to the folder of a chat model, or to its name on the hub")
    bits16, bits4 = (MemoryPlan.of(model, quantization=name, context=512) for name in ("none", "nf4"))
    print(f"16 bits: {bits16.explain()}\n 4 bits: {bits4.explain()}")
    if not bits4.fits:
        sys.exit("it does not fit here: take a smaller model")

    llm = ChatQuantized(model=model, quantization="nf4", temperature=0, max_tokens=60, options={"context": 512})
    for word in llm.stream((sys.argv[1:] or QUESTIONS)[0]):  # loads the model, and quantises it the first time
        print(word.content, end="", flush=True)
    print()

    started, usage = time.perf_counter(), Usage()
    for answer in llm.batch(sys.argv[1:] or QUESTIONS):
        print(answer.content)
        usage += Usage(answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"])
    seconds = time.perf_counter() - started
    print(f"{usage.input_tokens} tokens in, {usage.output_tokens} out, {usage.total_tokens / seconds:.0f} a second")

    held = llm.served_by.stats().weight_bytes
    print(f"memory: {held:,} bytes of weights in place of {bits16.weights:,}, {1 - held / bits16.weights:.0%} less")
    print(f"saved ${cost(HOSTED, usage):.6f} that {HOSTED} would have cost, less the electricity")
    llm.served_by.close()


if __name__ == "__main__":
    main()
