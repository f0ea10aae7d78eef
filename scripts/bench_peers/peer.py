"""One side of the paired benchmark that is used from Python; tests/bench/peer.c in its words.

    python -m bench_peers.peer ENGINE FOLDER IDS THREADS SETTING

ENGINE: openvino, onnxruntime or torch. FOLDER: what prepare.py wrote, with model.gguf beside. IDS
and the command `texts` name files of token ids, a line a text, made by this project's side, so that
no tokeniser is in the time of this side. SETTING: a precision. Commands and answers are those of
peer.c, and one more, `size N`: compute up to N texts of like lengths at once, padded to the
longest.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

HINTS = {"f32": ("f32", 0), "bf16": ("bf16", 0), "int8-32": ("f32", 32), "int8-128": ("bf16", 128)}


def open_openvino(folder, precision, threads):
    import openvino # pylint: disable=import-outside-toplevel
    hint, group = HINTS[precision]
    name = "model-int8.xml" if group else "model.onnx"
    compiled = openvino.Core().compile_model(folder / name, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group})
    request = compiled.create_infer_request()
    return lambda ids, mask: request.infer({"ids": ids, "mask": mask})["vectors"]


def open_onnxruntime(folder, precision, threads):
    import onnxruntime # pylint: disable=import-outside-toplevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    name = "model-int8.onnx" if precision == "int8" else "model.onnx"
    session = onnxruntime.InferenceSession(folder / name, options, ["CPUExecutionProvider"])
    return lambda ids, mask: session.run(["vectors"], {"ids": ids, "mask": mask})[0]


def open_torch(folder, precision, threads):
    import torch # pylint: disable=import-outside-toplevel

    from . import modules # pylint: disable=import-outside-toplevel
    torch.set_num_threads(threads)
    model = modules.load(folder / "model.gguf")
    if precision == "bf16":
        model = model.bfloat16()

    def run(ids, mask):
        with torch.inference_mode():
            return model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return run


ENGINES = {"openvino": open_openvino, "onnxruntime": open_onnxruntime, "torch": open_torch}


class Side:
    def __init__(self, engine, folder, threads, setting):
        self.size = 16
        self.run = ENGINES[engine](Path(folder), setting, int(threads))
        self.texts, self.vectors = [], None

    def read(self, path):
        lines = Path(path).read_text(encoding="ascii").splitlines()
        self.texts = [np.array(line.split(), dtype=np.int64) for line in lines]

    def embed(self, n):
        """The first n texts, in batches of like lengths."""
        order = sorted(range(n), key=lambda i: len(self.texts[i]))
        vectors = None
        for at in range(0, n, self.size):
            rows = order[at:at + self.size]
            length = max(len(self.texts[i]) for i in rows)
            ids = np.zeros((len(rows), length), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(rows):
                ids[row, :len(self.texts[i])] = self.texts[i]
                mask[row, :len(self.texts[i])] = 1
            found = self.run(ids, mask)
            if vectors is None:
                vectors = np.zeros((n, found.shape[1]), dtype=np.float32)
            vectors[rows] = found
        self.vectors = vectors

    def timed(self, n):
        began, cpu = time.perf_counter(), time.process_time()
        self.embed(n)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        return f"{took:.9f} {sum(len(text) for text in self.texts[:n])} {cpu:.9f}"

    def obey(self, command):
        word, _, rest = command.partition(" ")
        if word == "texts":
            self.read(rest)
            return len(self.texts)
        if word == "size":
            self.size = int(rest)
            return self.size
        if word == "batch":
            return self.timed(len(self.texts))
        if word == "one":
            return self.timed(1)
        if word == "tokens":
            return " ".join(str(len(text)) for text in self.texts)
        if word == "vectors":
            Path(rest).write_bytes(self.vectors.astype("<f4").tobytes())
            return self.vectors.shape[1]
        if word == "memory":
            fields = dict(line.split()[:2] for line in
                          Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
                          .splitlines()[1:])
            return f"{fields['Rss:']} {fields['Anonymous:']}"
        sys.exit(f"peer.py: unknown command {word}")


def main():
    # Answers keep the standard output to themselves; what libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine, folder, ids, threads, setting = sys.argv[1:]
    began = time.perf_counter()
    side = Side(engine, folder, threads, setting)
    side.read(ids)
    side.embed(1)
    print(f"ready {time.perf_counter() - began:.9f}", file=answers, flush=True)
    for line in sys.stdin:
        print(side.obey(line.strip()), file=answers, flush=True)


if __name__ == "__main__":
    main()
