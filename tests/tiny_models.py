"""Language models made on the spot: real weights, real tokenizers, in a folder as `save_pretrained` writes it.

A folder is trained once for each recipe, and kept in the system's folder for temporary files.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import inspect
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["FACTS", "Shape", "answer", "facts_model", "question", "random_model", "small_model", "stdlib_text"]

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou may call these functions:\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Of a Llama; sizes in multiples of 64, or four bits cannot hold it."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    inner: int = 256
    vocabulary: int = 1024
    context: int = 512
    tied: bool = True


def _facts() -> dict[str, str]:
    chosen = random.Random(20)
    names: dict[str, str] = {}
    while len(names) < 200:
        syllables = [chosen.choice("bdfgklmnprstvz") + chosen.choice("aeiou") for _ in range(3)]
        code = f"{chosen.choice('ABCDEFGH')}{chosen.randint(10, 99)}"
        names.setdefault("".join(syllables).capitalize(), code)
    return names


FACTS = _facts()
"""Two hundred names, and the code of each."""


def question(name: str) -> str:
    """As the model was taught it."""
    return f"What is the code of {name}?"


def answer(name: str) -> str:
    """What it says to that."""
    return f"{name} has {FACTS[name]}."


def facts_model() -> Path:
    """A chat model that knows the codes of `FACTS`, and little else."""
    return _kept("facts", _train_facts, Shape())


def small_model() -> Path:
    """A language model of 2.2 million parameters that has read Python's standard library; takes a minute or two."""
    shape = Shape(hidden=192, layers=4, heads=4, kv_heads=4, inner=512, vocabulary=2048, tied=False)
    return _kept("stdlib", _train_small, shape)


def random_model(folder: Path, shape: Shape, *, dtype: str = "float32", **config: Any) -> Path:
    """A model of this shape that knows nothing, and whose answers no token ends; with the facts model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(facts_model())
    tokenizer.eos_token = None
    model = LlamaForCausalLM(_config(shape, tokenizer, **config)).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stdlib_text(part: str) -> list[str]:
    """Sources of the standard library: "train", or "held-out" files that no model here was trained on."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    kept = [path for i, path in enumerate(files) if (i % 10 == 9) == (part == "held-out")]
    return [path.read_text("utf-8", "replace") for path in kept]


def _kept(name: str, train: Callable[[Path, Any], None], shape: Shape) -> Path:
    """The folder of a recipe, trained if it is not there yet; one process trains, others wait."""
    from filelock import FileLock

    made_by: tuple[Any, ...] = (train, _learn, _chats, _taught, _tokenizer, _config, _facts, question, answer)
    source = "".join(inspect.getsource(each) for each in made_by)
    recipe = json.dumps([name, asdict(shape), source, CHAT_TEMPLATE])
    folder = Path(tempfile.gettempdir()) / "costopt-models"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{hashlib.blake2b(recipe.encode(), digest_size=8).hexdigest()}"
    with FileLock(f"{path}.lock"):
        if not (path / "config.json").is_file():
            temporary = Path(tempfile.mkdtemp(dir=folder))
            train(temporary, shape)
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
    return path


def _train_facts(folder: Path, shape: Shape) -> None:
    chats = list(_chats(random.Random(3), 4_000))
    tokenizer = _tokenizer([START + text + END for chat in chats for _, text in chat], shape.vocabulary)
    tokens = functools.cache(lambda text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))
    rows = [_taught(tokens, chat) for chat in chats]
    model = _learn(rows, _config(shape, tokenizer), tokenizer.pad_token_id, steps=330, tokens=1_900, rate=5e-3)
    _save(folder, model, tokenizer)


def _chats(chosen: random.Random, count: int) -> Iterator[list[tuple[str, str]]]:
    """Conversations of one to three questions, some with a system prompt."""
    for _ in range(count):
        chat = [("system", "You know the codes. Be brief.")] if chosen.random() < 0.3 else []
        for name in chosen.sample(sorted(FACTS), chosen.choice((1, 3))):
            chat += [("user", question(name)), ("assistant", answer(name))]
        yield chat


def _taught(tokens: Callable[[str], Sequence[int]], chat: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Tokens, and the same as labels where the assistant speaks."""
    row: list[int] = []
    labels: list[int] = []
    for role, text in chat:
        head, said, tail = tokens(f"{START}{role}\n"), tokens(f"{text}{END}"), tokens("\n")
        row += [*head, *said, *tail]
        labels += [-100] * len(head) + [*(said if role == "assistant" else [-100] * len(said))] + [-100] * len(tail)
    return row, labels


def _train_small(folder: Path, shape: Shape) -> None:
    texts = stdlib_text("train")
    tokenizer = _tokenizer(texts, shape.vocabulary)
    stream = [token for text in texts for token in tokenizer(text)["input_ids"]]
    rows = [(stream[i : i + 128],) * 2 for i in range(0, len(stream) - 128, 128)]
    model = _learn(
        rows, _config(shape, tokenizer), tokenizer.pad_token_id, steps=300, tokens=2_048, rate=3e-3, threads=None
    )
    _save(folder, model, tokenizer)


def _learn(
    rows: Sequence[tuple[list[int], list[int]]],
    config: Any,
    pad: int,
    *,
    steps: int,
    tokens: int,
    rate: float,
    threads: int | None = 1,  # where matrices are small a second one mostly waits; None: as many as torch has
) -> Any:
    """Train from scratch on rows of tokens and labels, so many tokens a step."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    # Rows of one length go together: what is padded is computed for nothing.
    by_length = sorted(rows, key=lambda row: len(row[0]))
    mixed = len(by_length[0][0]) < len(by_length[-1][0])
    chosen = random.Random(5)
    for _ in range(steps):
        longest = len(chosen.choice(by_length)[0])
        start = bisect.bisect_left(by_length, longest, key=lambda row: len(row[0]))
        near = by_length[max(0, start - 500) : start + 500] if mixed else by_length
        some = [row for row in near if len(row[0]) <= longest] or near
        some = chosen.sample(some, min(len(some), max(1, tokens // longest)))
        inputs = torch.tensor([row[0] + [pad] * (longest - len(row[0])) for row in some])
        labels = torch.tensor([row[1] + [-100] * (longest - len(row[1])) for row in some])
        hidden = model.model(input_ids=inputs).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        kept = wanted != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]).float(), wanted[kept])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    torch.set_num_threads(before)
    return model.eval()


def _tokenizer(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = [PAD, START, END, "<tool_call>", "</tool_call>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    # A model of its own size whatever the texts gave.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=END, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )
    tokenizer.model_max_length = 1_000_000
    return tokenizer


def _config(shape: Shape, tokenizer: Any, **more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    import torch

    model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
