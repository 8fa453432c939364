"""A token classifier of transformers: which tokens a text has, and how likely each is to be worth keeping."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from costopt._minilm import _fork_aware, _multiplies_bfloat16, _printable, groups
from costopt.compression.words import Tokens
from costopt.errors import ConfigError, require

__all__ = ["Encoded", "TokenClassifier"]

_KIND = "ForTokenClassification"
_MEND = (
    "give a folder with config.json, tokenizer.json and model.safetensors of a token classifier with two labels (drop, "
    "keep), or its name on the hub, such as 'microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank'"
)
_KEEP = 1  # the label
_MOST_TOKENS = 512  # in a window: what these models were trained on
# Sizes of one padded forward pass.
_PASS_TOKENS = 2_048
_PASS_WASTE_TOKENS = 128


class Encoded(NamedTuple):
    """Tokens of a text without special ones, and how each is written in the vocabulary."""

    tokens: Tokens
    written: Sequence[str]


class TokenClassifier:
    """Loads a model at its first use, and runs it over sequences of any lengths; safe to call from any thread.

    Args:
        model: A folder, or a name on the hub.
        device: Where to run, as torch names it.
        dtype: "float32", "bfloat16", or "auto": bfloat16 on a CPU that multiplies it natively, else float32.
    """

    def __init__(self, model: str | os.PathLike[str], *, device: str, dtype: str) -> None:
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"dtype={dtype!r}: use 'auto', 'float32' or 'bfloat16'")
        for module in ("torch", "transformers"):
            require(module, "compress")
        self.name = os.fspath(model)
        self._device = device
        self._dtype = dtype
        self._network: Any = None
        self._after_fork()
        _fork_aware.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._network is not None

    def load(self) -> None:
        """Import transformers and read the model, unless it has been done."""
        with self._lock:
            if self._network is None:
                self._load()

    def _load(self) -> None:
        torch, transformers = import_module("torch"), import_module("transformers")
        self._check_folder()
        with _quiet(transformers):
            try:
                config = transformers.AutoConfig.from_pretrained(self.name)
                self._check(config)
                tokenizer = transformers.AutoTokenizer.from_pretrained(self.name)
                network, found = transformers.AutoModelForTokenClassification.from_pretrained(
                    self.name, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
                )
            except ConfigError:
                raise
            except Exception as error:  # transformers, the hub and safetensors raise what they like
                raise ConfigError(f"{self.name!r} cannot be loaded ({error}): {_MEND}") from error
        if found["missing_keys"]:
            absent = ", ".join(sorted(found["missing_keys"])[:3])
            raise ConfigError(f"{self.name!r} has no weights for {absent}: {_MEND}")
        self._read_tokenizer(tokenizer, config.vocab_size)
        dtype = self._dtype
        if dtype == "auto":
            dtype = "bfloat16" if self._device == "cpu" and _multiplies_bfloat16() else "float32"
        self._torch = torch
        self.room = min(_MOST_TOKENS, _positions(config)) - len(self.prefix) - len(self.suffix)
        self.pad_id: int = 0 if config.pad_token_id is None else config.pad_token_id
        try:
            self._network = network.eval().to(self._device, getattr(torch, dtype))
        except RuntimeError as error:
            raise ConfigError(f"device={self._device!r} cannot be used ({error}): give e.g. 'cpu' or 'cuda'") from error

    def _check_folder(self) -> None:
        path = Path(self.name)
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ConfigError(f"{self.name!r} has no config.json: {_MEND}")
        elif path.exists() or path.is_absolute() or self.name.startswith((".", "~")):
            raise ConfigError(f"{self.name!r} is no folder: {_MEND}")

    def _check(self, config: Any) -> None:
        names = config.architectures or []
        if not any(name.endswith(_KIND) for name in names):
            raise ConfigError(f"{self.name!r} is no token classifier but {', '.join(names) or 'unnamed'}: {_MEND}")
        if config.num_labels != 2:
            raise ConfigError(f"{self.name!r} has {config.num_labels} labels: {_MEND}")

    def _read_tokenizer(self, tokenizer: Any, most: int) -> None:
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        self.special = frozenset(tokenizer.special_tokens_map.values())
        # Without its files transformers makes up a tokenizer that knows special tokens only.
        vocabulary = backend.get_vocab() if hasattr(backend, "to_str") else {}
        if vocabulary.keys() <= self.special:
            raise ConfigError(f"{self.name!r} has no tokenizer.json: {_MEND}")
        if max(vocabulary.values()) >= most:
            raise ConfigError(f"{self.name!r} has a tokenizer for more tokens than the model's {most}: {_MEND}")
        # Copies: the settings below are ours.
        self.backend, self.literal = (type(backend).from_str(backend.to_str()) for _ in range(2))
        for each in (self.backend, self.literal):
            each.no_truncation()
            each.no_padding()
        self.backend.encode_special_tokens = True
        self.unknown_id: int | None = tokenizer.unk_token_id
        plain = self.backend.encode("a", add_special_tokens=False).ids
        full = self.backend.encode("a").ids
        at = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), len(full))
        self.prefix, self.suffix = full[:at], full[at + len(plain) :]

    def encode(self, text: str, *, special: bool = False) -> Encoded:
        """Tokens of a text, however long, and where they stand.

        Args:
            text: Any.
            special: Whether what looks like a special token is one; by default it is a word like any other.
        """
        self.load()
        # Not encode_batch: its thread pool does not survive a fork, and warns about it.
        found = (self.literal if special else self.backend).encode(_printable(text), add_special_tokens=False)
        starts, ends = [], []
        for start, end in found.offsets:
            while start < end and text[start].isspace():  # SentencePiece counts the blank before a word to it
                start += 1
            while start < end and text[end - 1].isspace():
                end -= 1
            starts.append(start)
            ends.append(end)
        return Encoded(Tokens(found.ids, starts, ends), found.tokens)

    def probabilities(
        self, sequences: Sequence[Sequence[int]], *, unseen: int | None = None
    ) -> list[NDArray[np.float32]]:
        """How likely each token is to be worth keeping.

        Args:
            sequences: Ids with the special tokens, at most 512 each.
            unseen: An id that the others do not attend to, beside padding.

        Returns:
            For each sequence one probability a token.
        """
        self.load()
        done: list[Any] = [None] * len(sequences)
        lengths = [len(ids) for ids in sequences]
        with self._torch.inference_mode():
            for group in groups(lengths, _PASS_TOKENS, _PASS_WASTE_TOKENS, len(lengths)):
                rows = self._run([sequences[i] for i in group], unseen)
                for i, row in zip(group, rows, strict=True):
                    done[i] = row[: lengths[i]]
        return done

    def _run(self, sequences: Sequence[Sequence[int]], unseen: int | None) -> NDArray[np.float32]:
        torch = self._torch
        longest = max(map(len, sequences))
        ids = torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in sequences])
        lengths = torch.tensor([[len(row)] for row in sequences])
        seen = torch.arange(longest) < lengths
        if unseen is not None:
            seen &= ids != unseen
        mask = None if bool(seen.all()) else seen.long().to(self._device)  # attention is faster without one
        logits = self._network(input_ids=ids.to(self._device), attention_mask=mask).logits
        rows: NDArray[np.float32] = torch.softmax(logits.float(), dim=-1)[:, :, _KEEP].cpu().numpy()
        return rows


def _positions(config: Any) -> int:
    """How many tokens the model has places for."""
    places = getattr(config, "max_position_embeddings", None) or _MOST_TOKENS
    # RoBERTa and its kin count from the padding's id on.
    return int(places) - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without a progress bar and a report: what is wrong is raised."""
    logging = transformers.utils.logging
    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
