"""Make the judge that the package ships: train, quantise, calibrate, measure, and write the model card.

    python -m cookbook.training --data FOLDER [--out FOLDER]

How long the training of the shipped judge took is in its model card.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from cookbook.training.calibrate import calibrated, figures
from cookbook.training.card import model_card
from cookbook.training.corpus import PAIRS, training_examples
from cookbook.training.fit import base_tensors, fine_tuned
from costopt.caching.cross_encoder import SHIPPED, quantised


def main() -> None:
    """Parse the command line and do it all."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder of the public development data")
    options.add_argument("--out", type=Path, default=SHIPPED, help="where the judge is written")
    options.add_argument("--depth", type=int, default=2, help="layers that read each text alone, and are not trained")
    options.add_argument("--epochs", type=float, default=1.5)
    options.add_argument("--rate", type=float, default=2e-4, help="highest learning rate of the layers")
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--only-calibrate", action="store_true", help="keep the weights that are in --out")
    chosen = options.parse_args()
    torch.set_num_threads(2)
    chosen.out.mkdir(parents=True, exist_ok=True)
    weights = chosen.out / "weights.safetensors"
    if not chosen.only_calibrate:
        _train(chosen, weights)
    policy = calibrated(chosen.out, chosen.data)
    (chosen.out / "policy.json").write_text(policy.as_json(), "utf-8")
    domains = len(list(PAIRS.glob("*.jsonl"))) - 1
    card = model_card(weights, policy, figures(chosen.out, chosen.data, policy), domains)
    (chosen.out / "README.md").write_text(card, "utf-8")
    print(f"written to {chosen.out}")


def _train(chosen: argparse.Namespace, weights: Path) -> None:
    examples = training_examples(chosen.data, chosen.seed)
    print(f"{len(examples):,} pairs, {sum(one.same for one in examples):,} of which want the same answer", flush=True)
    started = time.monotonic()
    tensors = fine_tuned(examples, depth=chosen.depth, epochs=chosen.epochs, rate=chosen.rate, seed=chosen.seed)
    about = {
        "depth": chosen.depth,
        "epochs": chosen.epochs,
        "rate": chosen.rate,
        "seed": chosen.seed,
        "pairs": len(examples),
        "minutes": round((time.monotonic() - started) / 60),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    stored = {name: value.contiguous() for name, value in quantised(tensors, base_tensors(chosen.depth)).items()}
    save_file(stored, weights, metadata={"about": json.dumps(about)})


if __name__ == "__main__":
    main()
