"""Publishes or consumes over AMQP 1.0 with Qpid Proton.

    amqp10.py publish QUEUE          the messages on standard input, each accepted
    amqp10.py consume QUEUE NUMBER   so many messages to standard output, each accepted
    amqp10.py others QUEUE           messages in forms that AMQP 0-9-1 does not have, each accepted
    amqp10.py unreadable QUEUE       one message that RabbitMQ cannot convert to AMQP 0-9-1, accepted
    amqp10.py ask QUEUE REPLY-QUEUE  requests with ids of every type; which answers had theirs, to standard output

The broker's URL is in BROKER_URL: an argument would be there for everybody to read.

What goes where is what docs/crossing.md says for AMQP 1.0 on RabbitMQ.
"""

import json
import os
import sys
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import neutral
from proton import Message, symbol, timestamp, ulong
from proton.utils import BlockingConnection

# What RabbitMQ adds for its own.
BOOKKEEPING = ("x-exchange", "x-routing-key")


def connect():
    url = urlsplit(os.environ["BROKER_URL"])
    host = unquote(url.path[1:])
    return BlockingConnection(
        f"amqp://{url.hostname}:{url.port or 5672}",
        timeout=30,
        user=unquote(url.username or "guest"),
        password=unquote(url.password or "guest"),
        virtual_host=f"vhost:{host}" if host else None,
        allowed_mechs="PLAIN",
    )


def address(queue):
    return "/queues/" + quote(queue, safe="")


def queue_of(address):
    return unquote(address.removeprefix("/queues/")) if address.startswith("/queues/") else address


def to_wire(message):
    properties = message["properties"]
    wire = Message(body=bytes.fromhex(message["body"]), inferred=True, durable=properties["persistent"])
    annotations = {}
    application = {}
    for name, value in message["headers"].items():
        value = neutral.to_python({"table": {name: value}}, lambda s: timestamp(s * 1000))[name]
        if name.startswith("x-") and value is not None:
            annotations[symbol(name)] = value
        elif isinstance(value, (list, dict)):
            annotations[symbol(f"x-enoki-header-{name}")] = value
        else:
            application[name] = value
    if "kind" in properties:
        annotations[symbol("x-basic-type")] = properties["kind"]
    wire.annotations = annotations or None
    wire.properties = application or None
    for ours, theirs in (
        ("content_type", "content_type"),
        ("content_encoding", "content_encoding"),
        ("message_id", "id"),
        ("correlation_id", "correlation_id"),
        ("reply_to", "reply_to"),
        ("app_id", "group_id"),
        ("priority", "priority"),
        ("timestamp", "creation_time"),
    ):
        if ours in properties:
            content = properties[ours]
            setattr(wire, theirs, typed(content) if theirs in ("id", "correlation_id") else content)
    if "user_id" in properties:
        wire.user_id = properties["user_id"].encode()
    if "expiration" in properties:
        wire.ttl = properties["expiration"] / 1000
    return wire


def from_wire(wire):
    properties = {"persistent": wire.durable}
    headers = {}
    for name, value in (wire.annotations or {}).items():
        if name == "x-basic-type":
            properties["kind"] = value
        elif name not in BOOKKEEPING:
            headers[str(name).removeprefix("x-enoki-header-")] = neutral.from_python(value, seconds)
    for name, value in (wire.properties or {}).items():
        headers[name] = neutral.from_python(value, seconds)
    for ours, content in (
        ("content_type", media(wire.content_type)),
        ("content_encoding", media(wire.content_encoding)),
        ("message_id", identifier(wire.id)),
        ("correlation_id", identifier(wire.correlation_id)),
        ("reply_to", wire.reply_to and queue_of(wire.reply_to)),
        ("app_id", wire.group_id),
        ("user_id", bytes(wire.user_id).decode()),
        ("timestamp", int(wire.creation_time)),
        ("expiration", round(wire.ttl * 1000)),
    ):
        if content:  # Proton does not tell an empty one from none
            properties[ours] = content
    if wire.priority != Message.DEFAULT_PRIORITY:  # nor this one
        properties["priority"] = wire.priority
    return {"body": body(wire.body).hex(), "properties": properties, "headers": headers}


def typed(text):
    """The id that a text stands for, as docs/crossing.md has it."""
    if text.startswith("urn:uuid:") and len(text) == 45:
        return UUID(text)
    if text.startswith("AMQP_ULONG:"):
        return ulong(int(text.removeprefix("AMQP_ULONG:")))
    if text.startswith("AMQP_BINARY:"):
        return bytes.fromhex(text.removeprefix("AMQP_BINARY:"))
    return text


def identifier(value):
    if isinstance(value, UUID):
        return f"urn:uuid:{value}"
    if isinstance(value, int):
        return f"AMQP_ULONG:{int(value)}"
    if isinstance(value, (bytes, memoryview)):
        return f"AMQP_BINARY:{bytes(value).hex().upper()}"
    return value and str(value)


def media(value):
    return None if value == "None" else str(value)  # Proton makes a symbol even of none


def body(value):
    return b"" if value is None else bytes(value)


def seconds(value):
    return value // 1000 if isinstance(value, timestamp) else None


def publish(connection, queue):
    sender = connection.create_sender(address(queue))
    for message in neutral.read():
        sender.send(to_wire(message), timeout=30)  # raises unless it was accepted


def consume(connection, queue, number):
    receiver = connection.create_receiver(address(queue), credit=number)
    for _ in range(number):
        neutral.write(from_wire(receiver.receive(timeout=30)))
        receiver.accept()


def others(connection, queue):
    """tests/crossing/others.rs has what is to come of each."""
    sender = connection.create_sender(address(queue))
    data = {"body": b"x", "inferred": True}
    grouped = {"group_id": "g", "group_sequence": 4, "reply_to_group_id": "r"}
    for message in (
        Message(body="text", annotations={symbol("x-basic-type"): "mine"}),
        Message(body=b"\xff\x00"),
        Message(body={"a": 1}),
        Message(body=[1, "two"], inferred=True),
        Message(body=42),
        Message(subject="placed", expiry_time=1900000000, **grouped, **data),
        Message(creation_time=-5, properties={"at": timestamp(-5500)}, **data),
        Message(id=UUID(int=7), correlation_id=ulong(2**64 - 1), **data),
        Message(id=b"\xff\x00", correlation_id=b"ab", **data),
        Message(id="i" * 300, correlation_id=b"\x01" * 200, **data),
    ):
        sender.send(message, timeout=30)


def unreadable(connection, queue):
    message = Message(body=b"7", inferred=True, content_type="application/json", properties={"id": UUID(int=7)})
    connection.create_sender(address(queue)).send(message, timeout=30)


def kind_of(value):
    """An id and its type: Proton reads a ulong as an int, and bytes as a view of them."""
    if isinstance(value, (bytes, memoryview)):
        return bytes, bytes(value)
    return (int, int(value)) if isinstance(value, int) else (type(value), value)


def ask(connection, queue, answers):
    receiver = connection.create_receiver(address(answers), credit=1)
    sender = connection.create_sender(address(queue))
    for name, asked in (
        ("uuid", UUID(int=7)),
        ("ulong", ulong(99)),
        ("binary", b"\xff\x00\xfe"),
        ("binary text", b"ab"),
        ("string", "plain"),
        ("string like a uuid", f"urn:uuid:{UUID(int=7)}"),
    ):
        sender.send(Message(body=b"ping", inferred=True, id=asked, reply_to=address(answers)), timeout=30)
        answer = receiver.receive(timeout=30)  # bytes of its id are only there as long as it is
        print(json.dumps([name, kind_of(answer.correlation_id) == kind_of(asked)]), flush=True)
        receiver.accept()


def main(verb, queue, argument="0"):
    connection = connect()
    try:
        if verb == "publish":
            publish(connection, queue)
        elif verb == "others":
            others(connection, queue)
        elif verb == "unreadable":
            unreadable(connection, queue)
        elif verb == "ask":
            ask(connection, queue, argument)
        else:
            consume(connection, queue, int(argument))
    finally:
        connection.close()


main(*sys.argv[1:])
