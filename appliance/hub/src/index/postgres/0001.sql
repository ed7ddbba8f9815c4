-- What hub.redb has, as tables. Numbers of entries and sizes of trees are bigint; lines of JSON keep their text.

-- How far each log is: the state of the pull, and the audit as it was laid aside.
CREATE TABLE logs (
    id integer PRIMARY KEY,
    origin text NOT NULL UNIQUE,
    state json,
    audit bytea
);
-- Sizes and roots of the trees between batches, from the oldest that an entry may still name.
CREATE TABLE boundaries (
    log integer, size bigint, root bytea NOT NULL,
    PRIMARY KEY (log, size)
);
-- Seals by the digest of their document.
CREATE TABLE digests (
    algorithm smallint, digest bytea, log integer, index bigint,
    PRIMARY KEY (algorithm, digest, log, index)
);
-- What stands where: key epochs, attestations, anchors, manifests, mirrors.
CREATE TABLE marks (
    log integer, mark smallint, a bigint, index bigint, b bigint NOT NULL,
    PRIMARY KEY (log, mark, a, index)
);
-- Seals whose openings were destroyed, and the entry that says so.
CREATE TABLE erased (
    log integer, leaf bytea, index bigint NOT NULL,
    PRIMARY KEY (log, leaf)
);
CREATE TABLE quarantine (
    log integer, index bigint, reason text NOT NULL,
    PRIMARY KEY (log, index)
);
CREATE TABLE findings (
    number bigint PRIMARY KEY,
    key bytea NOT NULL UNIQUE,
    line json NOT NULL
);
CREATE TABLE about (
    name text PRIMARY KEY,
    value bytea NOT NULL
);
-- Lamport time of every 256th entry.
CREATE TABLE places (
    log integer, lamport bigint, index bigint NOT NULL,
    PRIMARY KEY (log, lamport)
);
-- Entries that are no seals.
CREATE TABLE others (
    log integer, index bigint, kind integer NOT NULL,
    PRIMARY KEY (log, index)
);
-- Which time evidence entries name from this one on.
CREATE TABLE evidence (
    log integer, index bigint, named bigint,
    PRIMARY KEY (log, index)
);
-- What the anchor at this index proves of the first `size` entries.
CREATE TABLE bounds (
    log integer, size bigint, index bigint, said json NOT NULL,
    PRIMARY KEY (log, size, index)
);
-- Who says what of the entry with this leaf hash.
CREATE TABLE relations (
    leaf bytea, kind smallint, log integer, index bigint,
    PRIMARY KEY (leaf, kind, log, index)
);
