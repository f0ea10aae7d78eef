#!/usr/bin/env python3
"""From a real Kafka into a real PostgreSQL, exactly once: every write is counted by a trigger.
Workers and servers are killed and frozen, partitions move; deletions; a topic that is made again.

Usage: test_postgres_kafka.py EMBEDMILL [CASE ...]
"""
import random
import signal
import subprocess
import sys

from cases import find_cases, run_cases, shared
from kafka_bench import TEXTS, Bench as KafkaBench, Feeder, wait_for
from postgres_bench import DIM, Postgres, programs, settle

EXACTLY = ("--delivery", "exactly-once")
AUDIT = """CREATE TABLE IF NOT EXISTS written (what text, id text);
CREATE OR REPLACE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_TABLE_NAME = 'embeddings' THEN INSERT INTO written VALUES ('row', NEW.id);
  ELSE INSERT INTO written VALUES ('letter', NEW.position); END IF; RETURN NULL; END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON embeddings FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON embeddings_dlq FOR EACH ROW
  EXECUTE FUNCTION audit();"""


class Bench(KafkaBench):
    def __init__(self, binary, source):
        super().__init__(binary)
        self.pg = Postgres(source)

    def __exit__(self, *error):
        super().__exit__(*error)
        self.pg.close()

    def begin(self, name):
        super().begin(name)
        schema = subprocess.run(
            [self.binary, "schema", "--sink", "postgres", "--source", "kafka", "--dim", str(DIM),
             *EXACTLY], capture_output=True, text=True, check=True).stdout
        self.pg.sql("DROP TABLE IF EXISTS embeddings, embeddings_dlq, embeddings_deleted, "
                    "embeddings_offsets, written;"
                    + schema + AUDIT)

    def start_sink(self, *extra, url=None):
        return self.start_worker("--sink", "postgres", "--dim", str(DIM), "--postgres-url",
                                 url or self.pg.url(), "--postgres-timeout", "3s", "--batch-texts",
                                 "32", *extra)

    def counted(self, what):
        """How many were written, and how many of these again."""
        [[n, distinct]] = self.pg.sql("SELECT count(*), count(DISTINCT id) FROM written WHERE "
                                      f"what = '{what}'")
        return int(n), int(n) - int(distinct)

    def check(self, n, n_letters, is_exact=True):
        assert int(self.pg.one("SELECT count(*) FROM embeddings")) == n
        assert int(self.pg.one("SELECT count(*) FROM embeddings_dlq")) == n_letters
        rows, again = self.counted("row")
        letters, letters_again = self.counted("letter")
        print(f"        {rows} rows, {again} again; {letters} dead letters, {letters_again} again",
              flush=True)
        if is_exact:
            assert (rows, again, letters, letters_again) == (n, 0, n_letters, 0)
        assert int(self.pg.one("SELECT count(DISTINCT embedding::text) FROM embeddings")) <= \
            len(TEXTS)


def each_alive(bench, workers):
    for worker in workers:
        assert worker.poll() is None, bench.log(worker.number)[-3000:]


def case_workers_killed(bench):
    """Three workers, one of them killed, frozen or drained every second."""
    bench.make_topics(4)
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"        seed {seed}", flush=True)
    choose = random.Random(seed)
    feeder = Feeder(bench, 120)
    workers = [bench.start_sink(*EXACTLY) for _ in range(3)]
    for _ in range(18):
        settle(1)
        each_alive(bench, workers)
        slot = choose.randrange(3)
        what = choose.choice(("kill", "drain", "freeze"))
        if what == "kill":
            bench.kill(workers[slot])
        elif what == "drain":
            bench.stop(workers[slot])
        else:
            workers[slot].send_signal(signal.SIGSTOP)
            settle(5) # longer than its session
            workers[slot].send_signal(signal.SIGCONT)
            continue
        workers[slot] = bench.start_sink(*EXACTLY)
    n = feeder.end()
    bench.wait_lag_0(90)
    each_alive(bench, workers)
    for worker in workers:
        bench.stop(worker)
    bench.check(n, feeder.n_poison)


def case_server_killed(bench):
    """The server dies with transactions under way, and is frozen; workers die meanwhile."""
    bench.make_topics(2)
    feeder = Feeder(bench, 120)
    workers = [bench.start_sink(*EXACTLY) for _ in range(2)]
    for i in range(5):
        settle(2)
        if i == 3:
            bench.pg.signal(signal.SIGSTOP)
            settle(3)
            bench.pg.signal(signal.SIGCONT)
            continue
        bench.pg.kill()
        if i % 2:
            bench.kill(workers[0])
            workers[0] = bench.start_sink(*EXACTLY)
        settle(0.5)
        bench.pg.start()
    n = feeder.end()
    bench.wait_lag_0(90)
    each_alive(bench, workers)
    for worker in workers:
        bench.stop(worker)
    bench.check(n, feeder.n_poison)


def case_connections_killed(bench):
    """The server ends connections at any moment: whether the last transaction was committed is
    looked up."""
    bench.make_topics(2)
    feeder = Feeder(bench, 200)
    worker = bench.start_sink(*EXACTLY)
    for _ in range(60):
        settle(0.2)
        bench.pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                     "application_name = 'embedmill'")
    n = feeder.end()
    bench.wait_lag_0(90)
    each_alive(bench, [worker])
    bench.stop(worker)
    bench.check(n, feeder.n_poison)


def case_offsets_of_the_table(bench):
    """The table says where to go on, whatever the group's offsets say."""
    bench.make_topics(1)
    bench.send_texts(0, 100)
    worker = bench.start_sink(*EXACTLY)
    bench.wait_lag_0()
    bench.stop(worker)
    assert bench.pg.sql("SELECT part, done, epoch FROM embeddings_offsets") == [
        [f"{bench.topic('in')}/0", "100", "1"]]
    bench.send_texts(100, 100)
    bench.pg.sql("UPDATE embeddings_offsets SET done = 150")
    worker = bench.start_sink(*EXACTLY)
    bench.wait_lag_0()
    bench.stop(worker)
    bench.check(150, 0)
    assert bench.pg.one("SELECT min(id::int) FROM embeddings WHERE id::int >= 100") == "150"


def case_without(bench):
    """At least once writes rows again after a kill, and none is lost."""
    bench.make_topics(2)
    feeder = Feeder(bench, 150)
    for _ in range(4):
        worker = bench.start_sink()
        settle(2.5)
        bench.kill(worker)
    n = feeder.end()
    worker = bench.start_sink()
    bench.wait_lag_0(90)
    bench.stop(worker)
    bench.check(n, feeder.n_poison, is_exact=False)


def case_poison_first(bench):
    """Nothing may go before a record that is refused, and nothing was accepted yet: the next ones
    are tried and taken back, to see whose fault it is. More than are buried without that."""
    bench.make_topics(1)
    bench.pg.sql("ALTER TABLE embeddings ADD CONSTRAINT fits CHECK (id NOT LIKE 'bad%')")
    bench.send([{"key": f"bad {i}", "value": "t"} for i in range(20)])
    worker = bench.start_sink(*EXACTLY)
    wait_for("it waits", lambda: "fits" in bench.log())
    settle(2)
    assert bench.pg.one("SELECT count(*) FROM embeddings_dlq") == "0", "nobody knows whose fault"
    bench.send_texts(0, 30)
    bench.wait_lag_0()
    bench.stop(worker)
    bench.check(30, 20)
    bench.pg.sql("ALTER TABLE embeddings DROP CONSTRAINT fits; CREATE FUNCTION odd() RETURNS "
                 "trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 'odd' THEN INSERT INTO nowhere "
                 "VALUES (1); END IF; RETURN NEW; END $$; CREATE TRIGGER odd BEFORE INSERT ON "
                 "embeddings FOR EACH ROW EXECUTE FUNCTION odd()")
    bench.send([{"key": "odd", "value": "t"}])
    bench.send_texts(30, 30)
    worker = bench.start_sink(*EXACTLY)
    bench.wait_lag_0()
    bench.stop(worker)
    bench.pg.sql("DROP TRIGGER odd ON embeddings; DROP FUNCTION odd")
    bench.check(60, 21)


def case_deletions(bench):
    """A tombstone deletes a row and all chunks; of one key the last message counts."""
    bench.make_topics(1)
    words = " ".join(TEXTS) + " "
    bench.send([{"key": "a", "value": "a"}, {"key": "b", "value": words * 40},
                {"key": "c", "value": "c"}, {"key": "d", "value": words * 40}])
    extra = ("--too-long", "chunk", "--chunk-tokens", "64", *EXACTLY)
    worker = bench.start_sink(*extra)
    wait_for("chunks of two", lambda: bench.pg.one(
        "SELECT count(DISTINCT coalesce(parent, id)) FROM embeddings") == "4")
    assert int(bench.pg.one("SELECT count(*) FROM embeddings WHERE parent = 'b'")) > 3
    bench.send([{"key": "a", "value": None}, {"key": "b", "value": None},
                {"key": "c", "value": None}, {"key": "c", "value": "c again"},
                {"key": "d", "value": "short"}, {"key": "none", "value": None}])
    bench.wait_lag_0()
    bench.stop(worker)
    assert bench.pg.sql("SELECT id FROM embeddings ORDER BY id") == [["c"], ["d"]]


def case_topic_again(bench):
    """A topic that is deleted and made anew begins below what the table has: all of it counts."""
    bench.make_topics(1)
    bench.send_texts(0, 50)
    worker = bench.start_sink(*EXACTLY)
    bench.wait_lag_0()
    bench.stop(worker)
    admin_topic = bench.topic("in")
    from confluent_kafka.admin import AdminClient
    admin = AdminClient(bench.client())
    for future in admin.delete_topics([admin_topic]).values():
        future.result()
    settle(3)
    bench.kafka("topic", admin_topic, "1")
    bench.send_texts(50, 20)
    worker = bench.start_sink(*EXACTLY)
    wait_for("the new ones", lambda: int(bench.pg.one("SELECT count(*) FROM embeddings")) == 70)
    wait_for("the table follows", lambda: bench.pg.one(
        "SELECT done FROM embeddings_offsets") == "20")
    bench.stop(worker)
    bench.check(70, 0)


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    source = programs()
    if not source:
        print("SKIPPED: no PostgreSQL with pgvector can be had (scripts/get-postgres)")
        return 77
    with Bench(binary, source) as bench:
        bench.start_kafka()
        bench.pg.create()
        bench.pg.start()
        return run_cases(find_cases(globals()), only, shared(bench, bench.begin))


if __name__ == "__main__":
    sys.exit(main())
