-- The edge: which cluster serves which host, and the certificates that were got for hosts.

-- A host belongs to one cluster at a time, whoever asked for it first: names are the installation's, so this table starts
-- with the name, not with a tenant. `*.` before a name is all below it, `*` is whatever nobody else has.
CREATE TABLE edge_hosts (
    host         text COLLATE "C" PRIMARY KEY,
    cluster      text COLLATE "C" NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    claimed_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX edge_hosts_by_cluster ON edge_hosts (cluster);

-- A port of the edge's address belongs to one Service of type LoadBalancer at a time.
CREATE TABLE edge_ports (
    port         integer PRIMARY KEY,
    cluster      text COLLATE "C" NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    claimed_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX edge_ports_by_cluster ON edge_ports (cluster);

-- Certificates from an authority; the key is sealed by the master key.
CREATE TABLE edge_certificates (
    host         text COLLATE "C" PRIMARY KEY,
    chain        text NOT NULL,
    sealed_key   bytea NOT NULL,
    issued_at    timestamptz NOT NULL DEFAULT now()
);

-- What an authority may ask for at this moment, of any replica; sealed, for it may hold a key.
CREATE TABLE edge_challenges (
    host         text COLLATE "C" PRIMARY KEY,
    sealed       bytea NOT NULL,
    opened_at    timestamptz NOT NULL DEFAULT now()
);
