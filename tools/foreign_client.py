#!/usr/bin/env python3
"""Asks over NATS, on another language's client and knowing only the contract.

Reads a list of questions from the first argument and prints one JSON object a line, in their order:

  {"subject": "groundstation.v1.satellites.list", "body": {"limit": 1}}
  {"subject": "$SRV.PING", "replies": 2}      gathers as many replies
  {"subject": "…", "raw": "{"}                a body that is no JSON
  {"subject": "…", "repeat": 100}             the same again and again

An answer is {"n", "subject", "tries", "answers": [{"headers", "body"}]}. A question that finds nobody,
or is not answered in time, is asked again: its pod may have gone.

Needs Python 3.9 and `nats-py` (tools/requirements-foreign-clients.txt).

    PYTHONPATH=.tools/foreign_clients NATS_URL=… tools/foreign_client.py '[{"subject": "$SRV.PING"}]'
"""

import asyncio
import json
import os
import sys

import nats
from nats.errors import NoRespondersError, TimeoutError

PATIENCE = 2.0
TRIES = 30


async def ask(client, subject, body, replies):
    """One request; `replies` answers of whoever replies."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, max_msgs=replies)
    try:
        await client.publish(subject, body, reply=inbox)
        answers = [await subscription.next_msg(timeout=PATIENCE) for _ in range(replies)]
    finally:
        await subscription.unsubscribe()
    if any((answer.headers or {}).get("Status") == "503" for answer in answers):
        raise NoRespondersError
    return answers


def shown(message):
    body = message.data.decode()
    return {"headers": message.headers or {}, "body": json.loads(body) if body else None}


async def main():
    client = await nats.connect(os.environ["NATS_URL"])
    n = 0
    for question in json.loads(sys.argv[1]):
        body = question["raw"] if "raw" in question else json.dumps(question.get("body", {}))
        for _ in range(question.get("repeat", 1)):
            for tries in range(1, TRIES + 1):
                try:
                    answers = await ask(
                        client, question["subject"], body.encode(), question.get("replies", 1)
                    )
                    break
                except (NoRespondersError, TimeoutError):
                    await asyncio.sleep(0.1)
            else:
                sys.exit(f"nobody answers on {question['subject']}")
            n += 1
            answer = {"n": n, "subject": question["subject"], "tries": tries}
            answer["answers"] = [shown(message) for message in answers]
            print(json.dumps(answer), flush=True)
    await client.close()


asyncio.run(main())
