"""Single flight between processes: who makes a call holds a lease on it, renewed while its caller lives."""

from __future__ import annotations

import logging
import threading
import time
import uuid

from costopt.caching.flight import Caller
from costopt.caching.request import CacheRequest
from costopt.caching.store import Store

__all__ = ["LEASE_S", "LeaseKeeper"]

_log = logging.getLogger("costopt.caching")

LEASE_S = 2.0
"""A process that dies holds the others up for no longer than this."""
_RENEW_S = 0.5


class LeaseKeeper:
    """Renews the leases of this process from one daemon thread, which ends when there are none.

    Args:
        store: Where the leases lie.
    """

    def __init__(self, store: Store) -> None:
        self.owner = uuid.uuid4().hex
        self._store = store
        self._lock = threading.Lock()
        self._held: dict[str, tuple[CacheRequest, Caller]] = {}
        self._thread: threading.Thread | None = None

    def hold(self, request: CacheRequest, caller: Caller) -> None:
        """Renew the lease on `request` for as long as `caller` lives, or until `drop`."""
        with self._lock:
            for key in [key for key, (_, other) in self._held.items() if caller.replaces(other)]:
                del self._held[key]
            self._held[request.key] = (request, caller)
            # After a fork the thread object is there and the thread is not.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="costopt-leases", daemon=True)
                self._thread.start()

    def drop(self, request: CacheRequest) -> bool:
        """Stop renewing; True if the lease was held."""
        with self._lock:
            return self._held.pop(request.key, None) is not None

    def _run(self) -> None:
        while True:
            time.sleep(_RENEW_S)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
                held = list(self._held.values())
            for request, caller in held:
                self._renew(request, caller)

    def _renew(self, request: CacheRequest, caller: Caller) -> None:
        try:
            if caller.alive():
                self._store.claim(request, self.owner, LEASE_S)
            elif self.drop(request):
                self._store.release(request, self.owner)
        except Exception as error:
            # The lease runs out by itself: others then make the call, too, which costs money and is right.
            self.drop(request)
            _log.debug("costopt: a lease could not be renewed: %r", error)
