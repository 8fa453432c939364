"""Small token classifiers with real tokenizers, made for the tests; what they say is arbitrary, but always the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["LONG", "PROSE", "bert", "xlm_roberta"]

PROSE = (
    (
        "The council met on Tuesday to talk about the new bridge. It was said that the old one, built in 1931, would "
        "not carry the traffic of the next ten years. Mrs Ahmed asked who would pay; the treasurer answered that about "
        "40% of the money (some $3.14M) had been promised by the state, and that the rest was still to be found."
    ),
    "Wer mit dem Zug fährt, kommt heute später an: Zwischen Köln und Bonn wird gebaut. Busse fahren alle 20 Minuten.",
    "Музей открыт каждый день, кроме понедельника. Билет стоит 350 рублей; детям до семи лет вход бесплатный.",
    "图书馆星期一不开门。想借书的人可以在网上预约，也可以打电话。每人最多借五本书。",
    "def area(width, height):\n    return width * height  # in m²\n\nSee https://example.com/areas?unit=m2 [4].",
    '- First, warm the oven to 180 °C.\n- Then mix flour, sugar & butter.\n- Bake it for "about" 25 min; don\'t open!',
)
"""Prose, lists and code in several scripts, written for these tests."""

LONG = "\n\n".join(f"{i}. {' '.join(PROSE)}" for i in range(12))
"""Several windows long."""

_CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.25,  # wide, or all words would be worth the same
    "num_labels": 2,
}


def bert(folder: Path) -> Path:
    """BERT-like: WordPiece, cased, with the name by which llmlingua knows this family."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import BertConfig, BertForTokenClassification

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    config = BertConfig(vocab_size=1000, max_position_embeddings=512, **_CONFIG)
    names = dict(zip("pad unk cls sep mask".split(), special, strict=True))
    return _saved(
        folder / "tiny-bert-base-multilingual-cased", tokenizer, trainer, names, BertForTokenClassification, config
    )


def xlm_roberta(folder: Path) -> Path:
    """XLM-R-like: SentencePiece (Unigram), likewise."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False, shrinking_factor=0.5
    )
    config = XLMRobertaConfig(
        vocab_size=1000, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        **_CONFIG,
    )  # fmt: skip
    names = dict(zip("cls pad sep unk mask bos eos".split(), [*special, "<s>", "</s>"], strict=True))
    return _saved(
        folder / "tiny-xlm-roberta-large", tokenizer, trainer, names, XLMRobertaForTokenClassification, config
    )


def _saved(folder: Path, tokenizer: Any, trainer: Any, names: dict[str, str], kind: Any, config: Any) -> Path:
    import torch
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    # 😀 and the like are left unknown.
    tokenizer.train_from_iterator([*PROSE, " ".join(map(chr, range(33, 127)))] * 3, trainer)
    start, end = ((names[name], tokenizer.token_to_id(names[name])) for name in ("cls", "sep"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start[0]} $A {end[0]}", special_tokens=[start, end]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        kind(config).eval().save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )
    fast.save_pretrained(folder)
    return folder
