"""Runs the cases of a test: the functions case_NAME(bench) of its file, or those named in only.

--few among them: all but those that are marked as slow, which scripts/test-faults runs.
"""
import contextlib
import time
import traceback
from pathlib import Path

TAIL = 12 # lines of each log that a failed case shows


def find_cases(module):
    """{NAME: function} of the globals of a test."""
    return {name[5:]: case for name, case in module.items() if name.startswith("case_")}


def slow(case):
    """Marks a case that takes long and whose fault another one would show in most cases."""
    case.is_slow = True
    return case


def shared(bench, begin=None, end=None):
    """One bench for all cases: what run_cases takes as enter. begin(name) and end() around each."""
    @contextlib.contextmanager
    def enter(name):
        if begin:
            begin(name)
        try:
            yield bench
        finally:
            if end:
                end()
    return enter


def show_logs(bench, since):
    for path in sorted(Path(bench.folder).glob("log-*")):
        if path.stat().st_mtime >= since:
            print(f"---- {path.name}\n" +
                  "\n".join(path.read_text(errors="replace").splitlines()[-TAIL:]), flush=True)


def run_cases(cases, only, enter, where=""):
    """enter(NAME): a context manager, the bench of that case. The exit code: 1 when a case fails or
    none is run."""
    passed = failed = 0
    if "--few" in only:
        only = [name for name, case in cases.items() if not hasattr(case, "is_slow")]
    unknown = [name for name in only if name not in cases]
    if unknown:
        print(f"no such case: {' '.join(unknown)}; there are {' '.join(cases)}")
        return 1
    for name, case in cases.items():
        if only and name not in only:
            continue
        began, wall = time.monotonic(), time.time()
        with enter(name) as bench:
            try:
                case(bench)
                passed += 1
                how = "ok"
            except Exception: # whatever it is, the others are tried
                traceback.print_exc()
                show_logs(bench, wall)
                failed += 1
                how = "FAILED"
        print(f"{how:7} {time.monotonic() - began:5.1f} s  {name}{where}", flush=True)
    print(f"{passed} passed, {failed} failed{where}")
    return 1 if failed or not passed else 0
