#!/usr/bin/env python3
"""Embed three texts through Redis and a worker, and print how near they are to each other.

    pip install 'scripts/client-python[redis]'
    embed.py [redis://HOST:6379/0 | redis+cluster://HOST:6379] [STREAM]
"""
import sys

import redis

from embedmill_client import DeadLetter
from embedmill_client.redis import embed

DEFAULTS = ["redis://127.0.0.1:6379/0", "texts"]

url, stream = sys.argv[1:] + DEFAULTS[len(sys.argv) - 1:]
kind = redis.RedisCluster if "+cluster:" in url else redis.Redis
client = kind.from_url(url.replace("+cluster", "", 1))
texts = ["The ferry leaves at seven.", "When does the boat go?", "Two eggs and some flour."]
try:
    vectors = embed(client, texts, prompt="sentence_similarity", timeout=30, stream=stream)
except DeadLetter as letter:
    sys.exit(f"refused: {letter}")
print(*(f"{a @ b:.4f}" for a in vectors for b in vectors))
