"""Faults for workers on Kafka, and what must be true after them. Used by tests and scripts/chaos.

A fault is a function that does one such thing and takes the time it takes; it is called again and
again while texts keep coming in. Then all is healed, the input ends, and the group must get to lag
0 with nothing lost: with exactly-once each id once, with at-least-once at least once.
"""
import random
import signal
import time

from kafka_bench import Feeder, wait_for

MODES = {"at-least-once": (), "exactly-once": ("--delivery", "exactly-once")}


class Team:
    """Workers of one group, each in a slot; who ends without being told to is started again."""

    def __init__(self, bench, n, *extra, addresses=None):
        self.bench, self.extra, self.addresses = bench, extra, addresses
        self.restarts, self.crashes = 0, []
        self.slots = [self.start() for _ in range(n)]

    def start(self):
        return self.bench.start_worker(*self.extra, addresses=self.addresses)

    def replace(self, slot, how):
        """End one by a signal and start another in its place."""
        self.end(self.slots[slot], how)
        self.slots[slot] = self.start()

    def end(self, worker, how=signal.SIGTERM):
        worker.send_signal(how)
        code = worker.wait(timeout=60)
        log = self.bench.log(worker.number)
        # One that had not yet begun ends as any program does.
        right = (0, 75) if '"started"' in log else (0, 75, 143, -signal.SIGTERM)
        if how == signal.SIGTERM and code not in right:
            raise AssertionError(f"a drain ended with {code}\n{log[-3000:]}")

    def tend(self):
        for slot, worker in enumerate(self.slots):
            code = worker.poll()
            if code is not None:
                self.restarts += 1
                if code != 69:  # a broker's refusal, or the watchdog over transactions
                    log = self.bench.log(worker.number)
                    self.crashes.append(f"{code}: {log[-1000:]}")
                self.slots[slot] = self.start()

    def pause(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1)
            self.tend()

    def stop(self):
        for worker in self.slots:
            worker.send_signal(signal.SIGTERM)
        return [worker.wait(timeout=90) for worker in self.slots]


class Scene:
    """What a fault may lay its hands on."""

    def __init__(self, bench, team, proxies, seed):
        self.bench, self.team, self.proxies = bench, team, proxies
        self.choose = random.Random(seed)
        self.n_brokers = bench.addresses["BOOTSTRAP"].count(",") + 1

    def slot(self):
        return self.choose.randrange(len(self.team.slots))

    def broker(self):
        return str(self.choose.randrange(self.n_brokers) + 1)


def worker_killed(scene):
    scene.team.pause(2)
    scene.team.replace(scene.slot(), signal.SIGKILL)


def worker_frozen(scene):
    """For longer than its session lasts: it comes back to find others in its place."""
    worker = scene.team.slots[scene.slot()]
    worker.send_signal(signal.SIGSTOP)
    scene.team.pause(scene.choose.uniform(4, 7))
    worker.send_signal(signal.SIGCONT)
    scene.team.pause(2)


def worker_drained(scene):
    scene.team.pause(scene.choose.uniform(0.5, 2))
    scene.team.replace(scene.slot(), signal.SIGTERM)


def rebalance_storm(scene):
    """Between one and four workers; each change makes the group share out its partitions anew."""
    slots = scene.team.slots
    if len(slots) == 1 or (len(slots) < 4 and scene.choose.random() < 0.5):
        slots.append(scene.team.start())
    else:
        scene.team.end(slots.pop(scene.slot()))
    scene.team.pause(scene.choose.uniform(0.3, 1.2))


def broker_killed(scene):
    broker = scene.broker()
    scene.bench.kafka("signal", broker, "KILL")
    scene.team.pause(scene.choose.uniform(0.5, 4))
    scene.bench.kafka("restart", broker)
    scene.team.pause(3)


def broker_frozen(scene):
    broker = scene.broker()
    scene.bench.kafka("signal", broker, "STOP")
    scene.team.pause(scene.choose.uniform(3, 9))
    scene.bench.kafka("signal", broker, "CONT")
    scene.team.pause(3)


def network_silent(scene):
    """Cables pulled between all workers and all brokers: no answer, and no end of connection."""
    for proxy in scene.proxies:
        proxy.hold()
    scene.team.pause(scene.choose.uniform(2, 10))
    for proxy in scene.proxies:
        proxy.heal()
    scene.team.pause(scene.choose.uniform(2, 5))


def network_resets(scene):
    scene.choose.choice(scene.proxies).reset()
    scene.team.pause(scene.choose.uniform(0.2, 1.5))


def network_torn(scene):
    """Slow, and answers that break off in the middle."""
    proxy = scene.choose.choice(scene.proxies)
    proxy.delay(scene.choose.uniform(0, 0.3))
    proxy.cut(scene.choose.randrange(20000))
    scene.team.pause(scene.choose.uniform(0.5, 2))
    proxy.heal()


WORKER_FAULTS = (worker_killed, worker_frozen, worker_drained, rebalance_storm)
BROKER_FAULTS = (broker_killed, broker_frozen)
NETWORK_FAULTS = (network_silent, network_resets, network_torn)


def everything(scene):
    scene.choose.choice(WORKER_FAULTS + BROKER_FAULTS + NETWORK_FAULTS)(scene)


def run_faults(bench, fault, mode, seconds, *, seed=1, rate=100, n_workers=3, proxies=(),
               partitions=4, limit=90):
    """One scene from an empty topic to lag 0. A dictionary of what came of it."""
    bench.begin(f"{fault.__name__}-{mode}")
    compact = ["cleanup.policy=compact"]  # which takes no record without a key
    bench.make_topics(partitions, compact, compact)
    vectors = bench.reference()
    addresses = bench.addresses["BOOTSTRAP_PROXIED"] if proxies else None
    team = Team(bench, n_workers, *MODES[mode], addresses=addresses)
    scene = Scene(bench, team, proxies, seed)
    feeder = Feeder(bench, rate)
    # Faults hit work that is under way.
    wait_for("the first commit", lambda: bench.committed() > 0, 60)
    n_faults, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        fault(scene)
        n_faults += 1
    healed = time.monotonic()
    n = feeder.end()

    def at_rest():
        team.tend()
        return bench.lag() == 0
    wait_for("lag 0", at_rest, limit)
    seconds_to_0 = time.monotonic() - healed
    codes = team.stop()
    row = {"fault": fault.__name__, "mode": mode, "faults": n_faults}
    row |= bench.counts(bench.read(), n, vectors)
    letters = [tuple(value for name, value in letter.headers() if name in ("_partition", "_offset"))
               for letter in bench.read("dlq")]
    row |= {"poison": feeder.n_poison, "dead": len(set(letters)),
            "dead twice": len(letters) - len(set(letters)), "restarts": team.restarts,
            "seconds to lag 0": round(seconds_to_0, 1), "codes": codes,
            "crashes": team.crashes}
    return row


def problems_of(row):
    """Sentences; none when all is as promised."""
    wrong = [f"{row[what]} {what}" for what in ("lost", "strangers", "wrong") if row[what]]
    if row["dead"] != row["poison"]:
        wrong.append(f"{row['dead']} dead letters of {row['poison']} bad messages")
    if row["dead twice"] and row["mode"] == "exactly-once":
        wrong.append(f"{row['dead twice']} dead letters twice")
    if row["doubled"] and row["mode"] == "exactly-once":
        wrong.append(f"{row['doubled']} doubled")
    if row["crashes"]:
        wrong.append(f"workers ended by themselves: {row['crashes']}")
    if row["restarts"] and row["mode"] != "exactly-once":
        wrong.append(f"{row['restarts']} restarts")
    if any(row["codes"]):
        wrong.append(f"exit codes {row['codes']}")
    if not row["faults"] or not row["in"]:
        wrong.append("nothing was tested")
    return wrong
