# Server and agent images: `make images`, or `docker build --target server .`.
# BUILD_BASE is a Debian or Ubuntu with apt, at best one that has rustup's cargo. BASE is what the server runs on: it brings no
# Postgres, since the image is for `serve` with DATABASE_URL.
ARG BUILD_BASE=rust:1.95-trixie
ARG BASE=debian:trixie-slim

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY . .
RUN scripts/setup build && scripts/build && install -D -t /out target/release/longshore-server target/release/longshore-agent \
 && rm -rf target frontend/dist

FROM ${BASE} AS server
COPY --from=build /out/ /usr/local/bin/
USER 65532:65532
EXPOSE 7480
ENTRYPOINT ["/usr/local/bin/longshore-server"]
CMD ["serve", "--listen", "0.0.0.0:7480"]

# The agent is static: its image holds nothing else.
FROM scratch AS agent
COPY --from=build /out/longshore-agent /longshore-agent
ENTRYPOINT ["/longshore-agent"]
CMD ["run"]
