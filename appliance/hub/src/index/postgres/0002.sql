-- For people with a client of their own; the hub reads neither.

CREATE VIEW seals AS
    SELECT origin, index, algorithm, encode(digest, 'hex') AS digest
    FROM digests JOIN logs ON log = id;
CREATE VIEW feed AS
    SELECT number, to_timestamp((line ->> 'foundMillis')::bigint / 1000.0) AS found, line ->> 'severity' AS severity,
        line ->> 'kind' AS kind, line ->> 'origin' AS origin, line ->> 'subject' AS subject, line ->> 'detail' AS detail
    FROM findings;
