#!/usr/bin/env python3
"""Print id, dim and length of every vector in embedmill's output (docs/wire-format.md).

    read_embeddings.py [FILE]                       msgpack maps back to back; standard input
    read_embeddings.py redis://HOST STREAM [FIELD]  the entries of a Redis stream; of a cluster:
                                                    redis+cluster://HOST
"""
import sys

import msgpack
import numpy as np


def outputs(source="/dev/stdin", stream=None, field="body"):
    loose = {"strict_map_key": False, "unicode_errors": "surrogateescape"}  # for `fields`
    if stream is None:
        with open(source, "rb") as file:
            yield from msgpack.Unpacker(file, **loose)
        return
    import redis
    kind = redis.RedisCluster if "+cluster:" in source else redis.Redis
    client, last = kind.from_url(source.replace("+cluster", "", 1)), "0"
    while page := client.xread({stream: last}, count=100):
        for last, entry in page[0][1]:
            yield msgpack.unpackb(entry[field.encode()], **loose)


for output in outputs(*sys.argv[1:]):
    if output["v"] != 1:
        sys.exit(f"this reader knows version 1, not {output['v']}")
    vectors = np.frombuffer(output["embedding"], output["dtype"]).reshape(-1, output["dim"])
    for name, vector in zip(output.get("ids", [output["id"]]), vectors):
        print(name, output["dim"], f"{np.linalg.norm(vector):.6f}", sep="\t")
