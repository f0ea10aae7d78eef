#!/usr/bin/env python3
"""Vectors of texts, one by one and on one thread, by onnxruntime, for check_models.py.

Usage: onnx_run.py MODEL.onnx IDS.json OUT.npy

IDS.json: a list of token ids for each text. A program of its own, so that its memory and time are
its own.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main():
    model, ids, out = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    vectors = [session.run(None, {"ids": np.array([row]), "mask": np.ones((1, len(row)), np.int64)})
               for row in json.loads(Path(ids).read_text(encoding="utf-8"))]
    np.save(out, np.concatenate([vector[0] for vector in vectors]))


if __name__ == "__main__":
    main()
