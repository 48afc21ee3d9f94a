"""Publishes or consumes over AMQP 0-9-1 with py-amqp.

    amqp091.py publish QUEUE          the messages on standard input, each confirmed
    amqp091.py consume QUEUE NUMBER   so many messages to standard output, each acknowledged
    amqp091.py others QUEUE           messages with what nothing here publishes, each confirmed
    amqp091.py unreadable QUEUE       one message that RabbitMQ cannot convert to AMQP 1.0, confirmed

The broker's URL is in BROKER_URL: an argument would be there for everybody to read.
"""

import os
import sys
from datetime import datetime, timezone
from decimal import Decimal
from urllib.parse import unquote, urlsplit

import amqp
import neutral

TEXTS = ("content_type", "content_encoding", "message_id", "correlation_id", "reply_to", "app_id", "user_id")


def connect():
    url = urlsplit(os.environ["BROKER_URL"])
    return amqp.Connection(
        host=f"{url.hostname}:{url.port or 5672}",
        userid=unquote(url.username or "guest"),
        password=unquote(url.password or "guest"),
        virtual_host=unquote(url.path[1:]) or "/",
        confirm_publish=True,
        connect_timeout=10,
        read_timeout=30,
        write_timeout=30,
    )


def to_wire(message):
    properties = message["properties"]
    wire = {name: properties[name] for name in TEXTS if name in properties}
    if "kind" in properties:
        wire["type"] = properties["kind"]
    if "timestamp" in properties:
        wire["timestamp"] = properties["timestamp"]
    if "expiration" in properties:
        wire["expiration"] = str(properties["expiration"])
    if "priority" in properties:
        wire["priority"] = properties["priority"]
    wire["delivery_mode"] = 2 if properties["persistent"] else 1
    if message["headers"]:
        headers = {"table": message["headers"]}
        wire["application_headers"] = neutral.to_python(headers, lambda s: datetime.fromtimestamp(s, timezone.utc))
    return amqp.Message(bytes.fromhex(message["body"]), **wire)


def from_wire(message):
    wire = message.properties
    properties = {name: wire[name] for name in TEXTS if name in wire}
    if "type" in wire:
        properties["kind"] = wire["type"]
    if "timestamp" in wire:
        properties["timestamp"] = wire["timestamp"]
    if "expiration" in wire:
        properties["expiration"] = int(wire["expiration"])
    if "priority" in wire:
        properties["priority"] = wire["priority"]
    properties["persistent"] = wire.get("delivery_mode") == 2
    headers = neutral.from_python(wire.get("application_headers", {}), seconds)["table"]
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    return {"body": body.hex(), "properties": properties, "headers": headers}


def seconds(value):
    return int(value.replace(tzinfo=timezone.utc).timestamp()) if isinstance(value, datetime) else None


def publish(channel, queue):
    for message in neutral.read():
        channel.basic_publish(to_wire(message), exchange="", routing_key=queue, mandatory=True, timeout=30)


def consume(connection, channel, queue, number):
    arrived = []
    channel.basic_qos(0, number, False)
    channel.basic_consume(queue, callback=arrived.append)
    while len(arrived) < number:
        connection.drain_events(timeout=30)
    for message in arrived:
        neutral.write(from_wire(message))
        channel.basic_ack(message.delivery_tag)


def others(channel, queue):
    """tests/crossing/others.rs has what is to come of each."""
    decimals = {"minus": Decimal("-1.5"), "plus": Decimal("19.99"), "least": Decimal(-(2**31))}
    for message in (
        amqp.Message(b"x", application_headers=decimals),
        amqp.Message(b"x", timestamp=2**63 + 5),
        amqp.Message(b"x", timestamp=2**64 - 5),
        amqp.Message(b"{}", type="amqp-1.0"),
    ):
        channel.basic_publish(message, exchange="", routing_key=queue, mandatory=True, timeout=30)


def unreadable(channel, queue):
    message = amqp.Message(b"7", content_type="application/json", application_headers={"price": Decimal("19.99")})
    channel.basic_publish(message, exchange="", routing_key=queue, mandatory=True, timeout=30)


def main(verb, queue, number="0"):
    with connect() as connection:
        channel = connection.channel()
        if verb == "publish":
            publish(channel, queue)
        elif verb == "others":
            others(channel, queue)
        elif verb == "unreadable":
            unreadable(channel, queue)
        else:
            consume(connection, channel, queue, int(number))


main(*sys.argv[1:])
