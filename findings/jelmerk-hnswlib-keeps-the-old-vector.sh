#!/usr/bin/env bash
# Java's jelmerk hnswlib keeps the old vector of a known id, and says so by a false that nobody reads.
#
# add() of an item whose id is there returns false and changes nothing, unless the index was built with
# withRemoveEnabled(); addAll(), which takes a list, returns nothing at all. So a text that is embedded anew
# stays at its old place. remove() returns false as well, and the item is still found. With withRemoveEnabled() the
# same calls replace and remove. The guess that misses: add() of a known id replaces, as in the C++ hnswlib that it
# is written after, or raises. By cosine, the distance to a vector of zeros is NaN. withRemoveEnabled(), which
# costs memory, for every index that is written to more than once; look at what add() returns.
#
# Version: Maven com.github.jelmerk:hnswlib-core 1.2.1, java 17.
# Seen: true and false, "old" at distance 0; with withRemoveEnabled() true and true, "new" at distance 1.
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
    <dependency><groupId>com.github.jelmerk</groupId>
      <artifactId>hnswlib-core</artifactId><version>1.2.1</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$folder/jars" >mvn.log || { cat mvn.log; exit 1; }

cat >Tried.java <<'JAVA'
import com.github.jelmerk.hnswlib.core.DistanceFunctions;
import com.github.jelmerk.hnswlib.core.Item;
import com.github.jelmerk.hnswlib.core.hnsw.HnswIndex;
import java.util.List;

public class Tried {
    record Text(String id, float[] vector, String words) implements Item<String, float[]> {
        public int dimensions() {
            return vector.length;
        }
    }

    static void expect(Object expected, Object found) {
        System.out.println(found);
        if (!found.equals(expected))
            throw new AssertionError("not as described");
    }

    static HnswIndex<String, float[], Text, Float> index(boolean removes) {
        var builder = HnswIndex.newBuilder(2, DistanceFunctions.FLOAT_COSINE_DISTANCE, 10);
        if (removes)
            builder.withRemoveEnabled();
        return builder.build();
    }

    static List<String> nearest(HnswIndex<String, float[], Text, Float> index) {
        return index.findNearest(new float[] {1, 0}, 1).stream()
            .map(hit -> hit.item().words() + " " + hit.distance()).toList();
    }

    public static void main(String[] arguments) throws Exception {
        Text old = new Text("1", new float[] {1, 0}, "old"), anew = new Text("1", new float[] {0, 1}, "new");
        var plain = index(false);
        expect(List.of(true, false), List.of(plain.add(old), plain.add(anew)));
        plain.addAll(List.of(anew));
        expect(List.of("old 0.0"), nearest(plain));
        expect(List.of(false, 1), List.of(plain.remove("1", 0), plain.size()));

        var removing = index(true);
        expect(List.of(true, true), List.of(removing.add(old), removing.add(anew)));
        expect(List.of("new 1.0"), nearest(removing));
        expect(List.of(true, 0), List.of(removing.remove("1", 0), removing.size()));

        plain.add(new Text("zeros", new float[] {0, 0}, "zeros"));
        expect(true, plain.findNearest(new float[] {1, 0}, 2).stream().anyMatch(hit -> hit.distance().isNaN()));
    }
}
JAVA
java -cp "$folder/jars/*" Tried.java
echo "as described"
