"""The token-level backend on small models of both families: budget, slices, whole texts, bad input, other models."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt.compression import CompressionResult, Compressor, Counter, LLMLingua2, protected_spans
from costopt.errors import ConfigError
from tests.costopt.compression.classifiers import LONG, PROSE, bert, xlm_roberta

pytestmark = pytest.mark.usefixtures("one_thread")

RATIOS = (0.1, 0.2, 0.33, 0.5, 0.8)
CLOSE = 0.97
KINDS = {"bert": bert, "xlm_roberta": xlm_roberta}
TEXTS = st.text(alphabet=st.sampled_from("aB9 .,-'\"()[]=<|>\n\t。，是的ไม่Камф😀🏽\u200b\u0301\ud800"), max_size=80)


@pytest.fixture(scope="module", params=list(KINDS))
def dropper(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LLMLingua2:
    return LLMLingua2(KINDS[request.param](tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models"))


def check(result: CompressionResult, target: int) -> None:
    """What holds for every result."""
    assert result.tokens_after <= max(target, 0) or result.notes
    assert result.tokens_after <= result.tokens_before
    assert len(result.text) <= sum(map(len, result.originals)) + 2 * len(result.originals)
    for i, text in enumerate(result.texts):
        own = [piece for piece in result.kept if piece.document == i]
        assert text == "".join(piece.text for piece in own)
        assert len(text) <= len(result.originals[i])
        for piece in own:
            assert piece.text == result.originals[i][piece.start : piece.end]
        assert [piece.start for piece in own] == sorted(piece.start for piece in own)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_target_is_kept_and_used(dropper: LLMLingua2, ratio: float) -> None:
    for text in (LONG, [LONG, *PROSE]):
        result = dropper.compress(text, target_ratio=ratio)
        target = int(ratio * result.tokens_before)
        check(result, target)
        assert CLOSE * target <= result.tokens_after <= target
        assert result.exact
        assert result.counted_by == "o200k_base"


def test_a_number_of_tokens_and_another_way_to_count(dropper: LLMLingua2) -> None:
    assert CLOSE * 100 <= dropper.compress(LONG, target_tokens=100).tokens_after <= 100
    result = dropper.compress(LONG, target_tokens=500, model=len)
    assert CLOSE * 500 <= len(result.text) <= 500


@settings(max_examples=30)
@given(texts=st.lists(TEXTS, max_size=3), ratio=st.floats(0.01, 1.0), protect=st.booleans())
def test_whatever_comes_in(dropper: LLMLingua2, texts: list[str], ratio: float, protect: bool) -> None:
    result = dropper.compress(texts, target_ratio=ratio, **({} if protect else {"protect": ()}))
    check(result, int(round(ratio * result.tokens_before, 6)))
    assert dropper.compress(texts, target_ratio=ratio, **({} if protect else {"protect": ()})) == result


@pytest.mark.parametrize(
    "text", ["", "😀", "😀 👍🏽 🎉", "[SEP]", "[PAD] [UNK]", "<|endoftext|>", "</s>", "<a", "\ud800", "\n \t", "word"]
)
@pytest.mark.parametrize("many", [False, True])
def test_small_odd_texts_never_vanish(dropper: LLMLingua2, text: str, many: bool) -> None:
    result = dropper.compress([text, text] if many else text, target_ratio=0.5)
    check(result, int(0.5 * result.tokens_before))
    assert bool(result.text.strip()) == bool(text.strip())


def test_no_documents(dropper: LLMLingua2) -> None:
    assert dropper.compress([], target_ratio=0.5).texts == ()
    assert dropper.compress(["", ""], target_ratio=0.5).texts == ("", "")


def test_nothing_to_do_is_the_identity_and_loads_nothing(folder: Path) -> None:
    dropper = LLMLingua2(folder)
    for options in ({"target_ratio": 1.0}, {"target_tokens": 10**6}, {}):
        assert dropper.compress(LONG, **options).text == LONG
    assert not dropper.loaded


@pytest.mark.parametrize(
    "options",
    [
        {"target_ratio": 0.0},
        {"target_ratio": 1.5},
        {"target_ratio": float("nan")},
        {"target_ratio": -1},
        {"target_tokens": 0},
    ],
)
def test_targets_that_cannot_be_meant(dropper: LLMLingua2, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give"):
        dropper.compress("Some text.", **options)


def test_a_span_is_of_one_document(dropper: LLMLingua2) -> None:
    with pytest.raises(ConfigError, match="a span is of one document"):
        dropper.compress(["One text.", "Another text."], target_ratio=0.5, protect=[(0, 3)])


def test_what_is_protected_stays_as_it_is(dropper: LLMLingua2) -> None:
    text = " ".join(PROSE)
    result = dropper.compress(text, target_ratio=0.6)
    for start, end in protected_spans(text):
        assert any(piece.start <= start and end <= piece.end for piece in result.kept), text[start:end]
    named = dropper.compress(text, target_ratio=0.05, protect=["would not carry the traffic", (0, 11)])
    assert named.text.startswith("The council")
    assert "would not carry the traffic" in named.text


def test_protected_parts_that_do_not_fit_are_left_out_whole_and_said(dropper: LLMLingua2) -> None:
    text = (
        "The code is `first_part(x) + second_part(y)` and it is `third_part(z) - fourth_part(w)`, as was said before."
    )
    result = dropper.compress(text, target_tokens=8)
    assert result.tokens_after <= 8
    assert ("first_part" in result.text) == ("second_part" in result.text)
    assert any("left out whole" in note for note in result.notes)


def test_what_is_named_is_kept_above_the_target_and_said(dropper: LLMLingua2) -> None:
    result = dropper.compress(PROSE[0], target_tokens=2, protect=["the traffic of the next ten years"])
    assert result.text == "the traffic of the next ten years"
    assert any("not 2" in note for note in result.notes)


def test_special_tokens_in_a_text_are_words_like_others(dropper: LLMLingua2) -> None:
    text = "before [SEP] between </s> behind <mask> the end " * 3
    words = [text[word.start : word.end] for word in dropper.words(text, target_ratio=0.5)]
    assert "".join(words) == "".join(text.split())
    unknown = dropper._classifier.encode("[SEP]").tokens.ids
    assert not set(unknown) & {dropper._classifier.suffix[0]}


def test_long_texts_are_read_to_their_end(dropper: LLMLingua2) -> None:
    """One word beyond a window of its own, many windows, a last one of one word: each word has a value of the model."""
    for text in (LONG, "x" * 1_500 + " end", "\n".join(["one line"] * 300) + "\nlast"):
        words = dropper.words(text, target_ratio=0.5)
        assert "".join(text[word.start : word.end] for word in words) == "".join(text.split())
        assert all(0 < word.probability <= 1 for word in words)


def test_one_threshold_over_all_documents_and_windows(dropper: LLMLingua2) -> None:
    words = dropper.words(LONG, target_ratio=0.5)
    kept = np.array([word.probability for word in words if word.kept])
    dropped = np.array([word.probability for word in words if not word.kept])
    # But for the last few, which were chosen because they still fitted, and marks that keep words apart.
    assert np.quantile(kept, 0.02) >= np.quantile(dropped, 0.98)


def test_a_document_is_read_alike_alone_and_among_others(folder: Path) -> None:
    dropper = LLMLingua2(folder, dtype="float32")
    encoded = [dropper._classifier.encode(text).tokens for text in PROSE]
    together = dropper._values(PROSE, encoded)
    for text, tokens, values in zip(PROSE, encoded, together, strict=True):
        np.testing.assert_allclose(dropper._values([text], [tokens])[0], values, atol=1e-5)


def test_the_values_are_those_of_the_model_itself(folder: Path) -> None:
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    dropper, text = LLMLingua2(folder, dtype="float32"), PROSE[0]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    with torch.inference_mode():
        expected = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0, 1:-1, 1].numpy()
    tokens = dropper._classifier.encode(text).tokens
    np.testing.assert_allclose(dropper._values([text], [tokens])[0], expected, atol=1e-5)


def test_bfloat16_is_close(folder: Path) -> None:
    text = PROSE[0]
    exact, short = (LLMLingua2(folder, dtype=dtype).words(text, target_ratio=0.5) for dtype in ("float32", "bfloat16"))
    differences = [abs(a.probability - b.probability) for a, b in zip(exact, short, strict=True)]
    assert max(differences) < 0.1


def test_many_threads_get_what_one_gets(folder: Path) -> None:
    dropper = LLMLingua2(folder)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: dropper.compress(text, target_ratio=0.5), PROSE * 4))
    assert found == [dropper.compress(text, target_ratio=0.5) for text in PROSE] * 4


async def test_awaited_it_is_the_same_and_the_loop_goes_on(dropper: LLMLingua2) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    result = await dropper.acompress(LONG, target_ratio=0.3)
    counting.cancel()
    assert turns > 0
    assert result == dropper.compress(LONG, target_ratio=0.3)


def test_two_stages_select_sentences_and_then_drop_words(folder: Path) -> None:
    compressor = Compressor(backend=LLMLingua2(folder))
    result = compressor.compress(list(PROSE), "Who pays for the bridge?", target_tokens=30)
    check(result, 30)
    assert CLOSE * 30 <= result.tokens_after <= 30
    assert result.texts[0].count(" ") > 5  # it is about the bridge; the others are mostly left out by the first stage
    assert result.texts[3:] != LLMLingua2(folder).compress(list(PROSE), target_tokens=30).texts[3:]


def test_without_a_question_the_backend_drops_words_alone(folder: Path) -> None:
    dropper = LLMLingua2(folder)
    ours, alone = (
        Compressor(backend=dropper).compress(PROSE[0], target_tokens=30),
        dropper.compress(PROSE[0], target_tokens=30),
    )
    assert ours.texts == alone.texts


def test_folders_that_are_no_token_classifier(folder: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel

    def saved(name: str, kind: type, **more: int) -> Path:
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        kind(BertConfig(vocab_size=1000, **small, **more)).save_pretrained(tmp_path / name)
        for file in folder.glob("*token*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        return tmp_path / name

    plain = saved("plain", BertModel)
    headless = saved("headless", BertModel)
    config = json.loads((headless / "config.json").read_text())
    (headless / "config.json").write_text(json.dumps({**config, "architectures": ["BertForTokenClassification"]}))
    without_words = saved("without-words", BertForTokenClassification)
    for file in without_words.glob("*token*"):
        file.unlink()
    small = saved("small", BertForTokenClassification)
    tokens = json.loads((small / "tokenizer.json").read_text())
    tokens["model"]["vocab"] |= {f"word{i}": i for i in range(900, 1100)}
    (small / "tokenizer.json").write_text(json.dumps(tokens))
    empty = tmp_path / "empty"
    empty.mkdir()
    expected = {
        plain: "no token classifier but BertModel",
        saved("whole", BertForSequenceClassification): "no token classifier but BertForSequenceClassification",
        saved("names", BertForTokenClassification, num_labels=9): "has 9 labels",
        headless: "no weights for classifier",
        without_words: "has no tokenizer.json",
        small: "tokenizer for more tokens",
        empty: "no config.json",
        tmp_path / "missing": "is no folder",
    }
    for path, message in expected.items():
        dropper = LLMLingua2(path)  # nothing is read yet
        with pytest.raises(ConfigError, match=message) as caught:
            dropper.compress("Some text that is long enough.", target_ratio=0.5)
        assert "give a folder with config.json" in str(caught.value)


def test_weights_that_could_run_code_are_not_read(folder: Path, tmp_path: Path) -> None:
    import torch

    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LLMLingua2(tmp_path).load()


def test_options_that_cannot_be_meant(folder: Path) -> None:
    with pytest.raises(ConfigError, match="dtype='half'"):
        LLMLingua2(folder, dtype="half")
    with pytest.raises(ConfigError, match="compat"):
        LLMLingua2(folder, dtype="bfloat16", compat=True)
    with pytest.raises(ConfigError, match="device"):
        LLMLingua2(folder, device="nonsense").load()


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    script = (
        "import sys; from costopt.compression import LLMLingua2; LLMLingua2('some/model');"
        "print([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_counter_of_ones_own_is_asked_only_for_texts_it_can_get(dropper: LLMLingua2) -> None:
    seen = []

    def count(text: str) -> int:
        seen.append(text)
        return len(text.split())

    result = dropper.compress(PROSE[0], target_ratio=0.5, model=Counter(count))
    assert result.tokens_after == int(0.5 * len(PROSE[0].split()))
    assert all(text for text in seen)
