"""What quantisation costs a model: perplexity, divergence and agreement, pass by pass against the same text.

Runs on any causal language model, and on a GPU where there is one:

    python -m cookbook.benchmarks.perplexity MODEL [--text FILE ...] [--device cuda] [--windows 64]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.local.loading import Loaded, ModelSource, load, resolve

__all__ = ["Quality", "compare", "main"]

QUANTISATIONS = ("nf4", "fp4", "int8")
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Quality:
    """One quantisation against the reference, window by window.

    Attributes:
        name: Of the quantisation.
        bytes: Of the weights, quantisation state included.
        nll: Mean negative logarithm of probability of the text's tokens, a window each.
        reference: The same of the reference.
        divergence: Mean Kullback-Leibler divergence of the reference's next token from this one's, in nats.
        agreement: Share of places where both find the same token likeliest.
    """

    name: str
    bytes: int
    nll: NDArray[np.float64]
    reference: NDArray[np.float64]
    divergence: NDArray[np.float64]
    agreement: NDArray[np.float64]

    @property
    def perplexity(self) -> float:
        """Of all windows."""
        return math.exp(float(self.nll.mean()))

    def ratio(self) -> tuple[float, float, float]:
        """Perplexity over that of the reference, and the 95 % interval of it, by the same resampled windows."""
        return _interval(self.nll - self.reference, math.exp)

    def row(self) -> list[str]:
        """For a table."""
        ratio, low, high = self.ratio()
        cells = [self.name, f"{self.bytes / 2**20:,.1f} MiB", f"{self.perplexity:.3f}"]
        cells.append(f"{ratio:.4f} ({low:.4f}–{high:.4f})")
        for values, digits in ((self.divergence, 5), (self.agreement, 4)):
            mean, low, high = _interval(values)
            cells.append(f"{mean:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})")
        return cells


COLUMNS = ["", "weights", "perplexity", "to bfloat16", "KL divergence, nats", "same likeliest token"]


def compare(
    model: str | Path,
    texts: Sequence[str],
    *,
    device: str = "cpu",
    windows: int = 64,
    length: int = 128,
    names: Sequence[str] = QUANTISATIONS,
) -> list[Quality]:
    """Measure quantisations of a model against bfloat16.

    Args:
        model: A folder or a hub id.
        texts: What neither was trained on, if the figures are to mean something.
        device: Where to run.
        windows: How many windows of text to look at, spread over all of it.
        length: Tokens of each.
        names: Which quantisations.
    """
    reference = _loaded(model, "none", device)
    tokens = [token for text in texts for token in reference.tokenizer(text)["input_ids"]]
    starts = np.linspace(0, len(tokens) - length, windows).astype(int)
    parts = [tokens[start : start + length] for start in starts]
    found = [_against(reference, reference, "bfloat16", parts)]
    return found + [_against(reference, _loaded(model, name, device), name, parts) for name in names]


def _loaded(model: str | Path, quantization: str, device: str) -> Loaded:
    return load(ModelSource(resolve(model), quantization, "bfloat16", device))


def _against(reference: Loaded, other: Loaded, name: str, parts: Sequence[list[int]]) -> Quality:
    import torch

    rows = []
    for part in parts:
        tokens = torch.tensor([part], device=reference.model.device)
        ours, theirs = (_logs(each.model, tokens) for each in (other, reference))
        wanted = tokens[0, 1:, None]
        divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean()
        agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
        values = (-ours.gather(1, wanted).mean(), -theirs.gather(1, wanted).mean(), divergence, agreement)
        rows.append([float(value) for value in values])
    nll, base, divergence_, agreement_ = np.array(rows).T
    return Quality(name, other.weight_bytes, nll, base, divergence_, agreement_)


def _logs(model: Any, tokens: Any) -> Any:
    import torch

    with torch.no_grad():
        return torch.log_softmax(model(input_ids=tokens).logits[0, :-1].float(), dim=-1)


def _interval(values: NDArray[np.float64], shown: Any = float) -> tuple[float, float, float]:
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return shown(float(values.mean())), shown(float(low)), shown(float(high))


def main() -> None:
    """Print the table for a model."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.benchmarks.perplexity", description=__doc__)
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument("--text", type=Path, action="append", help="held-out text (default: of the standard library)")
    parser.add_argument("--device", default=None, help="default: the GPU if there is one")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512, help="tokens of a window")
    given = parser.parse_args()
    from costopt.local.memory import default_device
    from tests.tiny_models import stdlib_text

    texts = [path.read_text("utf-8") for path in given.text] if given.text else stdlib_text("held-out")
    device = given.device or default_device()
    print(" | ".join(COLUMNS))
    for quality in compare(given.model, texts, device=device, windows=given.windows, length=given.length):
        print(" | ".join(quality.row()))


if __name__ == "__main__":
    main()
