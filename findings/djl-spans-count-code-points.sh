#!/usr/bin/env bash
# DJL's character spans of tokens count code points, and Java's substring() counts UTF-16 units.
#
# getCharTokenSpans() is there to cut a text at tokens: a chunk from the start of one to the end of another. Its
# numbers are those of the Rust library, in which an ideograph above U+FFFF, a mathematical letter or an emoji is one
# character; in a Java String it is two. So behind each of them every span is one place further to the left: the
# chunks of a long text begin and end inside words, more and more so, and what is stored as a hit's highlight is not
# what was found. Nothing is raised while the numbers stay within the text. The guess that misses: places that
# a Java library hands out are those of Java's String. text.offsetByCodePoints(0, span.getStart()) is the place.
#
# Versions: Maven ai.djl.huggingface:tokenizers 0.38.0, java 17.
# Seen: of "𠮷野家 𠮷野家 opens late" the span of "opens" is cut out as "家 ope".
# Needs: java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >tokenizer.json <<'JSON'
{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
 "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
 "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "opens": 1, "late": 2}, "unk_token": "[UNK]"}}
JSON
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
import ai.djl.huggingface.tokenizers.Encoding;
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import ai.djl.huggingface.tokenizers.jni.CharSpan;
import java.nio.file.Path;
import java.util.Map;

public class Tried {
    static void expect(String what, String expected, String found) {
        System.out.println(what + ": \"" + found + "\"");
        if (!found.equals(expected))
            throw new AssertionError("not as described");
    }

    static CharSpan span(HuggingFaceTokenizer tokenizer, String text, String word) {
        Encoding encoding = tokenizer.encode(text);
        int place = java.util.List.of(encoding.getTokens()).indexOf(word);
        return encoding.getCharTokenSpans()[place];
    }

    public static void main(String[] arguments) throws Exception {
        try (HuggingFaceTokenizer tokenizer =
                 HuggingFaceTokenizer.newInstance(Path.of("tokenizer.json"), Map.of("addSpecialTokens", "false"))) {
            String plain = "\u5409\u91ce\u5bb6 \u5409\u91ce\u5bb6 opens late";
            CharSpan span = span(tokenizer, plain, "opens");
            expect("below U+FFFF", "opens", plain.substring(span.getStart(), span.getEnd()));

            String text = "\ud842\udfb7\u91ce\u5bb6 \ud842\udfb7\u91ce\u5bb6 opens late";
            span = span(tokenizer, text, "opens");
            expect("above", "\u5bb6 ope", text.substring(span.getStart(), span.getEnd()));
            expect("by code points", "opens", text.substring(
                text.offsetByCodePoints(0, span.getStart()), text.offsetByCodePoints(0, span.getEnd())));
        }
    }
}
JAVA
java -Dfile.encoding=UTF-8 -cp "$folder/jars/*" Tried.java
echo "as described"
