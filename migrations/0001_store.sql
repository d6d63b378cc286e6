-- Tenants, their clusters, and each cluster's ordered log.
--
-- Every tenant-owned table's primary key starts with its tenant (organization or cluster), so that a scale-out Postgres
-- can spread them by it; only plain SQL is used. Times that the server computes with are milliseconds since the epoch by
-- Postgres's clock. Names and keys compare byte by byte (collation C), as lists are ordered.

CREATE TABLE organizations (
    id         text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id         text COLLATE "C" PRIMARY KEY,
    email      text NOT NULL UNIQUE CHECK (email = lower(email)),
    name       text NOT NULL DEFAULT '',
    -- argon2id, in PHC form; none for people who sign in elsewhere.
    password   text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE memberships (
    organization text COLLATE "C" NOT NULL REFERENCES organizations ON DELETE CASCADE,
    member       text COLLATE "C" NOT NULL REFERENCES users ON DELETE CASCADE,
    role         text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'viewer')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization, member)
);
CREATE INDEX memberships_member ON memberships (member);

-- One row for each running longshore-server, renewed every half second. Whoever takes a cluster from a replica whose
-- lease has run out deletes its row: a replica that finds its row gone knows that it owns nothing any more.
CREATE TABLE replicas (
    id          text COLLATE "C" PRIMARY KEY,
    -- Where the other replicas reach it.
    advertise   text NOT NULL,
    lease_until bigint NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE clusters (
    id               text COLLATE "C" PRIMARY KEY,
    organization     text COLLATE "C" NOT NULL REFERENCES organizations,
    name             text NOT NULL,
    -- The fence: a writer must know both, and counts the revision on in the same statement that writes.
    epoch            bigint NOT NULL DEFAULT 0,
    revision         bigint NOT NULL DEFAULT 0,
    -- Watches from before these revisions are answered 410.
    compacted        bigint NOT NULL DEFAULT 0,
    events_compacted bigint NOT NULL DEFAULT 0,
    -- The replica that serves it; the row in replicas may be gone.
    owner            text COLLATE "C",
    -- Seals Secrets in objects and changes; itself wrapped by the installation's key ring.
    data_key         bytea NOT NULL,
    service_range    text NOT NULL,
    pod_range        text NOT NULL,
    -- When an unloaded cluster has something to do.
    wake_at          bigint,
    created_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization, name)
) WITH (fillfactor = 50); -- its revision is updated all the time: room for it to stay on its page
CREATE INDEX clusters_owner ON clusters (owner) WHERE owner IS NOT NULL;
CREATE INDEX clusters_wake_at ON clusters (wake_at) WHERE wake_at IS NOT NULL;

-- The current state (Events aside). No foreign key to clusters: the fence in the same statement is stronger.
CREATE TABLE objects (
    cluster   text COLLATE "C" NOT NULL,
    resource  text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    revision  bigint NOT NULL,
    sealed    boolean NOT NULL,
    -- The object as JSON in its storage version, sealed where `sealed` says so.
    json      bytea NOT NULL,
    PRIMARY KEY (cluster, resource, namespace, name)
) WITH (fillfactor = 85);

-- The log, partitioned by time and dropped whole. A row's previous state is the row at previous_revision; where that
-- one lies in an earlier partition (and so goes earlier), its text is repeated in `previous`.
CREATE TABLE changes (
    cluster           text COLLATE "C" NOT NULL,
    revision          bigint NOT NULL,
    at                bigint NOT NULL,
    kind              smallint NOT NULL, -- 1 created, 2 updated, 3 deleted
    resource          text COLLATE "C" NOT NULL,
    namespace         text COLLATE "C" NOT NULL,
    name              text COLLATE "C" NOT NULL,
    sealed            boolean NOT NULL,
    json              bytea NOT NULL,
    previous_revision bigint,
    previous          bytea,
    PRIMARY KEY (cluster, revision, at)
) PARTITION BY RANGE (at);
-- Only used when no partition was made in time: the log never stops for want of one.
CREATE TABLE changes_default PARTITION OF changes DEFAULT;

-- Events: log and current state in one (an event's state is its last row that is no deletion), because nearly every row
-- would otherwise be written twice and deleted an hour later. Under the same revisions as changes.
CREATE TABLE events (LIKE changes, PRIMARY KEY (cluster, revision, at)) PARTITION BY RANGE (at);
CREATE TABLE events_default PARTITION OF events DEFAULT;
