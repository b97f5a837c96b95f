"""Port policies of a user's own, loaded from a Python module when natgw starts (docs/extending.md)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from natgw.datapath.allocation import PortPolicy, PortRequest, register
from natgw.errors import NatgwError
from natgw.tables.portpool import PortPool

log = logging.getLogger(__name__)


class Guarded:
    """A loaded policy: what it raises, or gives that is no port of natgw's, is logged once and means "none to give"."""

    def __init__(self, name: str, policy: PortPolicy) -> None:
        self._name = name
        self._policy = policy
        self._told = False

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        try:
            port: object = self._policy.choose(request, pool)
        except Exception as error:
            self._tell(f"{type(error).__name__}: {error}", exc_info=True)
            return None
        if port is None or (isinstance(port, int) and port in pool):
            return port
        self._tell(f"{port!r} is not a port of {pool.low}-{pool.high}")
        return None

    def _tell(self, why: str, *, exc_info: bool = False) -> None:
        if not self._told:
            self._told = True
            log.error("port policy %s: %s (told once)", self._name, why, exc_info=exc_info)


def load(spec: str) -> str:
    """Make the policy of `MODULE:CLASS` or `PATH.py:CLASS` known, by the name of its class, which is returned.

    The class is called with the gateway's random.Random. Raises NatgwError, in one line, for whatever is wrong with it.
    """
    source, colon, name = spec.rpartition(":")
    if not (source and colon and name.isidentifier()):
        raise NatgwError(f'port policy "{spec}" is not MODULE:CLASS or PATH.py:CLASS')
    found = getattr(_module(source), name, None)
    if found is None:
        raise NatgwError(f"there is no {name} in {source}")
    _try(spec, found)
    try:
        register(name, lambda rng: Guarded(name, found(rng)))
    except ValueError as error:
        raise NatgwError(f"port policy {spec}: {error}") from None
    return name


def _module(source: str) -> ModuleType:
    try:
        if source.endswith(".py") or "/" in source:
            return _module_at(Path(source))
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        hint = f"; a file is given by its path, such as ./{source}.py" if error.name == source else ""
        raise NatgwError(f"port policy: {error}{hint}") from None
    except FileNotFoundError:
        raise NatgwError(f"port policy: there is no file {source}") from None
    except Exception as error:
        raise NatgwError(f"port policy: {source} cannot be imported: {type(error).__name__}: {error}") from None


def _module_at(path: Path) -> ModuleType:
    name = f"natgw_policy_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise ImportError("not a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _try(spec: str, make: Callable[[random.Random], Any]) -> None:
    """Make one, to fail now rather than when the first flow begins."""
    if not callable(make):
        raise NatgwError(f"port policy {spec} is not a class")
    try:
        policy = make(random.Random(0))
    except Exception as error:
        raise NatgwError(f"port policy {spec} cannot be made with a random.Random: {type(error).__name__}: {error}") from None
    if not callable(getattr(policy, "choose", None)):
        raise NatgwError(f"port policy {spec} has no method choose(request, pool)")
