"""Writing: the types of weights, and the rules for which tensor gets which."""

import gguf
import numpy as np

TYPES = {
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}

# Rows that are added, not multiplied: they cost nothing as they are.
ALWAYS_F32 = {"token_types.weight", "position_embd.weight", "cls.output.weight",
              "attn_rel_b.weight"}

POOLING = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS,
           "lasttoken": gguf.PoolingType.LAST}


class Output:
    """A GGUF writer that knows the type of matrices."""

    def __init__(self, path, architecture, type_name):
        self.kind, self.file_type = TYPES[type_name]
        self.keys = gguf.GGUFWriter(path, architecture)

    def add_tensor(self, name, values):
        """values: float32, row by row. Matrices become the file's kind, vectors stay float32."""
        if values.ndim == 1 or name in ALWAYS_F32:
            self.keys.add_tensor(name, values.astype(np.float32))
            return
        self.keys.add_tensor(name, gguf.quants.quantize(values, self.kind), raw_dtype=self.kind)

    def finish(self):
        self.keys.write_header_to_file()
        self.keys.write_kv_data_to_file()
        self.keys.write_tensors_to_file()
        self.keys.close()
