# Server and agent images. `--target server` or `--target agent`; BASE is any Debian with apt for building, and what the
# server runs on (it brings no Postgres: it is for `serve` with DATABASE_URL).
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
WORKDIR /src
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates curl build-essential git
COPY . .
RUN scripts/setup build && PATH="$HOME/.cargo/bin:$PATH" scripts/build

FROM ${BASE} AS server
COPY --from=build /src/target/release/longshore-server /src/target/release/longshore-agent /usr/local/bin/
USER 65532:65532
EXPOSE 7480
ENTRYPOINT ["/usr/local/bin/longshore-server"]
CMD ["serve", "--listen", "0.0.0.0:7480"]

# The agent is static: its image holds nothing else.
FROM scratch AS agent
COPY --from=build /src/target/release/longshore-agent /longshore-agent
ENTRYPOINT ["/longshore-agent"]
CMD ["run"]
