"""A command of the program, and what it logged."""
import json
import subprocess


def run_logged(command, code=0):
    """(what became of it, the last event of each message). It logs JSON, and ends so."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, capture_output=True,
                          timeout=300, check=False)
    assert done.returncode == code, (command, done.returncode, done.stderr)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return done, {event["msg"]: event for event in events}
