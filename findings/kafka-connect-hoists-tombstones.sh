#!/usr/bin/env bash
# Kafka Connect's HoistField makes a record of a tombstone, and three other transforms stop the connector at one.
#
# A tombstone, a key without a value, is how a delete travels. HoistField, which puts a text into a field so that
# a sink can take it, puts the missing value there too: {"text": null}. The delete has become an update
# that sinks store, a compacted topic keeps the key for good, and the document is found for ever. MaskField,
# ValueToKey and HeaderFrom raise on the first tombstone, which ends the task, or, with errors.tolerance=all, drops the
# delete. InsertField, ReplaceField, Cast, Flatten, ExtractField and TimestampConverter let it pass, as one
# learns to expect. The guess that misses: transforms of the value leave a record alone that has none. Give each of the
# four a predicate: predicates.tombstone.type=org.apache.kafka.connect.transforms.predicates.RecordIsTombstone
# with transforms.NAME.predicate=tombstone and transforms.NAME.negate=true.
#
# Version: Maven org.apache.kafka:connect-transforms 4.4.0, java 17.
# Seen: {text=null} from HoistField, a DataException from the three, null from the six.
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
    <dependency><groupId>org.apache.kafka</groupId>
      <artifactId>connect-transforms</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$folder/jars" >mvn.log || { cat mvn.log; exit 1; }

cat >Tried.java <<'JAVA'
import java.util.Collections;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.Cast;
import org.apache.kafka.connect.transforms.ExtractField;
import org.apache.kafka.connect.transforms.Flatten;
import org.apache.kafka.connect.transforms.HeaderFrom;
import org.apache.kafka.connect.transforms.HoistField;
import org.apache.kafka.connect.transforms.InsertField;
import org.apache.kafka.connect.transforms.MaskField;
import org.apache.kafka.connect.transforms.ReplaceField;
import org.apache.kafka.connect.transforms.TimestampConverter;
import org.apache.kafka.connect.transforms.Transformation;
import org.apache.kafka.connect.transforms.ValueToKey;
import org.apache.kafka.connect.transforms.predicates.RecordIsTombstone;

public class Tried {
    static final SinkRecord TOMBSTONE = new SinkRecord("texts", 0, Schema.STRING_SCHEMA, "7", null, null, 0);

    static void expect(Object expected, Transformation<SinkRecord> transform, Map<String, String> settings) {
        Object found;
        transform.configure(settings);
        try {
            found = String.valueOf(transform.apply(TOMBSTONE).value());
        } catch (DataException why) {
            found = DataException.class;
        }
        System.out.println(transform.getClass().getName().replaceAll(".*\\.", "") + " " + settings + ": " + found);
        if (!found.equals(expected))
            throw new AssertionError("not as described");
    }

    public static void main(String[] arguments) {
        HoistField<SinkRecord> hoist = new HoistField.Value<>();
        expect("{text=null}", hoist, Map.of("field", "text"));
        if (!Collections.singletonMap("text", null).equals(hoist.apply(TOMBSTONE).value())
                || new RecordIsTombstone<SinkRecord>().test(hoist.apply(TOMBSTONE)))
            throw new AssertionError("not as described");

        expect(DataException.class, new MaskField.Value<>(), Map.of("fields", "name"));
        expect(DataException.class, new ValueToKey<>(), Map.of("fields", "id"));
        expect(DataException.class, new HeaderFrom.Value<>(),
            Map.of("fields", "id", "headers", "id", "operation", "copy"));

        expect("null", new InsertField.Value<>(), Map.of("static.field", "model", "static.value", "small"));
        expect("null", new ReplaceField.Value<>(), Map.of("exclude", "name"));
        expect("null", new Cast.Value<>(), Map.of("spec", "id:string"));
        expect("null", new Flatten.Value<>(), Map.of());
        expect("null", new ExtractField.Value<>(), Map.of("field", "text"));
        expect("null", new TimestampConverter.Value<>(),
            Map.of("field", "time", "target.type", "string", "format", "yyyy"));
    }
}
JAVA
java -cp "$folder/jars/*" Tried.java
echo "as described"
