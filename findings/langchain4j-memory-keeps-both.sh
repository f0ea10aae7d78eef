#!/usr/bin/env bash
# LangChain4j's in-memory store keeps every vector of an id, and a minScore of 0.5 lets everything unrelated pass.
#
# add(id, embedding, segment) of an id that is there adds a second entry: a text that is embedded anew is found
# with its old vector and words as well, and one search may return its id twice; remove(id) removes both. A
# score is (cosine + 1) / 2: 0.5 is a right angle, and so is the score of a vector of zeros. Who carries a threshold
# over from a store with cosines, or reads 0.5 as half alike, filters out only what points away. The guess that
# misses: an id has one entry, as in a database and as in Spring AI's store, and a score is the cosine.
# remove(id) before add(); 2 * score - 1 is the cosine, so for a cosine of 0.5 minScore is 0.75.
#
# Versions: Maven dev.langchain4j:langchain4j 1.19.0, java 17.
# Seen: for the query [1, 0] "old" with 1.0 and "new" with 0.5 under one id, zeros with 0.5; none after remove.
# Needs: java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>dev.langchain4j</groupId>
      <artifactId>langchain4j</artifactId><version>1.19.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId><version>2.0.17</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$folder/jars" >mvn.log || { cat mvn.log; exit 1; }

cat >Tried.java <<'JAVA'
import dev.langchain4j.data.embedding.Embedding;
import dev.langchain4j.data.segment.TextSegment;
import dev.langchain4j.store.embedding.EmbeddingSearchRequest;
import dev.langchain4j.store.embedding.inmemory.InMemoryEmbeddingStore;
import java.util.List;

public class Tried {
    static final InMemoryEmbeddingStore<TextSegment> STORE = new InMemoryEmbeddingStore<>();

    static void add(String id, String text, float... vector) {
        STORE.add(id, Embedding.from(vector), TextSegment.from(text));
    }

    static void expect(List<String> expected) {
        List<String> found = STORE.search(EmbeddingSearchRequest.builder()
            .queryEmbedding(Embedding.from(new float[] {1, 0})).maxResults(10).minScore(0.5).build())
            .matches().stream().map(hit -> hit.embeddingId() + " " + hit.embedded().text() + " " + hit.score())
            .sorted().toList();
        System.out.println(found);
        if (!found.equals(expected))
            throw new AssertionError("not as described");
    }

    public static void main(String[] arguments) {
        add("1", "old", 1, 0);
        add("1", "new", 0, 1);
        add("2", "away", -1, 0);
        add("3", "zeros", 0, 0);
        expect(List.of("1 new 0.5", "1 old 1.0", "3 zeros 0.5"));
        STORE.remove("1");
        expect(List.of("3 zeros 0.5"));
    }
}
JAVA
java -cp "$folder/jars/*" Tried.java
echo "as described"
