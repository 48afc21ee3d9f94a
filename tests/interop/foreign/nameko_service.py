"""A service of nameko, for the tests to talk to: it publishes, dispatches, consumes and handles events.

    nameko_service.py NAME PREFIX

NAME is the service's, and the beginning of the names of its exchanges and queues; PREFIX that of its context headers,
`nameko` by default in nameko. The broker's URL is in BROKER_URL: an argument would be there for everybody to read.

It says {"ready": true} as soon as it consumes. Each line on standard input then runs one of its methods, as a call
from outside would, and the end of the input stops it:

    {"do": "order" or "announce", "body": any JSON, "headers": table, "context": table}

It says what it did and what it got, in lines with what the worker knows and what was on the wire:

    {"is": method, "body": JSON, "context": table, "call_ids": [text], "headers": table, "properties": {name: value}}

Tables are those of neutral.py.
"""

import eventlet

eventlet.monkey_patch()  # before anything else is imported, as `nameko run` does it

import json
import os
import sys
from datetime import datetime, timezone
from functools import partial

import neutral
from eventlet import tpool
from kombu import Exchange, Queue
from nameko.containers import ServiceContainer
from nameko.events import EventDispatcher, EventHandler
from nameko.extensions import DependencyProvider
from nameko.messaging import Consumer, Publisher
from nameko.testing.services import dummy, entrypoint_hook

EVENT = "order.announced"


class Call(DependencyProvider):
    """What a worker knows of its call."""

    def get_dependency(self, worker_ctx):
        return worker_ctx


def with_its_message(kind):
    """A consumer whose method gets the message, too, and not only the body."""

    class WithItsMessage(kind):
        def handle_message(self, body, message):
            super().handle_message((body, message), message)

    return WithItsMessage


def service_of(its_name, prefix):
    def prefixed(kind):
        return type(kind.__name__, (kind,), {"header_prefix": prefix})

    publisher = prefixed(Publisher)
    consume = prefixed(with_its_message(Consumer)).decorator
    handle_event = prefixed(with_its_message(EventHandler)).decorator
    receipts = Exchange(f"{its_name}.receipts", type="topic")

    class Service:
        name = its_name
        call = Call()
        publish = publisher(exchange=Exchange(f"{its_name}.orders", type="topic"))
        dispatch = prefixed(EventDispatcher)()

        @dummy
        def order(self, body, headers):
            self.publish(body, routing_key="order.placed", headers=headers, mandatory=True)
            self.tell("order", body)

        @dummy
        def announce(self, body, headers):
            self.dispatch(EVENT, body)
            self.tell("announce", body)

        @consume(Queue(f"{its_name}.archive", exchange=receipts, routing_key="receipt.*"))
        def keep(self, arrived):
            self.tell("keep", *arrived)

        @handle_event(f"{its_name}.kitchen", EVENT)
        def hear(self, arrived):
            self.tell("hear", *arrived)

        def tell(self, method, body, message=None):
            say(
                {
                    "is": method,
                    "body": body,
                    "context": table(self.call.data),
                    "call_ids": self.call.call_id_stack,
                    "headers": table(message.headers if message else {}),
                    "properties": properties(message) if message else {},
                }
            )

    return Service


def properties(message):
    wanted = ("content_type", "content_encoding", "delivery_mode", "message_id")
    return {name: message.properties[name] for name in wanted if name in message.properties}


def say(line):
    print(json.dumps(line), flush=True)


def table(values):
    return neutral.from_python(values, seconds)["table"]


def seconds(value):
    return int(value.replace(tzinfo=timezone.utc).timestamp()) if isinstance(value, datetime) else None


def from_table(values):
    return neutral.to_python({"table": values}, lambda s: datetime.fromtimestamp(s, timezone.utc))


def main(name, prefix):
    uri = os.environ["BROKER_URL"].replace("amqp091", "pyamqp", 1)
    container = ServiceContainer(service_of(name, prefix), config={"AMQP_URI": uri})
    container.start()  # returns when it consumes
    say({"ready": True})
    # In a thread of its own: to wait for a line there keeps no worker waiting.
    for line in iter(partial(tpool.execute, sys.stdin.readline), ""):
        line = json.loads(line)
        with entrypoint_hook(container, line["do"], from_table(line["context"])) as run:
            run(line["body"], from_table(line["headers"]))
    container.stop()


main(*sys.argv[1:])
