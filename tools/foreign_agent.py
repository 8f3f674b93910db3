#!/usr/bin/env python3
"""A satellite's agent written from the contract alone, on another language's WebSocket library.

It holds the whole conversation of a satellite with a pod, as an agent in the field does:

  1. says something else than `authenticate` first, and with a wrong token, and is refused both times;
  2. authenticates, sends heartbeats, and for every assignment a result; asks for the secrets of each
     collector that declares some;
  3. brings its script packages to the desired hash: the manifest, each package, its hash checked;
  4. does as it is told: `config_updated`, `refresh_script_packages`, `shutdown`;
  5. while cut off keeps up to a hundred results and sends them when it is back, after pauses that
     double from one second to thirty, a quarter more or less;
  6. ends when it is refused after it had been let in: its token is void.

What happens is told on standard output, one JSON object a line, never with a value of a secret.
Needs Python 3.9 and `websockets` (tools/requirements-foreign-agent.txt); settings come from the
environment:

  AGENT_URL          ws://host:port/api/ws/satellite
  AGENT_CLIENT_ID    the satellite's id
  AGENT_TOKEN        its token
  AGENT_HEARTBEAT    seconds between heartbeats [default: 15]
  AGENT_FIRST_PAUSE  seconds before it comes back the first time [default: 1]

    PYTHONPATH=.tools/foreign_agent AGENT_URL=… AGENT_CLIENT_ID=… AGENT_TOKEN=… tools/foreign_agent.py
"""

import asyncio
import base64
import collections
import datetime
import hashlib
import json
import os
import random
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = os.environ["AGENT_URL"]
CLIENT_ID = os.environ["AGENT_CLIENT_ID"]
TOKEN = os.environ["AGENT_TOKEN"]
HEARTBEAT = float(os.environ.get("AGENT_HEARTBEAT", "15"))
FIRST_PAUSE = float(os.environ.get("AGENT_FIRST_PAUSE", "1"))
LONGEST_PAUSE = 30.0
BUFFERED_RESULTS = 100
# Script packages are larger than what the library takes unless told otherwise.
LARGEST_MESSAGE = 96 * 1024 * 1024

NOT_AUTHENTICATED = 4001
NORMAL = 1000


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def fail(why):
    tell("failed", why=why)
    sys.exit(1)


class Refused(Exception):
    """The core does not let this agent in."""


class Agent:
    def __init__(self):
        self.started = time.monotonic()
        self.assignments = []
        self.buffered = collections.deque(maxlen=BUFFERED_RESULTS)
        self.socket = None
        self.questions = 0

    async def live(self):
        """Comes back for ever, until the token is void."""
        failures = 0
        was_in = False
        while True:
            try:
                async with connect(URL, open_timeout=10, max_size=LARGEST_MESSAGE) as socket:
                    await self.authenticate(socket, TOKEN)
                    failures, was_in = 0, True
                    await self.hold(socket)
            except Refused as refused:
                tell("refused", reason=str(refused))
                if was_in:
                    return
            except (ConnectionClosed, OSError, TimeoutError) as error:
                tell("cut_off", how=type(error).__name__)
            self.socket = None
            # What is measured while cut off waits.
            self.check_everything()
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures) * random.uniform(0.75, 1.25)
            failures += 1
            await asyncio.sleep(pause)

    async def authenticate(self, socket, token):
        message = {"type": "authenticate", "clientId": CLIENT_ID, "token": token,
                   "capabilities": ["http", "script"]}
        await socket.send(json.dumps(message))
        answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
        if answer["type"] == "auth_failed":
            await socket.close(NOT_AUTHENTICATED)
            raise Refused(answer["reason"])
        if answer["type"] != "authenticated" or answer["satelliteId"] != CLIENT_ID:
            fail(f"expected authenticated, heard {answer}")
        self.socket = socket
        self.assignments = answer["assignments"]
        tell("authenticated", configs=[a["configId"] for a in self.assignments],
             hash=answer.get("scriptPackagesLockfileHash"))
        while self.buffered:
            await socket.send(json.dumps(self.buffered.popleft()))
        await self.begin(answer.get("scriptPackagesLockfileHash"))

    async def begin(self, lockfile_hash):
        await self.say({"type": "strategy_error", "strategyId": "http", "message": "once"})
        if lockfile_hash is not None:
            await self.fetch(lockfile_hash)
        self.check_everything()
        await self.flush()
        await self.ask_for_secrets()

    async def hold(self, socket):
        beats = asyncio.create_task(self.beat(socket))
        try:
            async for frame in socket:
                message = json.loads(frame)
                kind = message["type"]
                if kind == "shutdown":
                    tell("shutdown", reason=message["reason"])
                    await socket.close(NORMAL)
                    return
                handler = getattr(self, "on_" + kind, None)
                if handler is None:
                    fail(f"the core said what it never should: {message}")
                await handler(message)
            tell("cut_off", how="closed", code=socket.close_code)
        finally:
            beats.cancel()

    async def beat(self, socket):
        while True:
            await socket.send(json.dumps({
                "type": "heartbeat", "version": "0.5.0-foreign",
                "uptimeSeconds": time.monotonic() - self.started}))
            await asyncio.sleep(HEARTBEAT)

    async def say(self, message):
        await self.socket.send(json.dumps(message))

    def check_everything(self):
        for assignment in self.assignments:
            self.buffered.append({
                "type": "result", "configId": assignment["configId"],
                "systemId": assignment["systemId"], "status": "healthy", "latencyMs": 12.25,
                "result": {"metadata": {"while_cut_off": self.socket is None}},
                "executedAt": datetime.datetime.now(datetime.timezone.utc).isoformat()})

    async def flush(self):
        while self.buffered:
            await self.say(self.buffered.popleft())

    async def ask_for_secrets(self):
        for assignment in self.assignments:
            for collector in assignment.get("collectors", []):
                if "secretEnv" in collector["config"]:
                    self.questions += 1
                    await self.say({
                        "type": "request_run_secrets", "requestId": f"q{self.questions}",
                        "configId": assignment["configId"], "collectorId": collector["id"],
                        "runId": f"run-{self.questions}"})

    async def fetch(self, lockfile_hash):
        await self.say({"type": "script_package_sync_state", "lockfileHash": None,
                        "status": "syncing"})
        await self.say({"type": "request_script_package_manifest", "lockfileHash": lockfile_hash})

    async def on_config_updated(self, message):
        self.assignments = message["assignments"]
        tell("config_updated", configs=[a["configId"] for a in self.assignments])
        self.check_everything()
        await self.flush()

    async def on_refresh_script_packages(self, message):
        tell("refresh_script_packages", hash=message["lockfileHash"])
        await self.fetch(message["lockfileHash"])

    async def on_script_package_manifest(self, message):
        tell("manifest", hash=message["lockfileHash"],
             names=[entry["name"] for entry in message["entries"]])
        for entry in message["entries"]:
            await self.say({"type": "request_script_package_blob",
                            "integrity": entry["integrity"]})

    async def on_script_package_blob(self, message):
        integrity, data = message["integrity"], message["data"]
        if data is None:
            tell("blob", integrity=integrity, intact=None)
            return
        digest = hashlib.sha512(base64.b64decode(data)).digest()
        intact = "sha512-" + base64.b64encode(digest).decode() == integrity
        tell("blob", integrity=integrity, intact=intact)
        await self.say({"type": "script_package_sync_state", "lockfileHash": integrity,
                        "status": "ready" if intact else "error"})

    async def on_run_secrets(self, message):
        # A value goes into the environment of a run and nowhere else: here only its hash is told.
        env = message.get("env")
        digests = env and {name: hashlib.sha256(value.encode()).hexdigest()
                           for name, value in env.items()}
        tell("run_secrets", request=message["requestId"], digests=digests,
             error=message.get("error"))


async def expect_refusal(first, reason):
    """Says something first that is refused in these words, after which the core closes."""
    async with connect(URL, open_timeout=10, max_size=LARGEST_MESSAGE) as socket:
        await socket.send(json.dumps(first))
        answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
        if answer != {"type": "auth_failed", "reason": reason}:
            fail(f"expected a refusal, heard {answer}")
        try:
            extra = await asyncio.wait_for(socket.recv(), 10)
            fail(f"expected a goodbye, heard {extra}")
        except ConnectionClosed:
            tell("refused_first", reason=reason, code=socket.close_code)


async def main():
    await expect_refusal({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1},
                         "Must authenticate first")
    await expect_refusal({"type": "authenticate", "clientId": CLIENT_ID, "token": "csat_wrong"},
                         "Invalid client ID or token")
    await Agent().live()
    tell("done")


asyncio.run(main())
