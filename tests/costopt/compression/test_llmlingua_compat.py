"""With `compat`, the words are those that the package llmlingua 0.2.2 chooses with the same model."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt.compression import LLMLingua2
from costopt.errors import ConfigError
from costopt.tokens import _folders
from tests.costopt.compression.classifiers import LONG, PROSE, bert, xlm_roberta

RATES = (0.1, 0.33, 0.5, 0.9)
KINDS = {"bert": bert, "xlm_roberta": xlm_roberta}

# The warnings are those of llmlingua.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


class Peer:
    """llmlingua and this package on one model."""

    def __init__(self, folder: Path) -> None:
        from llmlingua import PromptCompressor

        self.theirs: Any = PromptCompressor(
            str(folder), device_map="cpu", use_llmlingua2=True, model_config={"trust_remote_code": False}
        )
        self.ours = LLMLingua2(folder, compat=True)

    def their_words(self, text: str, rate: float) -> list[tuple[str, bool]]:
        """What it labels, without white space and without words of nothing."""
        done = self.theirs.compress_prompt_llmlingua2(
            text, rate=rate, return_word_label=True, word_sep="\x01", label_sep="\x02"
        )
        found = [each.split("\x02") for each in done["fn_labeled_original_prompt"].split("\x01")]
        return [("".join(word.split()), label == "1") for word, label in found if word.strip()]

    def our_words(self, text: str, rate: float) -> list[tuple[str, bool]]:
        """The same of ours, as the tokenizer writes them; what it does not know within a word is lost there only."""
        found = [
            (self._written(text[word.start : word.end]), word.kept) for word in self.ours.words(text, target_ratio=rate)
        ]
        return [(word, kept) for word, kept in found if word]

    def _written(self, word: str) -> str:
        model = self.ours._classifier
        read = model.encode(word)
        pieces = zip(read.tokens.ids, read.written, strict=True)
        return "".join(piece.lstrip("#▁") or piece.strip("▁") for token, piece in pieces if token != model.unknown_id)


@pytest.fixture(scope="module", params=list(KINDS))
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with pytest.MonkeyPatch.context() as patch:
        # It would download the tokenizer that it counts with; and it sets seeds for the whole process.
        patch.setenv("TIKTOKEN_CACHE_DIR", str(next(folder for folder in _folders() if folder.is_dir())))
        patch.setenv("PYTHONHASHSEED", "0")
        before = random.getstate()
        yield Peer(KINDS[request.param](tmp_path_factory.mktemp("compat")))
        random.setstate(before)


@pytest.mark.parametrize("rate", RATES)
def test_the_same_words_of_short_texts(peer: Peer, rate: float) -> None:
    for text in PROSE:
        theirs = peer.their_words(text, rate)
        assert theirs
        assert peer.our_words(text, rate) == theirs


@pytest.mark.parametrize("rate", RATES)
def test_the_same_words_of_texts_longer_than_a_window(peer: Peer, rate: float) -> None:
    without_stops = LONG.replace(".", ",")  # nowhere to cut: chunks of 511 tokens, the last one cut off
    for text in (LONG, without_stops):
        assert peer.our_words(text, rate) == peer.their_words(text, rate)


@pytest.mark.parametrize(
    "text",
    [
        "an [SEP] in [UNK] the text, </s> too <mask> [PAD] and [CLS]",
        "a 😀 that the vocabulary lacks 🏽, twice 😀😀.",
        "## a heading ###, some_code(x)==1 && y ▁ z ▁▁w",
        "tabs\tand  many   blanks\n\n\nand lines\u00a0or\u200bnothing",
        "don't can't 3.14 1,000.50 e.g. U.S.A. (a) [b] {c} don ' t",
        "these: ﬁne ① ﬀ ½ Ⅳ cafe\u0301 Ä and the rest",
        "word",
    ],
)
@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_the_same_words_of_odd_texts(peer: Peer, text: str, rate: float) -> None:
    assert peer.our_words(text, rate) == peer.their_words(text, rate)


def test_the_same_words_of_random_texts(peer: Peer) -> None:
    """Texts on which that package raises are passed over; they must be few."""
    draw = random.Random(5)
    odd = ["##a", "▁b", "😀", "[SEP]", "<s>", ".", "...", "'", "\n", "\u200b", "中文", "x" * 120]
    pieces = [*" ".join(PROSE).split(), *odd]
    crashed = 0
    for _ in range(80):
        text = draw.choice(["", " "]).join(draw.choices(pieces, k=draw.randint(1, 60)))
        rate = draw.choice(RATES)
        try:
            theirs = peer.their_words(text, rate)
        except Exception:  # an IndexError or ValueError, as it happens
            crashed += 1
            continue
        assert peer.our_words(text, rate) == theirs, (text, rate)
    assert crashed < 16


def test_the_same_text_but_for_white_space(peer: Peer) -> None:
    for text in PROSE[:3]:
        done = peer.theirs.compress_prompt_llmlingua2(text, rate=0.5)["compressed_prompt"]
        ours = peer.ours.compress(text, target_ratio=0.5)
        assert peer._written(ours.text) == peer._written(done)
        for piece in ours.kept:
            assert piece.rewritten or piece.text == text[piece.start : piece.end]


def test_documents_and_a_number_of_tokens(peer: Peer) -> None:
    documents = [PROSE[0], PROSE[4], PROSE[5]]
    done = peer.theirs.compress_prompt_llmlingua2(documents, target_token=70)["compressed_prompt_list"]
    ours = peer.ours.compress(documents, target_tokens=70, model="gpt-3.5-turbo")
    assert [peer._written(text) for text in ours.texts] == [peer._written(text) for text in done]


def test_digits_reserved_there_are_protected_here(peer: Peer) -> None:
    text = PROSE[0]
    done = peer.theirs.compress_prompt_llmlingua2(text, rate=0.3, force_reserve_digit=True)["compressed_prompt"]
    assert "1931" in done
    ours = peer.ours.compress(text, target_ratio=0.3, protect=["1931", "3.14"])
    assert "1931" in ours.text
    assert "3.14" in ours.text


def test_words_that_are_kept_stay_apart(peer: Peer) -> None:
    """llmlingua puts a blank between all of its words; here it is put only where two would run together."""
    text = "a-b-c-d-e-f 1.2.3.4.5.6 " * 3
    for rate in RATES:
        ours = peer.ours.compress(text, target_ratio=rate)
        kept = [text[word.start : word.end] for word in peer.ours.words(text, target_ratio=rate) if word.kept]
        signs = [sign for word in kept for sign in word.split() if sign.isalnum()]
        for sign in {each for each in ours.text.split() if each.isalnum()}:
            assert sign in signs


def test_where_llmlingua_raises_or_loses_all_the_text_stays(peer: Peer) -> None:
    text = "😀 😀😀"
    with contextlib.suppress(IndexError, ValueError):
        assert peer.their_words(text, 0.5) == []
    assert peer.ours.compress([text, PROSE[0]], target_ratio=0.5).texts[0] == text
    assert peer.ours.compress(text, target_ratio=0.5).text == text


def test_only_for_tokenizers_that_llmlingua_knows(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = bert(tmp_path)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    with pytest.raises(ConfigError, match="mBERT or XLM-R"):
        LLMLingua2(folder, compat=True).compress("a b a b", target_ratio=0.5)
