/** The lines that start an agent with the credentials it was just given; as `groundstation satellite create` prints them. Pure. */

const IMAGE = "ghcr.io/enyineer/checkstack-satellite:<release>";

export interface Lines {
  environment: string;
  docker: string;
  systemd: string;
}

export function startAgent(url: string, id: string, token: string): Lines {
  return {
    environment: `CHECKSTACK_CORE_URL=${url.replace(/\/$/, "")}
CHECKSTACK_SATELLITE_CLIENT_ID=${id}
CHECKSTACK_SATELLITE_TOKEN=${token}`,
    docker: `docker run -d --restart unless-stopped --name satellite --env-file satellite.env ${IMAGE}`,
    systemd: `[Unit]
Description=Satellite ${id}
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run --rm --name satellite --env-file /etc/satellite.env ${IMAGE}
ExecStop=/usr/bin/docker stop satellite
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target`,
  };
}
