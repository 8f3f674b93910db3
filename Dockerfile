# syntax=docker/dockerfile:1
# The program and nothing else: no shell, no package manager, not root.

# The page, which the program embeds.
FROM node:24-bookworm-slim AS console
WORKDIR /src
COPY console/package.json console/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY console .
RUN npm run build

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
COPY --from=console /src/dist console/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin groundstation \
    && cp target/release/groundstation /groundstation

# Debian 12 like the build, so that the C library is the same.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /groundstation /usr/local/bin/groundstation
ENV GROUNDSTATION_LISTEN=0.0.0.0:8080 \
    GROUNDSTATION_LOG_FORMAT=json
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/groundstation"]
CMD ["serve"]
