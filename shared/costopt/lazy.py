"""Packages that import what they hold at its first use, so that importing one costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from costopt.errors import require

__all__ = ["lazy"]


def lazy(
    package: str, homes: Mapping[str, str], *, modules: str = "", needs: tuple[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562); what it holds is told to type checkers by plain imports.

    Args:
        package: The package's `__name__`.
        homes: The names that it holds, by the module that defines them: ``{"costopt.pricing": "Price Usage"}``.
        modules: Its modules that are attributes of it, too, though nobody has imported them.
        needs: A library without which none of it can be had, and the extra of costopt that brings it. `__getattr__`
            raises `MissingExtraError` where it is not installed.

    Returns:
        The two functions.

    Example:
        >>> getattr_, dir_ = lazy("costopt", {"costopt.pricing": "Price Usage"}, modules="pricing")
        >>> getattr_("Price").__name__, getattr_("pricing").__name__
        ('Price', 'costopt.pricing')
    """
    home = {name: module for module, names in homes.items() for name in names.split()}
    below = modules.split()

    def get(name: str) -> Any:
        if name in below:
            return import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if needs:
            require(*needs)
        value = getattr(import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # asked once
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *home, *below})
