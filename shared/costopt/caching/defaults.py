"""Where entries lie when the user does not say."""

from __future__ import annotations

import os
from pathlib import Path

from costopt.caching.store import Store

__all__ = ["REDIS_VARIABLES", "default_path", "default_store"]

REDIS_VARIABLES = ("COSTOPT_REDIS_URL", "REDIS_URL")


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
