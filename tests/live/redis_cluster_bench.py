"""A cluster of redis-servers on this machine and workers on it, for the tests in Python."""
import os
import subprocess
import time

import redis
from redis.commands.core import DataAccessCommands

from ports import free_ports
from redis_bench import Bench, wait_for

PASSWORD = "open sesame"
STREAM, OUTPUT, DEAD = "{texts}", "{texts}:embeddings", "{texts}:dlq"
GROUP = "embedmill"


class Node:
    """One redis-server. port: of clients; bus: of the other nodes."""

    def __init__(self, folder, port, bus, options=()):
        self.folder, self.port, self.bus = folder, port, bus
        self.options = options
        self.client = redis.Redis(port=port, password=PASSWORD, socket_timeout=10)
        self.process = None

    def start(self):
        os.makedirs(self.folder, exist_ok=True)
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
             "--save", "", "--appendonly", "no", "--requirepass", PASSWORD, "--masterauth",
             PASSWORD, "--cluster-enabled", "yes", "--cluster-port", str(self.bus),
             "--cluster-node-timeout", "5000", "--repl-diskless-sync-delay", "0", *self.options],
            stdout=subprocess.DEVNULL)
        wait_for(f"node {self.port} answering", self.client.ping)

    def ask(self, *words):
        return self.client.execute_command(*words)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def id(self):
        return self.ask("CLUSTER", "MYID").decode()


class Follower(DataAccessCommands):
    """A client of the slot of STREAM: MOVED, ASK, TRYAGAIN and CLUSTERDOWN are followed. (The
    RedisCluster of Debian 12's redis-py 4.3 fails when it looks anew: it copies locks.)"""
    response_callbacks = {}

    def __init__(self, nodes):
        self.nodes = nodes
        self.node = nodes[0]

    def node_at(self, place):
        return next(node for node in self.nodes if node.port == int(place.rpartition(":")[2]))

    def ask_once(self, place, words, options):
        with self.node_at(place).client.pipeline(transaction=False) as both:
            both.execute_command("ASKING")
            both.execute_command(*words, **options)
            return both.execute()[1]

    def execute_command(self, *words, **options):
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.node.client.execute_command(*words, **options)
            except redis.exceptions.ResponseError as why:
                # redis-py 6 leaves the first word to the name of the error.
                said, last = str(why).split(), why
                kind = {"MovedError": "MOVED", "AskError": "ASK",
                        "TryAgainError": "TRYAGAIN"}.get(type(why).__name__, said[0])
            except redis.exceptions.ConnectionError as why: # nothing was sent to what is not there
                kind, said, last = "", [""], why
            try:
                if kind == "ASK":
                    return self.ask_once(said[-1], words, options)
            except redis.exceptions.RedisError as why:
                last = why
            if kind == "MOVED":
                self.node = self.node_at(said[-1])
            elif kind not in ("ASK", "TRYAGAIN"):
                alive = [node for node in self.nodes if node.is_alive()]
                self.node = alive[(alive.index(self.node) + 1) % len(alive)
                                  if self.node in alive else 0]
            if time.monotonic() > deadline:
                raise last
            time.sleep(0.02)


class ClusterBench(Bench):
    """n_masters nodes that share the slots, each with n_replicas."""

    def __init__(self, binary, n_masters=3, n_replicas=1):
        super().__init__(binary)
        self.n_masters = n_masters
        n = n_masters * (1 + n_replicas)
        first = free_ports(2 * n)
        self.nodes = [Node(os.path.join(self.folder, f"node-{i}"), first + i, first + n + i)
                      for i in range(n)]
        self.cluster = None  # a client of all of it

    def start(self):
        for node in self.nodes:
            node.start()
            self.processes.append(node.process)
        masters = self.nodes[:self.n_masters]
        for i, node in enumerate(masters):
            low, high = (16384 * k // self.n_masters for k in (i, i + 1))
            node.ask("CLUSTER", "ADDSLOTS", *range(low, high))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", masters[0].port, masters[0].bus)
        wait_for("nodes that know each other", lambda: all(
            self.info(node)["cluster_known_nodes"] == str(len(self.nodes)) for node in self.nodes))
        for i, node in enumerate(self.nodes[self.n_masters:]):
            master = masters[i % self.n_masters].id()
            wait_for("a master that is known", lambda n=node, m=master: m in str(
                n.ask("CLUSTER", "NODES")))
            node.ask("CLUSTER", "REPLICATE", master)
        wait_for("a cluster that is well", self.is_well, 60)
        self.cluster = Follower(self.nodes)

    def is_well(self):
        for node in self.nodes:
            if not node.is_alive():
                continue
            if self.info(node)["cluster_state"] != "ok":
                return False
            replication = node.client.info("replication")
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
        return True

    @staticmethod
    def info(node):
        answer = node.ask("CLUSTER", "INFO")
        if isinstance(answer, bytes):
            answer = dict(line.split(":", 1) for line in answer.decode().split())
        return answer

    def owner(self):
        """The node that serves the slot of STREAM and thinks so itself; None: there is none."""
        for node in self.nodes:
            if not node.is_alive():
                continue
            try:
                node.client.xlen(STREAM)
            except redis.exceptions.RedisError:
                continue
            if node.client.info("replication")["role"] == "master":
                return node
        return None

    def slot(self):
        return self.nodes[0].ask("CLUSTER", "KEYSLOT", STREAM)

    def others(self, node):
        """Masters beside this one."""
        return [one for one in self.nodes if one is not node and one.is_alive() and
                one.client.info("replication")["role"] == "master"]

    def url(self, nodes=None):
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes or self.nodes)
        return f"redis+cluster://:{PASSWORD.replace(' ', '%20')}@{hosts}"

    def worker(self, *extra, name="w", nodes=None):
        return self.start_worker("--redis-url", self.url(nodes), "--redis-stream", STREAM,
                                 *extra, name=name)

    def run_command(self, *words, check=True, **how):
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        return subprocess.run([self.binary, *words], env=env, check=check, text=True, timeout=120,
                              capture_output=True, stdin=how.pop("stdin", subprocess.DEVNULL),
                              **how)

    def move_slot(self, to, pause):
        """As `redis-cli --cluster reshard` does it, with pause() between any two steps."""
        slot, source = self.slot(), self.owner()
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id())
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id())
        pause()
        while True:
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1)
            if not keys:
                break
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS",
                       keys[0])
            pause()
        to.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id())
        source.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id())
        for node in self.others(source):
            if node is not to:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id())
