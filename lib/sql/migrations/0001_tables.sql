-- Unfinished tasks stand in task; a finished one leaves it. Its runs stay in task_run until retention removes them;
-- a task out of attempts goes to failed_task with its payload.
-- Applied with search_path set to the schema; statements are split at "-- statement" lines; no colon inside dollar quotes.

-- statement
CREATE TABLE task (
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  identifier        text NOT NULL,
  payload           jsonb NOT NULL DEFAULT '{}',
  priority          smallint NOT NULL DEFAULT 50,            -- 0 runs first, 100 last
  scheduled_for     timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  key               text,                                    -- unique among those of the identifier that have not started
  attempt           integer NOT NULL DEFAULT 0,              -- claims so far: never goes back, half of the fence
  forgiven          integer NOT NULL DEFAULT 0,              -- attempts used = attempt - forgiven
  max_attempts      integer,                                 -- null until claimed: the definition's
  held_by           uuid,                                    -- the invocation whose heartbeat is the lease
  claim_seq         integer,                                 -- the holder's exchange that claimed it
  held_since        timestamptz,
  suspect_since     timestamptz,                             -- its holder was lost: it runs alone until it has reported once
  occurrence        timestamptz,                             -- of a recurring task: the due time it stands for
  serial_key        text,                                    -- one at a time, in the order of ids
  has_turn          boolean NOT NULL DEFAULT true,           -- false while an unfinished one with its serial key stands before it
  progress          jsonb,                                   -- what its handler last reported
  trace_parent      text,                                    -- W3C traceparent of who enqueued it
  bytes             integer GENERATED ALWAYS AS (octet_length(CAST(payload AS text))) STORED,
  CONSTRAINT identifier_is_short CHECK (octet_length(identifier) BETWEEN 1 AND 200),
  CONSTRAINT key_is_short CHECK (octet_length(key) BETWEEN 1 AND 500),
  CONSTRAINT serial_key_is_short CHECK (octet_length(serial_key) BETWEEN 1 AND 500),
  CONSTRAINT trace_parent_is_short CHECK (octet_length(trace_parent) <= 200),
  CONSTRAINT payload_is_small CHECK (octet_length(CAST(payload AS text)) <= 49152),
  CONSTRAINT priority_is_named CHECK (priority IN (0, 25, 50, 75, 100)),
  CONSTRAINT held_is_whole CHECK ((held_by IS NULL) = (claim_seq IS NULL) AND (held_by IS NULL) = (held_since IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

-- statement
CREATE INDEX task_claim ON task (identifier, priority, scheduled_for, id) WHERE held_by IS NULL AND suspect_since IS NULL AND has_turn;

-- statement
CREATE INDEX task_suspect ON task (priority, scheduled_for, id) WHERE held_by IS NULL AND suspect_since IS NOT NULL;

-- statement
CREATE INDEX task_held ON task (held_by) WHERE held_by IS NOT NULL;

-- statement
CREATE UNIQUE INDEX task_key ON task (identifier, key) WHERE key IS NOT NULL AND attempt = 0;

-- statement
CREATE INDEX task_serial ON task (identifier, serial_key, id) WHERE serial_key IS NOT NULL;

-- statement
CREATE INDEX task_occurrence ON task (identifier) WHERE occurrence IS NOT NULL;

-- statement
CREATE TABLE failed_task (
  id                bigint PRIMARY KEY,
  identifier        text NOT NULL,
  payload           jsonb NOT NULL,
  priority          smallint NOT NULL,
  scheduled_for     timestamptz NOT NULL,
  created_at        timestamptz NOT NULL,
  key               text,
  attempt           integer NOT NULL,
  forgiven          integer NOT NULL,
  max_attempts      integer,
  occurrence        timestamptz,
  serial_key        text,
  trace_parent      text,
  failed_at         timestamptz NOT NULL,
  outcome           text NOT NULL,
  CONSTRAINT outcome_is_known CHECK (outcome IN ('FAILED', 'CANCELLED'))
);

-- statement
CREATE INDEX failed_task_by_identifier ON failed_task (identifier, failed_at);

-- statement
CREATE INDEX failed_task_key ON failed_task (identifier, key) WHERE key IS NOT NULL AND attempt = 0;

-- statement
CREATE TABLE task_run (
  task_id           bigint NOT NULL,
  attempt           integer NOT NULL,
  identifier        text NOT NULL,
  invocation_id     uuid NOT NULL,
  started_at        timestamptz NOT NULL,
  finished_at       timestamptz NOT NULL,
  result            text NOT NULL,
  task_outcome      text,                                    -- how the task ended with this run; null when it goes on
  error_details     text,
  occurrence        timestamptz,                             -- of a recurring task
  result_value      jsonb,                                   -- what the handler returned, when it is small
  PRIMARY KEY (task_id, attempt),
  CONSTRAINT result_is_known CHECK (result IN ('SUCCESS', 'FAILURE')),
  CONSTRAINT task_outcome_is_known CHECK (task_outcome IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))
);

-- statement
CREATE INDEX task_run_finished ON task_run (finished_at);

-- statement
CREATE TABLE slot (
  number            integer PRIMARY KEY,
  epoch             bigint NOT NULL,                         -- grows with each taking: the newest holder wins
  holder            uuid,
  CONSTRAINT number_is_a_seat CHECK (number BETWEEN 0 AND 999)
) WITH (fillfactor = 50);

-- statement
CREATE TABLE heartbeat (
  invocation_id     uuid PRIMARY KEY,
  slot              integer NOT NULL,
  epoch             bigint NOT NULL DEFAULT 0,
  release_id        text NOT NULL,
  seq               integer NOT NULL DEFAULT 0,              -- the last exchange that counted
  started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_since        timestamptz NOT NULL DEFAULT clock_timestamp(), -- no gap over half the grace period since then: a witness
  ended_at          timestamptz,
  expired_at        timestamptz,
  held              integer NOT NULL DEFAULT 0,              -- tasks it holds; counted here, as the index of held tasks may be full of dead entries
  holds_suspect     boolean NOT NULL DEFAULT false,
  claimed_seq       integer NOT NULL DEFAULT 0,              -- the last exchange that claimed anything
  cancelling        bigint[] NOT NULL DEFAULT '{}',          -- tasks it holds that an operator has cancelled
  claimed           bigint NOT NULL DEFAULT 0,
  succeeded         bigint NOT NULL DEFAULT 0,
  failed            bigint NOT NULL DEFAULT 0,               -- failed attempts
  rescued           bigint NOT NULL DEFAULT 0,               -- tasks taken back from silent invocations
  stale_completions bigint NOT NULL DEFAULT 0                -- results that came after the lease was lost
) WITH (fillfactor = 50);

-- statement
CREATE INDEX heartbeat_live ON heartbeat (last_seen_at) WHERE ended_at IS NULL AND expired_at IS NULL;

-- statement
CREATE INDEX heartbeat_by_slot ON heartbeat (slot, started_at);

-- statement
CREATE TABLE release (
  id                text PRIMARY KEY,                        -- a hash of its definitions: equal deployments share a row
  registered_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- statement
CREATE TABLE release_task (
  release_id        text NOT NULL REFERENCES release ON DELETE CASCADE,
  identifier        text NOT NULL,
  timeout_ms        integer NOT NULL,
  max_attempts      integer NOT NULL,
  concurrency       integer,                                 -- most that run at a time, over all invocations
  PRIMARY KEY (release_id, identifier)
);

-- statement
CREATE TABLE paused_identifier (
  identifier        text PRIMARY KEY,                        -- or * for all
  paused_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- statement
CREATE TABLE serial_gap (
  identifier        text NOT NULL,                           -- the head of this key has left, but a producer was just adding to it,
  serial_key        text NOT NULL,                           -- the next exchange gives the turn
  PRIMARY KEY (identifier, serial_key)
);

-- statement
CREATE TABLE recurring_task (
  identifier        text PRIMARY KEY,
  schedule          text NOT NULL,                           -- the definition it was last planned by
  next_at           timestamptz NOT NULL,
  last_occurrence   timestamptz,
  skipped           bigint NOT NULL DEFAULT 0,               -- due while the last one was unfinished
  enabled           boolean NOT NULL DEFAULT true,
  disabled_why      text,
  CONSTRAINT disabled_why_is_known CHECK (disabled_why IN ('OPERATOR', 'UNKNOWN'))
);

-- statement
CREATE TABLE enqueue_request (
  token             uuid PRIMARY KEY,                        -- made by the client: a repeated request stores nothing twice
  answer            jsonb NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- statement
CREATE TABLE health_check (
  id                uuid PRIMARY KEY,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
