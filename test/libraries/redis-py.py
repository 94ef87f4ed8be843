"""redis-py as applications use it: what it does and how it is answered, one line of JSON each.

    redis-py.py PORT NAME

NAME stands before all keys. A line "stop" on standard input ends the producers, its end ends all. Each
user is a thread with a client, and so a connection, of its own.
"""

import json
import random
import sys
import threading
import time

import redis

PORT, NAME = int(sys.argv[1]), sys.argv[2]
PACE_S = 0.005
PIPELINED = 10
FIXED = {f"{NAME}:fixed:{i}" for i in range(1000)}

producing = threading.Event()
producing.set()
printing = threading.Lock()


def say(step, **fields):
    with printing:
        sys.stdout.write(json.dumps({"step": step, **fields}) + "\n")
        sys.stdout.flush()


class Watched(redis.Connection):
    """A pool replaces a lost connection without a word: this one says it."""

    def on_connect(self):
        if getattr(self, "was_connected", False):
            say("incident", text="connected again")
        self.was_connected = True
        super().on_connect()


def client():
    pool = redis.ConnectionPool(
        connection_class=Watched, host="127.0.0.1", port=PORT, max_connections=1, decode_responses=True
    )
    return redis.Redis(connection_pool=pool)


def loop(who, step, goes_on):
    while goes_on():
        try:
            step()
        except redis.ResponseError as error:
            say("error", who=who, text=str(error))
        except Exception as error:  # Anything else is a connection that was lost.
            say("incident", text=f"{who}: {error!r}")
            return
        time.sleep(2 * PACE_S * random.random())


def settled(step, who, call, **fields):
    """The result of a call, said to be acknowledged or uncertain; None when it is an error."""
    try:
        result = call()
    except redis.ResponseError as error:
        say("error", who=who, text=str(error))
        if str(error).startswith("UNCERTAIN "):
            say(step, outcome="uncertain", **fields)
        return None
    say(step, outcome="acked", **fields)
    return result


def pipeliner():
    """Increments in one pipeline, each with a read behind it."""
    r = client()
    keys = [f"{NAME}:n:{i}" for i in range(PIPELINED)]

    def step():
        pipe = r.pipeline(transaction=False)
        for key in keys:
            pipe.incr(key).get(key)
        results = pipe.execute(raise_on_error=False)
        for i, key in enumerate(keys):
            value, read = results[2 * i], results[2 * i + 1]
            if isinstance(value, Exception):
                say("error", who="INCR", text=str(value))
                if str(value).startswith("UNCERTAIN "):
                    say("counter", key=key, outcome="uncertain")
                continue
            say("counter", key=key, outcome="acked")
            if isinstance(read, Exception):
                say("error", who="GET", text=str(read))
            elif int(read) < value:
                say("missed", text=f"{key}: {read} after {value}")

    return step


def transaction():
    r = client()
    key = f"{NAME}:watched"

    def attempt():
        with r.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(key)
                    value = int(pipe.get(key) or 0) + 1
                    pipe.multi()
                    pipe.set(key, value)
                    pipe.get(key)
                    if pipe.execute() != [True, str(value)]:
                        say("fault", text="EXEC answered something else")
                    return
                except redis.WatchError:
                    say("aborted")

    return lambda: settled("transaction", "transaction", attempt, key=key)


def script():
    add_one = client().register_script("return redis.call('INCR', KEYS[1])")
    key = f"{NAME}:scripted"
    return lambda: settled("script", "script", lambda: add_one(keys=[key]), key=key)


def pusher():
    r = client()
    jobs = iter(range(1, sys.maxsize))

    def step():
        job = str(next(jobs))
        settled("push", "push", lambda: r.rpush(f"{NAME}:jobs", job), job=job)

    return step


def popper():
    r = client()

    def step():
        popped = r.blpop(f"{NAME}:jobs", timeout=1)
        if popped is not None:
            say("pop", job=popped[1])

    return step


def publisher():
    r = client()
    numbers = iter(range(1, sys.maxsize))

    def step():
        number = next(numbers)
        settled("published", "publish", lambda: r.publish(f"{NAME}:numbers", number), number=number)

    return step


def subscriber():
    pubsub = client().pubsub()
    pubsub.subscribe(f"{NAME}:numbers")
    confirmed = []

    def step():
        message = pubsub.get_message(timeout=1)
        if message is None:
            return
        if message["type"] == "message":
            say("message", number=int(message["data"]))
            return
        confirmed.append(message)
        if len(confirmed) > 1:
            say("fault", text="a second confirmation")

    return step


def scanner():
    r = client()

    def step():
        seen = set(r.scan_iter(match=f"{NAME}:fixed:*", count=50))
        say("scan", missed=len(FIXED - seen))

    return step


def start(make, goes_on):
    thread = threading.Thread(target=loop, args=(make.__name__, make(), goes_on), daemon=True)
    thread.start()
    return thread


client().mset({key: "x" for key in FIXED})
for consumer in (subscriber, popper):
    start(consumer, lambda: True)
makers = (pipeliner, pipeliner, transaction, transaction, script, pusher, publisher, scanner)
producers = [start(make, producing.is_set) for make in makers]
for line in sys.stdin:
    if line.strip() == "stop":
        producing.clear()
        for thread in producers:
            thread.join()
        say("stopped")
