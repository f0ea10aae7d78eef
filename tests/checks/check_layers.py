#!/usr/bin/env python3
"""The rules of the house that a compiler does not know.

Usage: check_layers.py [FOLDER]     first tests itself, then checks the sources below FOLDER

Which room may include what, every header compiles alone, sizes of files and functions, who may
exit. The self-test breaks each rule once and expects the complaint, so a rule that has stopped
working fails the check. Needs gcc and pkg-config; exit code 1 when anything is wrong.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOMS = ("inference", "connectors", "worker")
MODULES = ["libuv", "hiredis", "rdkafka", "libnats", "libpq", "jansson", "yaml-0.1", "libxxhash",
           "cmocka"]

# The rooms, each a folder, and the rooms it may include besides itself. What is not listed is
# refused, so no arrow runs up. "x/name.h" allows that header alone.
MAY_INCLUDE = {
    "inference": set(),
    "connectors": set(),
    "connectors/file": {"connectors"},
    "connectors/kafka": {"connectors"},
    "connectors/postgres": {"connectors"},
    "connectors/rabbitmq": {"connectors"},
    "connectors/nats": {"connectors"},
    "connectors/redis": {"connectors"},
    "worker/codec": {"connectors", "inference/embed.h"},
    "worker/config": {"connectors", "inference/embed.h"},
    "worker/pipeline": {"connectors", "inference/embed.h", "worker/codec"},
    "worker/http": {"connectors", "worker/config/address.h"},
    "worker/serve": {"connectors", "inference/embed.h", "worker/codec", "worker/pipeline",
                     "worker/http"},
    "worker/telemetry": {"connectors", "inference/embed.h", "worker/codec", "worker/pipeline",
                         "worker/http", "worker/serve"},
    "worker/index": {"connectors", "inference/embed.h", "worker/codec", "worker/pipeline",
                     "worker/config/address.h"},
    "worker/commands": {"connectors", "connectors/file/file.h", "inference/embed.h",
                        "worker/codec", "worker/config", "worker/pipeline", "worker/telemetry",
                        "worker/index", "worker/http", "worker/serve"},
    "worker": {"worker/commands", "worker/config", "worker/telemetry"},
}
# What worker/ knows of a broker is struct connector, so it names none, but for a default of two
# options. "file" and "http" are words like others.
BROKER = re.compile(r"(?i)(?<![a-z])(%s)(?![a-z])" % "|".join(
    room.split("/")[1] for room in MAY_INCLUDE
    if room.startswith("connectors/") and room.split("/")[1] not in ("file", "http")))
BROKER_DEFAULT = ("worker/config/options.c", "#define DEFAULT_CONNECTOR ")

# Library header, the files that may include it.
LIBRARIES = [
    (re.compile(r"uv\.h$|uv/"), re.compile(r"(connectors|worker)/")),
    (re.compile(r"hiredis"), re.compile(r"connectors/redis/")),
    (re.compile(r"amqp(_framing)?\.h$|rabbitmq-c/"),
     re.compile(r"connectors/rabbitmq/rabbitmq_amqp\.h$")),
    (re.compile(r"librdkafka/"), re.compile(r"connectors/kafka/")),
    (re.compile(r"libpq"), re.compile(r"connectors/postgres/")),
    (re.compile(r"nats/"), re.compile(r"connectors/nats/")),
    (re.compile(r"openssl/"),
     re.compile(r"connectors/(tls|json|nats/nats_(record|call)|redis/redis_made_with)\.c$|"
                r"worker/(pipeline/cache|codec/uuid|serve/serve_keys)\.c$")),
    (re.compile(r"z(lib|std(_errors)?)\.h$"), re.compile(r"connectors/file/")),
    (re.compile(r"msgpack"), re.compile(r"worker/codec/(codec|msgpack)\w*\.[ch]$")),
    (re.compile(r"jansson\.h$"), re.compile(r"tests/")),
    (re.compile(r"microhttpd\.h$"), re.compile(r"worker/http/http_server\.c$")),
    (re.compile(r"lmdb\.h$"), re.compile(r"worker/pipeline/cache_disk\.c$")),
    (re.compile(r"yaml\.h$"), re.compile(r"worker/config/config\w*\.[ch]$")),
    (re.compile(r"xxhash\.h$"),
     re.compile(r"inference/|connectors/rabbitmq/rabbitmq_message\.c$|"
                r"worker/(pipeline/(batch|cache_disk)|index/vectors_live)\.c$")),
    (re.compile(r"\w*intrin\.h$|arm_neon\.h$|cpuid\.h$"), re.compile(r"inference/")),
    (re.compile(r"cmocka\.h$"), re.compile(r"tests/")),
]

# Everything else between <> is of C, POSIX or Linux.
SYSTEM = re.compile(
    r"(arpa/inet|assert|ctype|dirent|errno|fcntl|inttypes|limits|math|netdb|netinet/(in|tcp)|poll|"
    r"pthread|regex|sched|signal|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|strings?|"
    r"sys/(auxv|eventfd|file|ioctl|mman|queue|random|resource|socket|stat|time|types|un|vfs)|time|"
    r"unistd)"
    r"\.h$")

MAX_COLUMNS = 100
MAX_LINES = 600
MAX_KERNEL_LINES = 800
MAX_FUNCTION_LINES = 60
# Templates: compiled only inside the file of an instruction set, and included nowhere else.
TEMPLATE = re.compile(
    r"inference/kernels_(body|fast|attention|transpose|weights|quants|tiles|\w+_internal)\.h$")
MAY_INCLUDE_TEMPLATE = re.compile(r"inference/kernels_(\w+\.c|(body|weights|\w+_internal)\.h)$")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
LEFTOVER = re.compile(r"\b(T" r"ODO|F" r"IXME|X" r"XX)\b")
EXITS = re.compile(r"(?<![\w.>])(exit|_exit|_Exit|quick_exit|abort)\s*\(")
# A formatter that wraps a head as prose joins its fields.
JOINED = re.compile(r"^ \* .*\S (Owns|Refuses|Threads|Why|Source):  ?\S")
COMMENT = re.compile(r"/\*.*?\*/", re.S)
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)


def without_comments(text):
    """Comments and strings blanked, line breaks kept."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def check_includes(name, lines):
    whole = name.split("/")[0]
    room = name.rpartition("/")[0]
    if whole in ROOMS and room not in MAY_INCLUDE:
        yield 1, f"{room}/ is not a room: add it to MAY_INCLUDE"
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, target = match.groups()
        other = target.rpartition("/")[0]
        if (whole in ROOMS and target.split("/")[0] in ROOMS and other != room and
                not {other, target} & MAY_INCLUDE[room]):
            yield number, f"{room}/ must not include {target}"
        if TEMPLATE.match(target) and not MAY_INCLUDE_TEMPLATE.match(name):
            yield number, f"{target} is for kernel files only"
        if quote == '"' and whole in ROOMS and target.split("/")[0] not in ROOMS:
            yield number, f"{target}: own headers are included as room/name.h"
        known = [may for library, may in LIBRARIES if library.match(target)]
        if whole != "tests" and not all(may.match(name) for may in known):
            yield number, f"{name} must not include {target}"
        if quote == "<" and whole in ROOMS and not known and not SYSTEM.match(target):
            yield number, f"{target} is of no library that LIBRARIES has"


def check_brokers(name, text):
    code = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    for number, line in enumerate(code.splitlines(), 1):
        match = BROKER.search(line)
        if match and not (name == BROKER_DEFAULT[0] and line.startswith(BROKER_DEFAULT[1])):
            yield number, f"worker/ must not know a broker by name: {match[1]}"


DEFINITION = re.compile(
    r"^(?:(?!static\b|typedef\b|else\b)[A-Za-z_][^\n;{}=]*?\b(\w+)\((?:[^;{}])*?\)\s*\n\{"
    r"|const \w[^\n;(]*?\b(\w+)(?:\[[^\]]*\])?\s*=)", re.M)
WORD = re.compile(r"(?<!struct )(?<!enum )\b\w+")


def uses(sources_of_rooms):
    """Which file uses what another defines: {file: {file: a name}}."""
    defined = {}
    for name, text in sources_of_rooms.items():
        for match in DEFINITION.finditer(text):
            defined.setdefault(match[1] or match[2], set()).add(name)
    found = {name: {} for name in sources_of_rooms}
    for name, text in sources_of_rooms.items():
        for word in set(WORD.findall(text)):
            homes = defined.get(word, ())
            if len(homes) == 1 and name not in homes: # static functions of one name have no home
                found[name][next(iter(homes))] = word
    return found


def circles(edges):
    """Groups of files each of which reaches all others of its group."""
    def reach(start):
        seen, left = set(), [start]
        while left:
            for other in edges[left.pop()]:
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen
    reached = {name: reach(name) for name in edges}
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in edges if a in reached[a]}
    return sorted(sorted(group) for group in groups)


def check_calls(sources_of_rooms, headers_of_rooms, edges):
    """What is in no header that a room may include it must not use by a prototype of its own."""
    declared = {}
    for header, text in headers_of_rooms.items():
        for word in set(WORD.findall(text)):
            declared.setdefault(word, set()).update({header, header.rpartition("/")[0]})
    for name, used in sorted(edges.items()):
        room = name.rpartition("/")[0]
        may = MAY_INCLUDE.get(room, set()) | {room}
        for home, word in sorted(used.items()):
            is_own = re.search(rf"^static [^;{{}}=]*\b{word}\(", sources_of_rooms[name], re.M)
            if not is_own and not (declared.get(word, set()) | {home.rpartition("/")[0]}) & may:
                yield f"{name}:1: {room}/ must not use {word} of {home}"


def check_circles(edges):
    for group in circles(edges):
        steps = [f"{a} -> {b} ({edges[a][b]})" for a in group for b in group if b in edges[a]]
        yield f"{group[0]}:1: a circle of {len(group)} files: {', '.join(steps)}"


def check_lines(name, lines):
    for number, line in enumerate(lines, 1):
        if "\t" in line:
            yield number, "a tab; indent with spaces"
        if len(line) > MAX_COLUMNS:
            yield number, f"{len(line)} columns, at most {MAX_COLUMNS}"
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        if LEFTOVER.search(line):
            yield number, "a note to oneself; file an issue instead"
    limit = MAX_KERNEL_LINES if re.match(r"inference/kernels\w*\.c$", name) else MAX_LINES
    if len(lines) > limit:
        yield limit + 1, f"{len(lines)} lines, at most {limit}"


def check_functions(name, lines):
    """Relies on the tree's .clang-format: a body is between a { and a } in the first column."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            length = number - start - 1
            head = " ".join(lines[max(0, start - 6):start - 1])
            found = re.findall(r"(\w+)\(", re.split(r"[;}]", head)[-1])
            function = found[0] if found else "?"
            if length > MAX_FUNCTION_LINES:
                yield start, f"{function} has {length} lines, at most {MAX_FUNCTION_LINES}"
            start = None


def check_c(name, text):
    lines = text.splitlines()
    room = name.split("/")[0]
    if not text.startswith("/*"):
        yield 1, "must open with a comment: what it owns and refuses, its threads, why"
    for number, line in enumerate(lines, 1):
        if line == " */":
            break
        if JOINED.match(line):
            yield number, "fields of the head stand in one line: begin a line with each"
    yield from check_includes(name, lines)
    code = without_comments(text).splitlines()
    yield from check_functions(name, code)
    if room == "worker":
        yield from check_brokers(name, text)
    if room in ROOMS and name != "worker/main.c":
        for number, line in enumerate(code, 1):
            if EXITS.search(line):
                yield number, "only worker/main.c may exit"


def pkg_config_flags():
    modules = list(MODULES)
    for name in ("msgpack-c", "msgpack"):
        if subprocess.run(["pkg-config", "--exists", name], check=False).returncode == 0:
            modules.append(name)
            break
    found = subprocess.run(["pkg-config", "--cflags", *modules], check=True, text=True,
                           capture_output=True)
    return found.stdout.split()


def compile_header(folder, name, flags):
    """Twice, so that a missing guard shows."""
    source = f'#include "{name}"\n#include "{name}"\n'
    run = subprocess.run(["gcc", "-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
                          "-I.", *flags, "-x", "c", "-"], cwd=folder, input=source, text=True,
                         capture_output=True, check=False)
    if run.returncode:
        first = next((x for x in run.stderr.splitlines() if "error:" in x), run.stderr)
        yield 1, f"does not compile alone: {first.strip()}"


def sources(folder):
    for room in (*ROOMS, "tests", "scripts"):
        for path in sorted((folder / room).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not path.is_file() or "__pycache__" in name or name.startswith("tests/data/"):
                continue
            if path.suffix in (".c", ".h", ".py", ".sh") or not path.suffix:
                yield name, path.read_text(encoding="utf-8")


def check_readme(room, text):
    """A room's page names what the room may include, no more and no less."""
    match = re.search(r"^May include: (.*?)\.\n", text, re.M | re.S)
    named = set(re.findall(r"`([^`]+)`", match[1])) if match else None
    if named != MAY_INCLUDE[room]:
        yield f"{room}/README.md: 'May include:' must name {sorted(MAY_INCLUDE[room])}"


def names_of(text):
    """What a room's table says that it has, as one pattern; NAME and * stand for any word."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    words = [word for cell in cells for word in re.findall(r"`([\w*.]+)`", cell)]
    return [re.sub(r"\\\*|NAME", r"\\w*", re.escape(re.sub(r"\.[ch]$", "", w))) for w in words]


def check_files_of_room(room, text, files):
    """A room's page names all its files, and none that there is not."""
    stems = {Path(f).stem for f in files if f.endswith((".c", ".h"))}
    others = {Path(f).name for f in files if not f.endswith((".c", ".h"))}
    named = names_of(text)
    own = {stem for stem in stems if not stem.endswith("_internal") and stem != Path(room).name}
    for stem in sorted(own):
        if not any(re.fullmatch(name, stem) for name in named):
            yield f"{room}/README.md: the table has no row with {stem}"
    for name in named:
        if not any(re.fullmatch(name, stem) for stem in stems | others):
            yield f"{room}/README.md: there is no {name} here"


def check_readmes(folder):
    for room in MAY_INCLUDE:
        page = folder / room / "README.md"
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            yield from check_readme(room, text)
            yield from check_files_of_room(
                room, text, [path.name for path in sorted((folder / room).iterdir())])
        elif room != "worker": # main.c alone
            yield f"{room}/ has no README.md: a page on what it owns and its control flow"


def check(folder):
    """All problems as "name:line: sentence", and how many files were looked at."""
    problems, headers, n_files, of_rooms, headers_of_rooms = [], [], 0, {}, {}
    for name, text in sources(folder):
        n_files += 1
        if name.endswith(".c") and name.split("/")[0] in ROOMS:
            of_rooms[name] = re.sub(r"^ *# *include.*", "", without_comments(text), flags=re.M)
        if name.endswith(".h") and name.split("/")[0] in ROOMS:
            headers_of_rooms[name] = without_comments(text)
        found = list(check_lines(name, text.splitlines()))
        if name.endswith((".c", ".h")):
            found += check_c(name, text)
        if name.endswith(".h") and not TEMPLATE.match(name):
            headers.append(name)
        problems += [f"{name}:{number}: {what}" for number, what in found]
    edges = uses(of_rooms)
    problems += check_circles(edges)
    problems += check_calls(of_rooms, headers_of_rooms, edges)
    flags = pkg_config_flags()
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda name: list(compile_header(folder, name, flags)), headers)
        for name, found in zip(headers, results):
            problems += [f"{name}:{number}: {what}" for number, what in found]
    return problems, n_files


HEAD = "/* head */\n"
BODY = "    x++;\n"
# File, its text, a piece of the complaint that must come; None: there must be none.
SELF_TEST = [
    ("inference/ok.h", HEAD + "#ifndef OK_H\n#define OK_H\n#include <stddef.h>\n#endif\n", None),
    ("worker/pipeline/ok.c", HEAD + '#include "inference/embed.h"\n#include <uv.h>\n', None),
    ("worker/codec/codec_ok.c", HEAD + "#include <msgpack.h>\n", None),
    ("worker/main.c", HEAD + "int main(void)\n{\n    exit(1);\n}\n", None),
    ("worker/head.c", "/*\n * Owns:    a\n * Threads: b\n */\n/* Why: c */\n", None),
    ("worker/joined.c", "/*\n * Owns:    a. Threads: b\n */\n", "fields of the head"),
    ("worker/words.c", HEAD + '/* exit() */\nconst char *s = "abort()";\n', None),
    ("inference/kernels_long.c", HEAD * 800, None),
    ("tests/any.c", HEAD + "#include <hiredis/hiredis.h>\n", None),
    ("inference/a.c", HEAD + "#include <uv.h>\n", "a.c must not include uv.h"),
    ("inference/b.c", HEAD + '#include "connectors/connector.h"\n', "must not include connectors"),
    ("inference/c.c", HEAD + '#include "worker/pipeline/pool.h"\n', "must not include worker"),
    ("worker/codec/up.c", HEAD + '#include "worker/pipeline/batch.h"\n',
     "worker/codec/ must not include worker/pipeline/batch.h"),
    ("worker/pipeline/up.c", HEAD + '#include "worker/telemetry/metrics.h"\n',
     "worker/pipeline/ must not include worker/telemetry/metrics.h"),
    ("worker/codec/prototype.c", HEAD + "void round_top_caller(void)\n{\n    metrics_sum(1);\n}\n",
     "worker/codec/ must not use metrics_sum of worker/telemetry/sum.c"),
    ("worker/telemetry/sum.c", HEAD + "int metrics_sum(int x)\n{\n    return x;\n}\n", None),
    ("worker/http/address.c", HEAD + '#include "worker/config/address.h"\n', None),
    ("worker/http/up.c", HEAD + '#include "worker/telemetry/log.h"\n',
     "worker/http/ must not include worker/telemetry/log.h"),
    ("worker/telemetry/options.c", HEAD + '#include "worker/config/options.h"\n',
     "must not include worker/config/options.h"),
    ("worker/serve/up.c", HEAD + '#include "worker/telemetry/metrics.h"\n',
     "worker/serve/ must not include worker/telemetry/metrics.h"),
    ("worker/commands/any.c", HEAD + '#include "worker/index/search.h"\n', None),
    ("worker/commands/broker.c", HEAD + '#include "connectors/file/lines.h"\n',
     "must not include connectors/file/lines.h"),
    ("worker/commands/name.c", HEAD + 'char s[] = "redis.stream";\n', "a broker by name: redis"),
    ("worker/commands/identifier.c", HEAD + "void set_kafka(void);\n", "a broker by name: kafka"),
    ("worker/commands/comment.c", HEAD + "/* as Redis\n and Kafka do */\nint n_natsy;\n", None),
    ("worker/config/options.c",
     HEAD + '#define DEFAULT_CONNECTOR "redis"\nconst char *s = "redis";\n', "a broker by name"),
    ("worker/attic/a.c", HEAD, "worker/attic/ is not a room"),
    ("worker/codec/round_a.c", HEAD + "int round_a(int x)\n{\n    return round_b(x);\n}\n",
     "a circle of 2 files: worker/codec/round_a.c -> worker/codec/round_b.c (round_b)"),
    ("worker/codec/round_b.c", HEAD + "int round_b(int x)\n{\n    return round_c[x](x);\n}\n"
     "int round_top(void)\n{\n    return round_a(1);\n}\n", None),
    ("worker/codec/round_c.c", HEAD + "int (*const round_c[])(int x) = {0};\n"
     "const struct round_b round_d = {0};\n", None),
    ("connectors/kafka/a.c", HEAD + '#include "connectors/redis/redis.h"\n',
     "must not include connectors/redis/redis.h"),
    ("connectors/kafka/b.c", HEAD + "#include <hiredis/hiredis.h>\n", "must not include hiredis"),
    ("connectors/contract.c", HEAD + '#include "connectors/kafka/kafka.h"\n',
     "must not include connectors/kafka/kafka.h"),
    ("connectors/a.c", HEAD + '#include "worker/pipeline/pool.h"\n', "must not include worker"),
    ("connectors/b.c", HEAD + '#include "inference/embed.h"\n', "must not include inference"),
    ("connectors/c.c", HEAD + "#include <msgpack.h>\n", "must not include msgpack.h"),
    ("worker/http.c", HEAD + "#include <microhttpd.h>\n", "must not include microhttpd.h"),
    ("worker/a.c", HEAD + '#include "inference/gguf.h"\n', "must not include inference/gguf.h"),
    ("inference/kernels_ok.c", HEAD + '#include "inference/kernels_body.h"\n', None),
    ("inference/kernels_body.h", HEAD + "#error\n", None),
    ("inference/kernels_tiles.h", HEAD + "#error\n", None),
    ("inference/d.c", HEAD + '#include "inference/kernels_body.h"\n', "for kernel files only"),
    ("worker/b.c", HEAD + "#include <hiredis/async.h>\n", "must not include hiredis"),
    ("connectors/d.c", HEAD + "#include <zlib.h>\n", "must not include zlib.h"),
    ("worker/c.c", HEAD + "#include <librdkafka/rdkafka.h>\n", "must not include librdkafka"),
    ("worker/codec/codec_d.c", HEAD + "#include <jansson.h>\n", "must not include jansson.h"),
    ("worker/e.c", HEAD + "#include <yaml.h>\n", "must not include yaml.h"),
    ("worker/r.c", HEAD + "#include <lmdb.h>\n", "must not include lmdb.h"),
    ("worker/f.c", HEAD + "#include <immintrin.h>\n", "must not include immintrin.h"),
    ("worker/d.c", HEAD + "#include <curl/curl.h>\n", "curl/curl.h is of no library"),
    ("worker/g.c", HEAD + '#include "g.h"\n', "included as room/name.h"),
    ("worker/h.c", HEAD + "void h(void)\n{\n    exit(1);\n}\n", "only worker/main.c may exit"),
    ("worker/i.c", HEAD + "void i(int x,\n       int y)\n{\n" + BODY * 61 + "}\n",
     "i has 61 lines"),
    ("worker/j.c", HEAD * 601, "601 lines, at most 600"),
    ("inference/kernels_a.c", HEAD * 801, "801 lines, at most 800"),
    ("worker/k.c", HEAD + "\tint x;\n", "a tab"),
    ("worker/l.c", HEAD + "/* " + "x" * 98 + "\n*/\n", "101 columns"),
    ("worker/m.c", HEAD + "// TO" "DO later\n", "note to oneself"),
    ("worker/n.c", HEAD + "int x; \n", "white space"),
    ("worker/o.c", "int x;\n", "must open with a comment"),
    ("worker/p.h", HEAD + "size_t p(void);\n", "does not compile alone"),
    ("worker/q.h", HEAD + "struct q {\n    int x;\n};\n", "does not compile alone"),
]


def self_test():
    failures = []
    folder = Path(tempfile.mkdtemp(prefix="embedmill-layers-"))
    try:
        for name, text, _ in SELF_TEST:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        problems, n_files = check(folder)
    finally:
        shutil.rmtree(folder)
    if n_files != len(SELF_TEST):
        failures.append(f"{n_files} of {len(SELF_TEST)} files were looked at")
    page = "# x\n\nMay include: `connectors`,\n`inference/embed.h`.\n"
    if list(check_readme("worker/codec", page)):
        failures.append("a true README.md is refused")
    if not list(check_readme("connectors/kafka", page)) or not list(check_readme("inference", "")):
        failures.append("a README.md that is wrong passes")
    table = "| files | own |\n|---|---|\n| `a_*`, `NAME_b`, `c.h`, `page.html` | x |\n"
    here = ["a_x.c", "y_b.c", "c.h", "page.html", "codec.h", "a_internal.h", "README.md"]
    if list(check_files_of_room("worker/codec", table, here)):
        failures.append("a room whose page names all its files is refused")
    if len(list(check_files_of_room("worker/codec", table, here[1:] + ["d.c"]))) != 1 or \
            len(list(check_files_of_room("worker/codec", table, here[:2] + here[3:]))) != 1:
        failures.append("a room whose page names other files passes")
    for name, _, wanted in SELF_TEST:
        of_file = [p for p in problems if p.startswith(name + ":")]
        if wanted is None and of_file:
            failures.append(f"wrongly refused: {of_file[0]}")
        elif wanted is not None and (len(of_file) != 1 or wanted not in of_file[0]):
            failures.append(f"{name}: expected one complaint with '{wanted}', got {of_file}")
    return failures


def main():
    failures = self_test()
    for failure in failures:
        print(f"self-test: {failure}")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent.parent)
    problems, n_files = check(folder)
    problems += check_readmes(folder)
    for problem in problems:
        print(problem)
    if failures or problems or n_files == 0:
        sys.exit(f"{len(failures) + len(problems)} problems in {n_files} files")
    print(f"{n_files} files checked, {len(SELF_TEST)} self-tests")


if __name__ == "__main__":
    main()
