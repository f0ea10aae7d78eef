#!/usr/bin/env bash
# Java's DJL cuts every text at 512 tokens and pads a batch, though tokenizer.json asks for neither.
#
# HuggingFaceTokenizer.newInstance() loads the library in which the same file, in Python and Rust, cuts nothing. DJL
# sets truncation on by itself, with a length of 512 for any model: model_max_length in tokenizer_config.json
# beside it, be it 8192, is not read. So a long text is embedded by its beginning, and a splitter that counts tokens
# by encode().getIds().length sees 512 where there are 3002, and splits nothing. A line in the log says that
# modelMaxLength is used, to those who have a logger. A short text in batchEncode() has the length of
# the longest, padding included, for whoever counts. The guess that misses: one file, one result, and limits
# are the model's. Map.of("truncation", "false", "padding", "false") to count; modelMaxLength to embed.
#
# Versions: Maven ai.djl.huggingface:tokenizers 0.38.0, java 17; PyPI tokenizers 0.23.3.
# Seen: 512 of 3002 tokens, and 512 for a word beside it in a batch; 3002 in Python and with truncation false.
# Needs: python3 with venv, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: tokenizers==0.23.3
cat >make.py <<'PY'
import json
import pathlib

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

tokenizer = Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "line": 4},
                                       unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
folder = pathlib.Path("model")
folder.mkdir()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "tokenizer_config.json").write_text(json.dumps(
    {"model_max_length": 8192, "tokenizer_class": "BertTokenizer"}))
(folder / "config.json").write_text(json.dumps({"max_position_embeddings": 8192, "model_type": "bert"}))
tokens = len(tokenizer.encode("line " * 3000).ids)
print("Python:", tokens)
assert tokens == 3002
PY
venv/bin/python make.py

cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>ai.djl.huggingface</groupId>
      <artifactId>tokenizers</artifactId><version>0.38.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId><version>2.0.17</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$folder/jars" >mvn.log || { cat mvn.log; exit 1; }

cat >Tried.java <<'JAVA'
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

public class Tried {
    static void expect(String what, int expected, int tokens) {
        System.out.println(what + ": " + tokens);
        if (tokens != expected)
            throw new AssertionError("not as described");
    }

    public static void main(String[] arguments) throws Exception {
        String text = "line ".repeat(3000);
        for (Path path : List.of(Path.of("model"), Path.of("model", "tokenizer.json"))) {
            var tokenizer = HuggingFaceTokenizer.newInstance(path);
            expect("DJL, " + path, 512, tokenizer.encode(text).getIds().length);
            expect("a word in a batch", 512, tokenizer.batchEncode(List.of(text, "line"))[1].getIds().length);
            var free = HuggingFaceTokenizer.newInstance(path, Map.of("truncation", "false", "padding", "false"));
            expect("truncation false", 3002, free.encode(text).getIds().length);
            expect("a word in a batch", 3, free.batchEncode(List.of(text, "line"))[1].getIds().length);
        }
        System.exit(0);
    }
}
JAVA
DJL_CACHE_DIR="$folder/djl" java -cp "$folder/jars/*" Tried.java
echo "as described"
