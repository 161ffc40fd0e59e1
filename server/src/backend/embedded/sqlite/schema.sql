-- The schema of version 1. What the columns mean is described in docs/backends.md.

-- One row: whether this is a copy for safe-keeping that was put back, and room to try whether the disk takes something.
CREATE TABLE holdfast (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    is_copy INTEGER NOT NULL,
    probe BLOB
) STRICT;
INSERT INTO holdfast (only, is_copy) VALUES (1, 0);

-- Namespaces, deleted ones included: these have no lineage. Nor have those whose names begin with `!`: what is being
-- imported, before it is put in its place.
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    lineage TEXT,
    position INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    birth INTEGER NOT NULL,
    cleared INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    -- Rows of `changes` up to this revision that nothing needs have been deleted.
    swept INTEGER NOT NULL
) STRICT;

-- What keys hold. Bytes that are text stand as TEXT, others as BLOB.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key ANY NOT NULL,
    -- 0: a key of users, 1: an internal one, 2: an internal one that goes when users' keys are cleared.
    space INTEGER NOT NULL,
    version INTEGER NOT NULL,
    create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    -- The key of the entry with which it ends: a lease.
    ends_with ANY,
    -- What made it: set, or ttl_changed.
    kind TEXT NOT NULL,
    -- Whether that stands in `changes`, or did until it was swept.
    logged INTEGER NOT NULL,
    -- The newest row of the key in `changes`; it may have been swept.
    change INTEGER,
    content_type ANY NOT NULL,
    value ANY NOT NULL,
    -- CRC-32 of what the row says of the key.
    checksum INTEGER NOT NULL,
    UNIQUE (namespace, key)
) STRICT;

-- The log, and beside it what versions only the log needs.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    key ANY NOT NULL,
    space INTEGER NOT NULL,
    -- set, ttl_changed, deleted, ttl_ended, lease_ended, lease_revoked, clear; dropped: removed without a trace in the log.
    kind TEXT NOT NULL,
    -- 1: in the log; 0: not an event, but what a later event was made from.
    logged INTEGER NOT NULL,
    -- The row of the same key before this one, needed as long as this one is in the log; it may have been swept.
    previous INTEGER,
    -- The entry after it; none after a removal.
    version INTEGER,
    create_revision INTEGER,
    created_at_ms INTEGER,
    expires_at_ms INTEGER,
    ends_with ANY,
    content_type ANY,
    value ANY,
    -- CRC-32 of what the row says of the key; that of `entries` for the same entry.
    checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX changes_by_revision ON changes (namespace, revision);
CREATE INDEX changes_of_internal_keys ON changes (namespace, key) WHERE space <> 0;

-- Entries of users, with names and times to be read by people. Some may be due and not removed yet.
CREATE VIEW user_entries AS
SELECT namespaces.name AS namespace, key, value, content_type, version, create_revision, mod_revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', entries.created_at_ms / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', updated_at_ms / 1000.0, 'unixepoch') AS updated_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', expires_at_ms / 1000.0, 'unixepoch') AS expires_at,
    ends_with
FROM entries JOIN namespaces ON namespaces.id = entries.namespace
WHERE space = 0 AND namespaces.lineage IS NOT NULL;

-- The log of users' keys, as watches tell it.
CREATE VIEW events AS
SELECT namespaces.name AS namespace, changes.revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', changes.time_ms / 1000.0, 'unixepoch') AS time,
    kind, key, value, content_type, version, create_revision,
    strftime('%Y-%m-%dT%H:%M:%fZ', expires_at_ms / 1000.0, 'unixepoch') AS expires_at,
    ends_with
FROM changes JOIN namespaces ON namespaces.id = changes.namespace
WHERE logged AND space = 0 AND changes.revision > namespaces.compacted;
