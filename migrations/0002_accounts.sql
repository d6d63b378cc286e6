-- Credentials of people, machines and clusters. Secrets that are shown once are kept as SHA-256; private keys only
-- sealed by the master key. Every key starts with the tenant where there is one.

-- Keys of the installation as a whole: its certificate authority.
CREATE TABLE installation_keys (
    name        text PRIMARY KEY,
    certificate text NOT NULL,
    sealed_key  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Keys of one cluster: its certificate authority (`ca`), and what signs service accounts' (`service-account`) and nodes' (`node`) tokens.
CREATE TABLE cluster_keys (
    organization    text COLLATE "C" NOT NULL,
    cluster         text COLLATE "C" NOT NULL,
    purpose         text NOT NULL,
    certificate     text NOT NULL DEFAULT '',
    sealed_key      bytea NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, purpose)
);
CREATE INDEX cluster_keys_by_organization ON cluster_keys (organization);

CREATE TABLE sessions (
    member     text COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    digest     bytea NOT NULL,
    csrf       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (digest)
);
CREATE INDEX sessions_by_user ON sessions (member);

-- API tokens of people, for scripts and kubectl. `name` `dev` is the one that `dev` writes into its folder.
CREATE TABLE api_tokens (
    member     text COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id         text NOT NULL,
    name       text NOT NULL,
    digest     bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (member, id)
);

CREATE TABLE join_tokens (
    organization    text COLLATE "C" NOT NULL,
    cluster         text COLLATE "C" NOT NULL,
    digest          bytea NOT NULL,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    PRIMARY KEY (cluster, digest)
);
CREATE INDEX join_tokens_by_organization ON join_tokens (organization);

-- Machines that joined. A name belongs to one identity until that is revoked.
CREATE TABLE node_identities (
    organization    text COLLATE "C" NOT NULL,
    cluster         text COLLATE "C" NOT NULL,
    id              text NOT NULL,
    name            text NOT NULL,
    public_key      text NOT NULL,
    joined_at       timestamptz NOT NULL DEFAULT now(),
    revoked_at      timestamptz,
    PRIMARY KEY (cluster, id)
);
CREATE UNIQUE INDEX node_identities_by_name ON node_identities (cluster, name) WHERE revoked_at IS NULL;
CREATE INDEX node_identities_by_organization ON node_identities (organization);
