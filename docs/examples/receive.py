#!/usr/bin/env python3
"""A receiver of Groundstation's webhooks (`groundstation forward`). receive.ts and receive.rs are the same in other
languages.

It takes a webhook only if it is signed with its secret (Standard Webhooks: HMAC-SHA256 over id, time and body), and not
longer ago than five minutes: so nobody else can send one, and nobody can send one again. webhook-id is the change id: a
webhook that comes again, because its answer was lost, is answered as if it were handled again, and is not.

Needs Python 3.9 and nothing else. Settings: WEBHOOK_SECRET (whsec_…; while it is rotated several, with spaces), PORT.
"""

import base64
import collections
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE = 5 * 60
LARGEST = 1 << 20
REMEMBERED = 10_000

KEYS = [base64.b64decode(word.removeprefix("whsec_")) for word in os.environ["WEBHOOK_SECRET"].split()]


def is_genuine(headers, body, now):
    """Whether one of our secrets signed this, lately."""
    try:
        identity, at = headers["webhook-id"], headers["webhook-timestamp"]
        if not identity or abs(now - int(at)) > TOLERANCE:
            return False
    except (TypeError, ValueError):
        return False
    signed = f"{identity}.{at}.".encode() + body
    ours = [b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in KEYS]
    theirs = (headers["webhook-signature"] or "").encode().split()
    return any(hmac.compare_digest(our, their) for our in ours for their in theirs)


def serve(handle):
    """Calls handle(headers, body) for each webhook. Only what it has done is answered 204; if it raises, the webhook
    comes again."""
    # In a service of yours this is a table, written in the transaction of `handle`.
    handled = collections.OrderedDict()

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self):
            length = self.headers["content-length"] or ""
            if not length.isdigit() or int(length) > LARGEST:
                self.close_connection = True
                return self.answer(413)
            body = self.rfile.read(int(length))
            if not is_genuine(self.headers, body, time.time()):
                return self.answer(401)
            identity = self.headers["webhook-id"]
            if identity not in handled:
                try:
                    handle(self.headers, json.loads(body))
                except Exception as error:
                    print(f"not handled: {error}", flush=True)
                    return self.answer(503)
                handled[identity] = True
                if len(handled) > REMEMBERED:
                    handled.popitem(last=False)
            self.answer(204)

        def answer(self, status):
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Receiver)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def show(headers, body):
    """The work itself. Webhooks of one satellite come one after the other, in order."""
    line = {"type": headers["ce-type"], "position": int(headers["ce-sequence"]), "satelliteId": body["satelliteId"]}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    serve(show)
