"""What lies between a client and its Redis in the tests: a faulty network, and TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import redis

from tests.servers import HOST, START_TIMEOUT, Closing, RedisServer, free_port

__all__ = ["SlowProxy", "TlsRedisServer"]

T = TypeVar("T")


class SlowProxy(Closing):
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


class TlsRedisServer(Closing):
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
