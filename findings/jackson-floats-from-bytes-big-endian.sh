#!/usr/bin/env bash
# Jackson reads bytes into float[] as big-endian floats, without an error.
#
# Since 2.18 a field `float[] vector` accepts binary: bytes of msgpack or CBOR, or base64 text of
# JSON, four bytes a value, most significant first. Embeddings travel as little-endian nearly
# everywhere (numpy, Redis, pgvector's clients, OpenAI's base64), so each value comes out with its
# bytes swapped: tiny or huge numbers in an array of the right length. The guess that misses: bytes
# for a float[] are refused, as they were, or follow the order that everyone sends.
#
# Versions: jackson-databind 2.20.0, jackson-dataformat-cbor 2.20.0, java 17. Seen: 1.0 becomes
# 4.6006E-41 and -2.0 becomes 2.69E-43, from CBOR bytes and from base64 in JSON alike. As byte[] and
# a little-endian FloatBuffer both come out right.
# Needs: java 11 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>com.fasterxml.jackson.core</groupId>
      <artifactId>jackson-databind</artifactId><version>2.20.0</version></dependency>
    <dependency><groupId>com.fasterxml.jackson.dataformat</groupId>
      <artifactId>jackson-dataformat-cbor</artifactId><version>2.20.0</version></dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory="$folder/jars"

cat >Tried.java <<'JAVA'
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.cbor.databind.CBORMapper;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;

public class Tried {
    public static class Row {
        public float[] vector;
    }

    public static class Bytes {
        public byte[] vector;
    }

    static void expectRight(String what, byte[] bytes) {
        float[] got = new float[bytes.length / 4];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(got);
        System.out.println(what + " as byte[]: " + Arrays.toString(got));
        if (!Arrays.equals(got, new float[] {1.0f, -2.0f}))
            throw new AssertionError("not what was sent");
    }

    static void expect(String what, float[] got) {
        System.out.println(what + ": " + Arrays.toString(got));
        if (got.length != 2 || got[0] != Float.intBitsToFloat(0x0000803f)
                || got[1] != Float.intBitsToFloat(0x000000c0))
            throw new AssertionError("another order, or refused");
    }

    public static void main(String[] arguments) throws Exception {
        byte[] raw = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)
            .putFloat(1.0f).putFloat(-2.0f).array();
        CBORMapper cbor = new CBORMapper();
        byte[] packed = cbor.writeValueAsBytes(Map.of("vector", raw));
        expect("CBOR bytes of [1.0, -2.0]", cbor.readValue(packed, Row.class).vector);
        String json = "{\"vector\":\"" + Base64.getEncoder().encodeToString(raw) + "\"}";
        expect("base64 of [1.0, -2.0]", new ObjectMapper().readValue(json, Row.class).vector);
        expectRight("CBOR bytes", cbor.readValue(packed, Bytes.class).vector);
        expectRight("base64", new ObjectMapper().readValue(json, Bytes.class).vector);
    }
}
JAVA
java -cp "jars/*" Tried.java
echo "as described"
