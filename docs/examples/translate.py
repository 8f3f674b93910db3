#!/usr/bin/env python3
"""A receiver that tells others of Groundstation's webhooks in their words: a channel of Slack, and Alertmanager.

Both take something else than a CloudEvent, so something has to translate. Where they do not take it this receiver answers
503, and the webhook comes again: nothing is lost, and of one satellite nothing comes out of order.

Needs Python 3.9 and receive.py beside it. Settings: those of receive.py, SLACK_URL (an incoming webhook, a secret) and
ALERTMANAGER_URL (such as http://alertmanager:9093); both may be missing.
"""

import json
import os
import urllib.request

from receive import serve

WORDS = {
    "satellite.connected": "is connected",
    "satellite.disconnected": "left",
    "satellite.heartbeat_lost": "went silent",
    "satellite.removed": "was removed",
}


def post(url, message):
    """Raises unless it is answered 2xx."""
    request = urllib.request.Request(url, json.dumps(message).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


def slack(headers, body):
    """One line in the channel. Slack's own signs in a name must not become links or mentions."""
    name = body.get("name", body["satelliteId"])
    for sign, word in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        name = name.replace(sign, word)
    reason = headers["groundstation-reason"]
    return {"text": f"{name} {WORDS.get(headers['ce-type'], headers['ce-type'])} ({reason})"}


def alerts(headers, body):
    """An alert that begins with a loss and ends when the satellite is back or gone. Alertmanager knows an alert by its
    labels, so these are the same at its beginning and its end. One that does not end is not repeated here: give
    Alertmanager a resolve_timeout that is longer than your longest outage, or alert from Prometheus instead."""
    labels = {"alertname": "SatelliteLost", "satellite": body["satelliteId"]}
    alert = {"labels": labels, "annotations": {"reason": headers["groundstation-reason"]}}
    if headers["ce-type"] == "satellite.heartbeat_lost":
        return [{**alert, "startsAt": headers["ce-time"]}]
    return [{**alert, "endsAt": headers["ce-time"]}]


def tell(headers, body):
    if url := os.environ.get("SLACK_URL"):
        post(url, slack(headers, body))
    if url := os.environ.get("ALERTMANAGER_URL"):
        post(f"{url}/api/v2/alerts", alerts(headers, body))


if __name__ == "__main__":
    serve(tell)
