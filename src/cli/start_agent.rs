//! Shows how to start an agent with the credentials it was just given.

use uuid::Uuid;

/// The image of Checkstack's agent.
const IMAGE: &str = "ghcr.io/enyineer/checkstack-satellite:<release>";

/// The environment of an agent, and two ways to run it with that. `url` is the address under which the agent reaches
/// a pod, or the load balancer in front of the pods.
pub fn lines(url: &str, id: Uuid, token: &str) -> String {
    let url = url.trim_end_matches('/');
    format!(
        "\
Start its agent with this environment, kept in a file that others cannot read, here satellite.env (the
address is the one of this command: it must be one the agent can reach):

CHECKSTACK_CORE_URL={url}
CHECKSTACK_SATELLITE_CLIENT_ID={id}
CHECKSTACK_SATELLITE_TOKEN={token}

In Docker:

docker run -d --restart unless-stopped --name satellite --env-file satellite.env {IMAGE}

By systemd, as /etc/systemd/system/satellite.service:

[Unit]
Description=Satellite {id}
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run --rm --name satellite --env-file /etc/satellite.env {IMAGE}
ExecStop=/usr/bin/docker stop satellite
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target

An agent of your own: docs/agents.md."
    )
}
