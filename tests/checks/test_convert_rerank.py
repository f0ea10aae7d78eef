#!/usr/bin/env python3
"""scripts/convert-model.py on small rerankers made here: head, form of the scores, what is refused.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from test_convert import HIDDEN, SEED, convert
from test_convert_bert import BERT, make_bert_folder, renew_bert
from test_convert_xlm import CONFIG, make_folder

HEADS = {"bert": ("bert.pooler.dense", "classifier"),
         "xlm-roberta": ("classifier.dense", "classifier.out_proj")}
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
ONE = {"0": "LABEL_0"}


def special(text, kind=0):
    return {"SpecialToken": {"id": text, "type_id": kind}}


def part(text, kind=0):
    return {"Sequence": {"id": text, "type_id": kind}}


SINGLE = [special("<s>"), part("A"), special("</s>")]
PAIR = [special("<s>"), part("A"), special("</s>"), special("</s>"), part("B"), special("</s>")]


def add_head(folder, kind, **changes):
    """Returns its values by their names in the file."""
    (folder / "1_Pooling/config.json").unlink()
    (folder / "modules.json").unlink(missing_ok=True)
    names = {"bert": "BertForSequenceClassification",
             "xlm-roberta": "XLMRobertaForSequenceClassification"}
    config = {**(BERT if kind == "bert" else CONFIG), "architectures": [names[kind]],
              "id2label": ONE, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    rng, tensors = np.random.default_rng(SEED + 1), load_file(folder / "model.safetensors")
    dense, out = HEADS[kind]
    values = {f"{dense}.weight": (HIDDEN, HIDDEN), f"{dense}.bias": (HIDDEN,),
              f"{out}.weight": (1, HIDDEN), f"{out}.bias": (1,)}
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in values.items()}
    save_file(tensors | values, folder / "model.safetensors")
    return {name.replace(dense, "cls").replace(out, "cls.output"): v for name, v in values.items()}


class ConvertReranker(unittest.TestCase):
    """A head on a BERT and on an XLM-RoBERTa."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name)
        self.out = self.folder / "out.gguf"

    def make(self, kind, **changes):
        if kind == "bert":
            make_bert_folder(self.folder, "bert.")
        else:
            (self.folder / "1_Pooling").mkdir(exist_ok=True)
            make_folder(self.folder, post_processor={"single": SINGLE, "pair": PAIR})
        return add_head(self.folder, kind, **changes)

    def convert(self):
        run = convert(self.folder, self.out, "--type", "f16")
        self.assertEqual(run.returncode, 0, run.stderr)
        reader = GGUFReader(self.out)
        return ({name: field.contents() for name, field in reader.fields.items()},
                {t.name: t.data for t in reader.tensors})

    def test_head(self):
        for kind in HEADS:
            with self.subTest(kind=kind):
                wanted = self.make(kind)
                keys, tensors = self.convert()
                for name, values in wanted.items():
                    as_stored = np.float16 if name == "cls.weight" else np.float32
                    np.testing.assert_array_equal(tensors[name].reshape(values.shape),
                                                  values.astype(as_stored), name)
                self.assertEqual(keys["bert.pooling_type"], 4)
                self.assertIs(keys["embedmill.rerank.sigmoid"], True)

    def test_scores(self):
        for form, config in ((True, {}), (False, {"sentence_transformers": {
                "activation_fn": IDENTITY}}), (True, {"sentence_transformers": {
                    "activation_fn": SIGMOID}}),
                             (False, {"sbert_ce_default_activation_function": IDENTITY})):
            with self.subTest(config=config):
                self.make("bert", **config)
                keys, _ = self.convert()
                self.assertIs(keys["embedmill.rerank.sigmoid"], form)
        own = self.folder / "config_sentence_transformers.json" # sentence-transformers 6
        own.write_text(json.dumps({"model_type": "CrossEncoder", "activation_fn": SIGMOID}))
        keys, _ = self.convert()
        self.assertIs(keys["embedmill.rerank.sigmoid"], True)

    def refuses(self, complaint):
        run = convert(self.folder, self.out)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(complaint, run.stderr)
        self.assertNotIn("Traceback", run.stderr)

    def test_refuses(self):
        self.make("bert", id2label={"0": "a", "1": "b", "2": "c"})
        self.refuses("3 labels")
        self.make("bert", sentence_transformers={"activation_fn": "torch.nn.Tanh"})
        self.refuses("only Sigmoid and Identity")
        self.make("bert")
        renew_bert(self.folder)
        (self.folder / "modules.json").unlink()
        tokenizer = json.loads((self.folder / "tokenizer.json").read_text())
        tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [
            special("[CLS]"), part("A"), special("[SEP]")], "pair": [
                special("[CLS]"), part("A"), special("[SEP]"), part("B"), special("[SEP]")]}
        (self.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.refuses("puts query and text together")
        tokenizer["post_processor"]["pair"][3:] = [part("B", 1), special("[SEP]", 1)]
        (self.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.convert()


if __name__ == "__main__":
    unittest.main()
