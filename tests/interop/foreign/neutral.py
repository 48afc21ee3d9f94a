"""Messages in a form that belongs to no protocol: one JSON object for each line.

{"body": hex, "properties": {name: text, number or truth}, "headers": {name: value}}

A value is an object with one key, which is its type: null, bool, int, float, timestamp (whole seconds), string,
bytes (hex), list (of values) or table (of values by name).
"""

import json
import sys


def read():
    """The messages on standard input."""
    return [json.loads(line) for line in sys.stdin]


def write(message):
    """One message to standard output."""
    print(json.dumps(message), flush=True)


def to_python(value, timestamp):
    """A value as Python has it; `timestamp` makes a point in time as the client wants it."""
    ((kind, content),) = value.items()
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "timestamp":
        return timestamp(content)
    if kind == "list":
        return [to_python(item, timestamp) for item in content]
    if kind == "table":
        return {name: to_python(item, timestamp) for name, item in content.items()}
    return content  # the others are in JSON what they are in Python


def from_python(value, seconds):
    """The reverse: `seconds` says what a point in time is, and None to what is none."""
    time = seconds(value)
    if time is not None:
        return {"timestamp": time}
    if value is None:
        return {"null": None}
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": int(value)}
    if isinstance(value, float):
        return {"float": value}
    if isinstance(value, str):
        return {"string": str(value)}
    if isinstance(value, (bytes, memoryview)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"table": {str(name): from_python(item, seconds) for name, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [from_python(item, seconds) for item in value]}
    raise TypeError(f"no name for a {type(value).__name__}")
