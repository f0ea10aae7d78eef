#!/usr/bin/env bash
# ClickHouse's dotProduct of Array(Int8) is an Int16, and wraps around.
#
# Two vectors of 768 values 127 have the product 12,387,072; dotProduct says 768. The sum is kept in
# the type of one product, so three values of 127 are enough, and a ranking by dotProduct over
# int8 embeddings is noise that looks like numbers. cosineDistance, L2Distance and L2Norm of the same
# arrays compute in floats and are right. Array(UInt8) wraps in UInt16. The guess that misses: an
# aggregate over an array widens, as arraySum and sum() do. Convert: dotProduct(v::Array(Float32), ...).
# Two more of its conversions change embeddings in silence: a null in a JSON array of Float32 becomes
# 0, and BFloat16 cuts the low bits off where others round, so 0.99999 is 0.99609375 and not 1.
#
# Version: chdb 4.4.0 (PyPI; ClickHouse 26.9.2.1 in the process).
# Seen: dotProduct 768 (Int16), arraySum of the products 12387072, cosineDistance of opposite vectors 2.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: chdb==4.4.0 chdb-core==26.9.0

cat >try.py <<'PY'
import chdb


def ask(select):
    answer = str(chdb.query("SELECT " + select, "TSV")).rstrip("\n").split("\t")
    print(f"{select}: {' '.join(answer)}")
    return answer


ask("version()")
vector = "arrayWithConstant(768, toInt8(127))"
opposite = "arrayWithConstant(768, toInt8(-127))"
assert ask(f"dotProduct({vector}, {vector}) AS d, toTypeName(d)") == ["768", "Int16"]
assert ask(f"arraySum(arrayMap((x, y) -> x * y, {vector}, {vector}))") == ["12387072"]
assert ask(f"dotProduct({vector}::Array(Float32), {vector}::Array(Float32))") == ["12387072"]
assert ask("dotProduct([127, 127, 127]::Array(Int8), [127, 127, 127]::Array(Int8))") == ["-17149"]
assert ask(f"cosineDistance({vector}, {opposite})") == ["2"]
assert ask("""* FROM format(JSONEachRow, 'v Array(Float32)', '{"v": [0.5, null]}')""") == ["[0.5,0]"]
assert ask("toFloat32(toBFloat16(toFloat32(0.99999)))") == ["0.99609375"]
PY
venv/bin/python try.py
echo "as described"
