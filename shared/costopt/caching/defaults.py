"""Where entries lie when the user does not say."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any, cast

from costopt.caching.store import Store
from costopt.errors import ConfigError

__all__ = ["REDIS_VARIABLES", "default_path", "default_store", "store_of"]

REDIS_VARIABLES = ("COSTOPT_REDIS_URL", "REDIS_URL")
_STORES = "LocalStore('cache.db') for a file, RedisStore(...) or a URL such as 'redis://localhost:6379' for Redis"


def default_path() -> Path:
    """The file of the local store: `COSTOPT_CACHE_DIR`, else the user's cache folder."""
    folder = os.environ.get("COSTOPT_CACHE_DIR")
    if folder:
        return Path(folder) / "cache.db"
    from platformdirs import user_cache_path

    return user_cache_path("costopt") / "cache.db"


def redis_url() -> str | None:
    """The Redis that the environment names, if it names one."""
    return next((url for name in REDIS_VARIABLES if (url := os.environ.get(name))), None)


def default_store() -> Store:
    """Redis if the environment names one, else the file at `default_path`. Connects to nothing yet."""
    url = redis_url()
    if url is not None:
        from costopt.caching.redis_store import RedisStore

        return RedisStore(url)
    from costopt.caching.local_store import LocalStore

    return LocalStore(default_path())


def store_of(store: Any) -> Store:
    """The store that a user means: one as it is, the one at a Redis URL, or the default.

    Raises:
        ConfigError: If it is none.
    """
    if store is None:
        return default_store()
    if isinstance(store, str) and "://" in store:
        from costopt.caching.redis_store import RedisStore

        return RedisStore(store)
    if isinstance(store, str | PurePath):
        # Not repeated where it may be an address with a password.
        named = "the store" if "@" in str(store) else f"store={str(store)!r}"
        raise ConfigError(f"{named} is no Redis URL: give {_STORES}")
    if isinstance(store, type) or not (hasattr(store, "bind") and hasattr(store, "put")):
        raise ConfigError(f"a {type(store).__name__} is no store: give {_STORES}")
    return cast("Store", store)
