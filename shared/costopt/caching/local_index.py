"""The HNSW index that stands in memory beside a `LocalStore`, and how it keeps up with the file.

The index learns only from the file: what this process writes and what others write reach it the same way, by
reading on from the last row it has seen. A row that was deleted or written again is found out when the index
names it and the file has it no more; after bulk removals the index is compared with the file once. Building
100,000 entries takes a minute, so the index is saved beside the file now and then, and when the store closes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from costopt.caching.store import Vector
from costopt.caching.vector import SALT_DIMENSIONS, salted
from costopt.files import write_whole

__all__ = ["LocalIndex"]

_log = logging.getLogger("costopt.caching")

# Rows that are added while a lookup waits (about 0.5 ms each); more of them are added aside.
_INLINE_ROWS = 64
_CHUNK = 512
_SAVE_EVERY = 5000
_EXPANSION_SEARCH = 64
# An int8 per dimension: the order of neighbours survives it, and their cosine is taken from the file.
_DTYPE = "i8"


class LocalIndex:
    """Nearest neighbours among the rows of a cache file that one embedder wrote.

    Args:
        path: The cache file; the saved index lies beside it.
        embedder: Name of the embedder.
        dimension: Length of its vectors.
    """

    def __init__(self, path: Path, embedder: str, dimension: int) -> None:
        self._embedder = embedder
        self._dimension = dimension
        suffix = hashlib.blake2b(f"{embedder}:{dimension}".encode(), digest_size=6).hexdigest()
        self._saved_path = path.with_name(f"{path.name}.{suffix}.index")
        self._path = path
        self._lock = threading.Lock()
        self._index: Any = None
        self._seen_seq = 0
        self._seen_removals = 0
        self._seen_file = 0
        self._seen_version: tuple[int, int] | None = None
        self._unsaved = 0
        self._filling = False
        self._filling_lock = threading.Lock()
        self._filler: threading.Thread | None = None
        self._stopped = False

    def __len__(self) -> int:
        return 0 if self._index is None else len(self._index)

    @property
    def memory_bytes(self) -> int:
        """What the index takes in memory."""
        return 0 if self._index is None else int(self._index.memory_usage)

    def nearest(self, vector: Vector, scope: str, k: int) -> list[int]:
        """Up to `k` rows, nearest first."""
        with self._lock:
            if not len(self):
                return []
            return [int(seq) for seq in self._index.search(salted(vector, scope), k).keys]

    def discard(self, seqs: Iterable[int]) -> None:
        """Forget rows that the file no longer has."""
        with self._lock:
            for seq in seqs:
                self._index.remove(seq)
                self._unsaved += 1

    def catch_up(self, db: sqlite3.Connection, opened: int) -> bool:
        """Read on in the file; False while the index is too far behind to be asked.

        Args:
            db: A connection to the file.
            opened: The how manieth it is.
        """
        if self._filling:
            return False
        # `data_version` changes whenever anybody else has committed, and asking costs microseconds; its
        # numbers mean something on one connection only.
        version = (opened, int(db.execute("PRAGMA data_version").fetchone()[0]))
        if version == self._seen_version:
            return True
        with self._filling_lock:
            # Another one if the file was removed and made anew: its rows are numbered from 1 again.
            row = db.execute("SELECT value FROM sums WHERE name = 'identity'").fetchone()
            file = 0 if row is None else int(row[0])
            if self._index is None or file != self._seen_file:
                self._load(file)
            behind = db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM entries WHERE seq > ? AND embedder = ? AND length(vector) = ? "
                "LIMIT ?)",
                (self._seen_seq, self._embedder, 2 * self._dimension, _INLINE_ROWS + 1),
            ).fetchone()[0]
            if behind <= _INLINE_ROWS:
                self._read_on(db)
                self._seen_version = version
                return True
            self._filling = True
        self._filler = threading.Thread(target=self._fill_aside, name="costopt-index", daemon=True)
        self._filler.start()
        return False

    def wait(self) -> None:
        """Wait for the thread that reads on aside, if it does."""
        if self._filler is not None:
            self._filler.join()

    def stop_filling(self) -> None:
        """Have the thread that fills the index close the file, and wait for that."""
        self._stopped = True
        if self._filler is not None:
            self._filler.join(timeout=1.0)

    def may_fill(self) -> None:
        """Allow it again; the next search that finds the index behind starts it."""
        self._stopped = False

    def save(self) -> None:
        """Write the index beside the file, if it has learned anything since; failing is no harm."""
        with self._lock:
            if self._index is None or not self._unsaved:
                return
            self._unsaved = 0
            payload = bytes(self._index.save())
            header = json.dumps(
                {
                    "file": self._seen_file,
                    "seq": self._seen_seq,
                    "removals": self._seen_removals,
                    "digest": hashlib.blake2b(payload, digest_size=16).hexdigest(),
                }
            ).encode("ascii")
        try:
            write_whole(self._saved_path, len(header).to_bytes(4, "little") + header + payload)
        except OSError as error:
            _log.debug("costopt: the index was not saved: %r", error)

    def _load(self, of_file: int) -> None:
        """Start from the saved index, if there is a sound one of this file, else from nothing."""
        from usearch.index import Index

        self._index = Index(
            ndim=self._dimension + SALT_DIMENSIONS,
            metric="cos",
            dtype=_DTYPE,
            expansion_search=_EXPANSION_SEARCH,
        )
        self._seen_seq = self._seen_removals = 0
        self._seen_file = of_file
        try:
            with open(self._saved_path, "rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(4), "little")))
                payload = file.read()
            # The library trusts what it loads: what is damaged must not reach it.
            if hashlib.blake2b(payload, digest_size=16).hexdigest() != header["digest"]:
                raise ValueError("damaged")
            if header["file"] != of_file:
                raise ValueError("of another file")
            self._index.load(payload)
            self._seen_seq, self._seen_removals = int(header["seq"]), int(header["removals"])
        except FileNotFoundError:
            pass
        except Exception as error:
            _log.debug("costopt: the saved index is of no use and is built anew: %r", error)

    def _fill_aside(self) -> None:
        """Catch up in a thread of its own while lookups go by the exact tier."""
        try:
            db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
            try:
                with self._filling_lock:
                    self._read_on(db)
            finally:
                db.close()
        except Exception as error:
            _log.warning("costopt: the index could not be brought up to the file: %r", error)
        finally:
            self._filling = False

    def _read_on(self, db: sqlite3.Connection) -> None:
        removals = int(db.execute("SELECT value FROM sums WHERE name = 'removals'").fetchone()[0])
        if removals != self._seen_removals:
            self._drop_missing(db)
            self._seen_removals = removals
        while not self._stopped and (
            rows := db.execute(
                "SELECT seq, scope, vector FROM entries WHERE seq > ? AND embedder = ? AND length(vector) = ? "
                "ORDER BY seq LIMIT ?",
                (self._seen_seq, self._embedder, 2 * self._dimension, _CHUNK),
            ).fetchall()
        ):
            self._add(rows)
            self._seen_seq = rows[-1][0]
            if self._unsaved >= _SAVE_EVERY:
                self.save()
            if len(rows) < _CHUNK:
                return

    def _add(self, rows: list[tuple[int, str, bytes]]) -> None:
        vectors = np.stack([np.frombuffer(blob, dtype=np.float16) for _, _, blob in rows]).astype(np.float32)
        with self._lock:
            for (seq, scope, _), vector in zip(rows, vectors, strict=True):
                if np.isfinite(vector).all() and vector.any() and seq not in self._index:
                    self._index.add(seq, salted(vector, scope))
                    self._unsaved += 1

    def _drop_missing(self, db: sqlite3.Connection) -> None:
        present = {seq for (seq,) in db.execute("SELECT seq FROM entries WHERE embedder = ?", (self._embedder,))}
        with self._lock:
            missing = [seq for seq in map(int, self._index.keys) if seq not in present]
        self.discard(missing)
