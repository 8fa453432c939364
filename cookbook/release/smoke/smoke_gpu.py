"""The sampler: it watches where there is a GPU, and says why where there is none."""

import time

import pynvml

from costopt.audit import GpuSampler

with GpuSampler(every_s=0.05) as sampler:
    time.sleep(0.2)
assert sampler.gpus == 0 or sampler.use is not None
assert sampler.gpus or sampler.reason, "no GPU, and no reason"
assert "costopt[gpu]" not in sampler.reason, sampler.reason
print(f"{sampler.gpus} GPUs {sampler.reason}".strip(), f"(NVML bindings from {pynvml.__name__})")
