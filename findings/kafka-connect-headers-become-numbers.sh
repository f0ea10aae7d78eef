#!/usr/bin/env bash
# Kafka Connect reads a header "0012" as the number 12, "123e4567" as 1.23E+4569 and "1,2" as 1.
#
# Headers are bytes. The converter that every worker has unless told otherwise, SimpleHeaderConverter, reads them as
# text and makes of it whatever it looks like: a number, true, a date, a list. So an id, a version or a hash that was
# put into a header for the sink reaches it as another value: leading zeros are gone, a short hash of
# digits and one e is a power of ten, "1.10" is 1.1, and of "1,2" what follows the comma is lost. A transform that
# copies such a header into the record, or a connector that writes it back to a topic, hands the new text on. Whether
# it happens depends on each value, so that most ids pass. The guess that misses: a header that was text is a string.
# header.converter=org.apache.kafka.connect.storage.StringConverter in the worker or the connector. InsertHeader has the
# same: value.literal=0012 adds the number 12.
#
# Version: Maven org.apache.kafka:connect-transforms and connect-api 4.4.0, java 17.
# Seen: 0012 comes back as 12, 1e3 as 1000, 1.10 as 1.1, 123e4567 as 1.23E+4569, "1,2" as 1; all as sent
# with StringConverter.
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
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.storage.HeaderConverter;
import org.apache.kafka.connect.storage.SimpleHeaderConverter;
import org.apache.kafka.connect.storage.StringConverter;
import org.apache.kafka.connect.transforms.InsertHeader;

public class Tried {
    /** The text of a header after a connector has read it and written it again. */
    static String passed(HeaderConverter converter, String text) {
        SchemaAndValue read = converter.toConnectHeader("texts", "id", text.getBytes(StandardCharsets.UTF_8));
        byte[] written = converter.fromConnectHeader("texts", "id", read.schema(), read.value());
        String back = new String(written, StandardCharsets.UTF_8);
        System.out.println(converter.getClass().getSimpleName() + ": " + text + " -> " + read.schema().type()
            + " " + back);
        return back;
    }

    static void expect(Object expected, Object found) {
        if (!expected.equals(found))
            throw new AssertionError("not as described: " + found);
    }

    public static void main(String[] arguments) {
        String[][] all = {{"0012", "12"}, {"1e3", "1000"}, {"1.10", "1.1"}, {"123e4567", "1.23E+4569"},
            {"1,2", "1"}, {" 7 ", "7"}, {"doc-7", "doc-7"}, {"12a", "12a"}};
        for (String[] one : all) {
            expect(one[1], passed(new SimpleHeaderConverter(), one[0]));
            expect(one[0], passed(new StringConverter(), one[0]));
        }
        InsertHeader<SinkRecord> insert = new InsertHeader<>();
        insert.configure(Map.of("header", "id", "value.literal", "0012"));
        SinkRecord record = insert.apply(new SinkRecord("texts", 0, null, null, null, "a text", 0));
        System.out.println("InsertHeader: " + record.headers());
        expect((byte) 12, record.headers().lastWithName("id").value());
    }
}
JAVA
java -cp "$folder/jars/*" Tried.java
echo "as described"
