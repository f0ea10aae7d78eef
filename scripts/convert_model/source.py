"""A folder that sentence-transformers or transformers saved, old or new: what it says, and its
tensors. Every complaint is a sentence that ends the program."""

import json
import struct
import sys

import numpy as np

MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean",
         "pooling_mode_max_tokens": "max", "pooling_mode_lasttoken": "lasttoken",
         "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
         "pooling_mode_weightedmean_tokens": "weightedmean"}


def fail(message):
    sys.exit(f"convert-model: {message}")


def warn(message):
    print(f"convert-model: warning: {message}", file=sys.stderr)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fail(f"{path} is missing: FOLDER must be a sentence-transformers folder")
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        fail(f"{path} is not valid JSON ({e}): fetch the folder again")


class Tensors:
    """The tensors of one model: model.safetensors, or the parts that an index names. Values come
    as float32; bfloat16, which numpy does not have, is widened here."""

    def __init__(self, folder):
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").exists() or not index.exists():
            files = ["model.safetensors"]
        else:
            files = sorted(set(read_json(index).get("weight_map", {}).values()))
        self.entries = {}
        for name in files:
            self.read_header(folder / name)

    def read_header(self, path):
        if not path.exists():
            fail(f"{path} is missing: fetch it, or save the model again in the safetensors format")
        try:
            with open(path, "rb") as file:
                size = struct.unpack("<Q", file.read(8))[0]
                if size > path.stat().st_size:
                    raise ValueError("it is cut short")
                header = json.loads(file.read(size))
            data = np.memmap(path, np.uint8, "r", offset=8 + size)
            for name, entry in header.items():
                if name != "__metadata__":
                    first, last = entry["data_offsets"]
                    if not 0 <= first <= last <= len(data):
                        raise ValueError(f"{name} is not whole")
                    self.entries[name] = (entry["dtype"], entry["shape"], data[first:last])
        except (ValueError, KeyError, TypeError, struct.error, OSError) as e:
            fail(f"{path} cannot be read: {e}; fetch it again")

    def __contains__(self, name):
        return name in self.entries

    def names(self):
        return self.entries.keys()

    def prefix_of(self, name, known):
        """The prefix that tensors have: exports differ in the name of the wrapping module."""
        for prefix in known:
            if prefix + name in self.entries:
                return prefix
        return ""

    def entry(self, name):
        if name not in self.entries:
            fail(f"missing tensor {name}: FOLDER is not a model of the kind that its "
                 "config.json names")
        return self.entries[name]

    def shape(self, name):
        return self.entry(name)[1]

    def load(self, name):
        dtype, shape, data = self.entry(name)
        if dtype == "BF16":
            values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        elif dtype in ("F16", "F32", "F64"):
            values = data.view({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype])
            values = values.astype(np.float32)
        else:
            fail(f"tensor {name} holds {dtype}: save the model again in float32 or bfloat16")
        try:
            values = values.reshape(shape)
        except ValueError:
            fail(f"tensor {name} is not whole: fetch the folder again")
        if not np.isfinite(values).all():
            fail(f"{name} has a value that is not finite: the source is damaged")
        return values


class Source:
    """A folder and what it is made of."""

    def __init__(self, folder, name=None):
        self.folder = folder
        self.name = name or folder.resolve().name # config.json names the model it was trained from
        self.modules = self.read_modules()
        self.model = folder / self.modules[0][1]
        self.config = read_json(self.model / "config.json")

    def read_modules(self):
        """(last part of the type, path) of each step; without modules.json the model alone."""
        path = self.folder / "modules.json"
        if not path.exists():
            return [("Transformer", "")]
        modules = [(module["type"].rsplit(".", 1)[-1], module.get("path", ""))
                   for module in read_json(path)]
        if not modules or modules[0][0] != "Transformer":
            fail(f"modules.json begins with {modules[0][0] if modules else 'nothing'}: only models "
                 "that begin with a Transformer can be converted")
        return modules

    @property
    def has_modules(self):
        return (self.folder / "modules.json").exists()

    def check_modules(self, known):
        """known: types of steps, in any number. A step left out would give wrong vectors."""
        for kind, _ in self.modules:
            if kind not in known:
                fail(f"modules.json has the step {kind}: only {', '.join(sorted(known))} can be "
                     "converted for this kind of model")

    def folders_of(self, kind, default=()):
        if not self.has_modules:
            return [self.folder / path for path in default if (self.folder / path).is_dir()]
        return [self.folder / path for name, path in self.modules if name == kind]

    def pooling(self, known):
        """One of `known`, of both forms that sentence-transformers has written."""
        folders = self.folders_of("Pooling", ["1_Pooling"])
        if len(folders) != 1:
            fail(f"{len(folders)} poolings in modules.json, or no 1_Pooling folder: FOLDER must be "
                 "a sentence-transformers folder with one")
        pooling = read_json(folders[0] / "config.json")
        mode = pooling.get("pooling_mode")
        if mode is None:
            modes = [MODES.get(key, key) for key, value in pooling.items()
                     if key.startswith("pooling_mode_") and value]
        else:
            modes = [mode] if isinstance(mode, str) else list(mode)
        if len(modes) != 1 or modes[0] not in known:
            words = {"mean": "the mean", "cls": "the first token", "lasttoken": "the last token"}
            fail(f"{folders[0].name}/config.json asks for {', '.join(modes) or 'nothing'}: only "
                 f"{' or '.join(words[k] for k in known)}, one of them, can be converted")
        if not pooling.get("include_prompt", True):
            fail(f"{folders[0].name}/config.json leaves the prompt out of the pooling: such models "
                 "cannot be converted")
        return modes[0]

    def number(self, key, config=None):
        value = (self.config if config is None else config).get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            fail(f"config.json has no number {key} above 0: fetch the folder again")
        return value

    def expect(self, expected):
        """Values of config.json; a key that is absent has the value it has without saying."""
        for key, value in expected.items():
            if self.config.get(key, value) != value:
                fail(f"config.json has {key} = {self.config[key]!r}, expected {value!r}: such "
                     "models cannot be converted")

    def rope_base(self, kind, old_key, default=None):
        """Of layers of that kind: transformers 5 has moved it into rope_parameters."""
        rope = self.config.get("rope_parameters")
        if isinstance(rope, dict):
            rope = rope.get(kind, rope)
            if rope.get("rope_type", "default") != "default":
                fail(f"config.json has rope_type {rope['rope_type']!r}: only 'default' can be "
                     "converted")
            return self.number("rope_theta", rope)
        if self.config.get("rope_scaling"):
            fail("config.json has rope_scaling: such models cannot be converted")
        return self.number(old_key) if default is None or old_key in self.config else default

    def prompts(self):
        """What the model was trained with before a text, by task; those that are empty left out."""
        path = self.folder / "config_sentence_transformers.json"
        prompts = read_json(path).get("prompts") if path.exists() else None
        return {name: text for name, text in (prompts or {}).items() if text}

    @property
    def lowers_texts(self):
        """sentence-transformers itself does it, before the tokenizer."""
        path = self.model / "sentence_bert_config.json"
        return bool(path.exists() and read_json(path).get("do_lower_case"))

    def refuse_lowering(self):
        if self.lowers_texts:
            fail("sentence_bert_config.json has do_lower_case: texts in lower case can be "
                 "converted for WordPiece tokenizers only")

    def tokenizer_json(self):
        """tokenizer.json, or None: what sentence-transformers itself runs."""
        path = self.model / "tokenizer.json"
        return read_json(path) if path.exists() else None

    def tokenizer_config(self):
        path = self.model / "tokenizer_config.json"
        return read_json(path) if path.exists() else {}
