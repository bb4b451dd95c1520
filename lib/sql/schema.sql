-- Unfinished tasks stand in task; a finished one leaves it. Its runs stay in task_run until retention removes them;
-- a task out of attempts goes to failed_task with its payload.
-- Applied with search_path set to the schema; statements are split at "-- statement" lines; no colon inside dollar quotes.

-- statement
CREATE TABLE task (
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  identifier        text NOT NULL,
  payload           json NOT NULL DEFAULT '{}',
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
  CONSTRAINT payload_is_small CHECK (bytes <= 49152),
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
CREATE INDEX task_turn ON task (identifier, serial_key) WHERE serial_key IS NOT NULL AND has_turn;

-- statement
CREATE INDEX task_occurrence ON task (identifier) WHERE occurrence IS NOT NULL;

-- statement
CREATE TABLE failed_task (
  id                bigint PRIMARY KEY,
  identifier        text NOT NULL,
  payload           json NOT NULL,
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
  woken_at          timestamptz,                             -- an invocation was called for it that has not sat down yet
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
  stale_completions bigint NOT NULL DEFAULT 0,               -- results that came after the lease was lost
  metrics           jsonb,                                   -- what it has run so far, by identifier
  ran_suspect       boolean NOT NULL DEFAULT false,          -- the last it claimed
  grace             interval,                                -- its own: whoever has a shorter one must not call it silent
  folded            boolean NOT NULL DEFAULT false           -- its metrics stand in run_counter
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
  identifier        text NOT NULL,                           -- one of this key has left, but a producer was just adding to it, or another passed the turn,
  serial_key        text NOT NULL,                           -- the next exchange gives it
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
);

-- statement
CREATE INDEX serial_gap_by_key ON serial_gap (identifier, serial_key);

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
-- Enqueueing: from plain SQL (enqueue_task) and from the client (enqueue_v1, one request whatever the number).

-- statement
CREATE FUNCTION admit(p_identifier text, p_queue_size integer, p_count integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $admit$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'a task with a queue size is enqueued under READ COMMITTED only' USING ERRCODE = 'TP001';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || p_identifier, 0));
  -- A statement of its own: its snapshot is younger than the lock.
  RETURN p_count + (SELECT count(*) FROM (
      SELECT FROM task WHERE identifier = p_identifier AND held_by IS NULL AND suspect_since IS NULL AND has_turn LIMIT p_queue_size) waiting)
    + (SELECT count(*) FROM task WHERE identifier = p_identifier AND serial_key IS NOT NULL AND NOT has_turn AND held_by IS NULL AND suspect_since IS NULL)
    + (SELECT count(*) FROM task WHERE identifier = p_identifier AND held_by IS NULL AND suspect_since IS NOT NULL)
    + (SELECT count(*) FROM task WHERE identifier = p_identifier AND held_by IS NOT NULL) <= p_queue_size;
END
$admit$;

-- statement
-- Whether a task with this serial key may run at once. Holds the key until the caller's transaction ends.
CREATE FUNCTION take_serial_key(p_identifier text, p_serial_key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $serial$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'a task with a serial key is enqueued under READ COMMITTED only' USING ERRCODE = 'TP001';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || p_identifier || ' ' || p_serial_key, 1));
  RETURN NOT EXISTS (SELECT FROM task WHERE identifier = p_identifier AND serial_key = p_serial_key);
END
$serial$;

-- statement
CREATE FUNCTION enqueue_task(
  identifier text,
  payload jsonb DEFAULT '{}',
  delay_until timestamptz DEFAULT NULL,
  priority integer DEFAULT 50,
  key text DEFAULT NULL,
  on_duplicate text DEFAULT 'keep',
  queue_size integer DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  serial_key text DEFAULT NULL,
  trace_parent text DEFAULT NULL,
  OUT status text,
  OUT id bigint
) LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $enqueue$
#variable_conflict use_column
DECLARE
  p_identifier text = identifier;
  p_payload jsonb = coalesce(payload, '{}');
  p_due timestamptz = coalesce(delay_until, clock_timestamp());
  p_priority smallint = coalesce(priority, 50);
  p_key text = key;
  p_max_attempts integer = max_attempts;
  p_serial_key text = serial_key;
  p_trace_parent text = substring(trace_parent FROM '^[0-9a-f-]{55,200}$'); -- one that cannot be a traceparent is ignored, as W3C has it
  v_turn boolean = true;
  v_status text = 'enqueued';
  v_id bigint;
BEGIN
  IF on_duplicate NOT IN ('keep', 'replace') THEN
    RAISE EXCEPTION 'on_duplicate is keep or replace, not %', on_duplicate USING ERRCODE = 'TP002';
  END IF;
  IF queue_size IS NOT NULL AND NOT admit(p_identifier, queue_size, 1) THEN
    IF p_key IS NOT NULL THEN
      SELECT t.id INTO v_id FROM task t WHERE t.identifier = p_identifier AND t.key = p_key AND t.attempt = 0;
    END IF;
    -- Its twin waits: nothing is stored beside it, also when it is claimed meanwhile.
    IF v_id IS NOT NULL AND on_duplicate = 'replace' THEN
      UPDATE task t SET payload = p_payload, scheduled_for = p_due, priority = p_priority, max_attempts = p_max_attempts, trace_parent = p_trace_parent
      WHERE t.id = v_id AND t.attempt = 0 RETURNING t.id INTO v_id;
    END IF;
    status = CASE WHEN v_id IS NULL THEN 'queue_full' ELSE 'duplicate' END;
    id = v_id;
    RETURN;
  END IF;
  IF p_serial_key IS NOT NULL THEN
    v_turn = take_serial_key(p_identifier, p_serial_key);
  END IF;
  IF p_key IS NULL THEN
    INSERT INTO task (identifier, payload, scheduled_for, priority, max_attempts, serial_key, has_turn, trace_parent)
    VALUES (p_identifier, p_payload, p_due, p_priority, p_max_attempts, p_serial_key, v_turn, p_trace_parent)
    RETURNING task.id INTO v_id;
  ELSIF on_duplicate = 'replace' THEN
    -- The twin has not started: it is in nobody's hands, so no holder can be made to wait.
    INSERT INTO task AS t (identifier, payload, scheduled_for, priority, max_attempts, serial_key, has_turn, trace_parent, key)
    VALUES (p_identifier, p_payload, p_due, p_priority, p_max_attempts, p_serial_key, v_turn, p_trace_parent, p_key)
    ON CONFLICT (identifier, key) WHERE key IS NOT NULL AND attempt = 0 DO UPDATE
      SET payload = excluded.payload, scheduled_for = excluded.scheduled_for, priority = excluded.priority,
          max_attempts = excluded.max_attempts, trace_parent = excluded.trace_parent
    RETURNING t.id, CASE WHEN t.xmax = 0 THEN 'enqueued' ELSE 'duplicate' END INTO v_id, v_status;
  ELSE
    LOOP
      INSERT INTO task (identifier, payload, scheduled_for, priority, max_attempts, serial_key, has_turn, trace_parent, key)
      VALUES (p_identifier, p_payload, p_due, p_priority, p_max_attempts, p_serial_key, v_turn, p_trace_parent, p_key)
      ON CONFLICT (identifier, key) WHERE key IS NOT NULL AND attempt = 0 DO NOTHING
      RETURNING task.id INTO v_id;
      EXIT WHEN FOUND;
      SELECT t.id INTO v_id FROM task t WHERE t.identifier = p_identifier AND t.key = p_key AND t.attempt = 0;
      IF FOUND THEN
        v_status = 'duplicate';
        EXIT;
      END IF;
      -- Claimed between the two statements: it has started, so this one is stored. Under a frozen snapshot it would
      -- never be seen; the insert itself then raises 40001.
    END LOOP;
  END IF;
  status = v_status;
  id = v_id;
END
$enqueue$;

-- statement
CREATE FUNCTION enqueue_v1(p_request jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $enqueue$
DECLARE
  v_token uuid = CAST(p_request->>'token' AS uuid);
  -- The first of several requests asks for all of them; the others come without a limit.
  v_count integer = coalesce(CAST(p_request->>'count' AS integer), jsonb_array_length(p_request->'payloads'));
  v_limit integer = CAST(p_request->>'queueSize' AS integer);
  v_turn boolean = true;
  v_one record;
  v_answer jsonb;
BEGIN
  IF v_token IS NOT NULL THEN
    SELECT answer INTO v_answer FROM enqueue_request WHERE token = v_token;
    IF FOUND THEN
      RETURN v_answer;
    END IF;
  END IF;
  IF p_request->>'key' IS NOT NULL THEN
    SELECT * INTO v_one FROM enqueue_task(
      p_request->>'identifier', p_request->'payloads'->0, CAST(p_request->>'delayUntil' AS timestamptz),
      CAST(p_request->>'priority' AS integer), p_request->>'key', p_request->>'onDuplicate', v_limit,
      CAST(p_request->>'maxAttempts' AS integer), p_request->>'serialKey', p_request->>'traceParent');
    v_answer = jsonb_build_object('status', v_one.status, 'ids', jsonb_build_array(CAST(v_one.id AS text)));
  ELSIF v_limit IS NOT NULL AND NOT admit(p_request->>'identifier', v_limit, v_count) THEN
    v_answer = jsonb_build_object('status', 'queue_full', 'ids', jsonb_build_array());
  ELSE
    IF p_request->>'serialKey' IS NOT NULL THEN
      v_turn = take_serial_key(p_request->>'identifier', p_request->>'serialKey');
    END IF;
    WITH stored AS (
      INSERT INTO task (identifier, payload, scheduled_for, priority, max_attempts, serial_key, has_turn, trace_parent)
      SELECT p_request->>'identifier', p.payload, coalesce(CAST(p_request->>'delayUntil' AS timestamptz), clock_timestamp()),
        CAST(p_request->>'priority' AS smallint), CAST(p_request->>'maxAttempts' AS integer),
        p_request->>'serialKey', p_request->>'serialKey' IS NULL OR (v_turn AND p.place = 1), p_request->>'traceParent'
      FROM jsonb_array_elements(p_request->'payloads') WITH ORDINALITY p(payload, place)
      ORDER BY p.place
      RETURNING id)
    SELECT jsonb_build_object('status', 'enqueued', 'ids', coalesce(jsonb_agg(CAST(id AS text) ORDER BY id), '[]')) INTO v_answer FROM stored;
  END IF;
  IF v_token IS NOT NULL THEN
    -- Two of the same request at once: the second waits here, fails with 23505, and finds the answer when it is repeated.
    INSERT INTO enqueue_request (token, answer) VALUES (v_token, v_answer);
  END IF;
  RETURN v_answer;
END
$enqueue$;

-- statement
CREATE FUNCTION take_seat(p_invocation uuid, p_slot integer, p_only_free boolean, OUT epoch bigint)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $seat$
#variable_conflict use_column
BEGIN
  IF NOT p_only_free THEN
    INSERT INTO slot (number, epoch, holder) VALUES (p_slot, 1, p_invocation)
    ON CONFLICT (number) DO UPDATE SET epoch = slot.epoch + 1, holder = p_invocation
    RETURNING slot.epoch INTO epoch;
    RETURN;
  END IF;
  INSERT INTO slot (number, epoch) VALUES (p_slot, 0) ON CONFLICT (number) DO NOTHING;
  -- Lock first and look in the next statement. In one statement, two wakes both took the seat.
  PERFORM FROM slot WHERE number = p_slot FOR UPDATE;
  UPDATE slot s SET epoch = s.epoch + 1, holder = p_invocation
  WHERE s.number = p_slot AND NOT EXISTS (
    SELECT FROM heartbeat h WHERE h.invocation_id = s.holder AND h.ended_at IS NULL AND h.expired_at IS NULL)
  RETURNING s.epoch INTO epoch;
END
$seat$;

-- statement
-- The one before it has left. The next with this serial key gets the turn. A producer that is just adding to the key, or another who passes the turn,
-- is not waited for, as its rows cannot be seen yet. A later exchange looks again. Only the gaps that were seen before the look are closed: whoever left one
-- since may have removed just the one that was to get the turn. Whoever was cancelled or deleted need not have had it, and one that was retried may stand before the one that has.
CREATE FUNCTION pass_turn(p_identifier text, p_serial_key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $turn$
DECLARE
  v_gaps bigint[];
  v_next record;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended(current_schema() || p_identifier || ' ' || p_serial_key, 1)) THEN
    INSERT INTO serial_gap (identifier, serial_key) VALUES (p_identifier, p_serial_key);
    RETURN false;
  END IF;
  v_gaps = ARRAY (SELECT id FROM serial_gap WHERE identifier = p_identifier AND serial_key = p_serial_key);
  SELECT id, has_turn INTO v_next FROM task WHERE identifier = p_identifier AND serial_key = p_serial_key ORDER BY id LIMIT 1;
  IF NOT v_next.has_turn AND NOT EXISTS (SELECT FROM task WHERE identifier = p_identifier AND serial_key = p_serial_key AND has_turn) THEN
    -- Nor is a producer waited for that is just replacing it.
    PERFORM FROM task WHERE id = v_next.id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
      IF v_gaps = '{}' THEN
        INSERT INTO serial_gap (identifier, serial_key) VALUES (p_identifier, p_serial_key);
      END IF;
      RETURN false;
    END IF;
    UPDATE task SET has_turn = true WHERE id = v_next.id;
  END IF;
  DELETE FROM serial_gap WHERE id = ANY (v_gaps);
  RETURN true;
END
$turn$;

-- statement
-- Hands in results. The caller has locked the heartbeat row that guards these tasks. Fenced by holder and attempt number.
CREATE FUNCTION record_results(p_me uuid, p_now timestamptz, p_results jsonb, OUT succeeded integer, OUT failed integer, OUT released integer)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $record$
#variable_conflict use_column
DECLARE
  v_identifiers text[];
  v_serial_keys text[];
BEGIN
  -- IS NOT DISTINCT FROM keeps the planner off the index of held tasks, which an old snapshot fills with dead entries.
  WITH result AS MATERIALIZED (
    SELECT id, attempt, started, finished, value
    FROM jsonb_to_recordset(p_results) AS r(id bigint, attempt integer, outcome text, started float8, finished float8, value jsonb) WHERE outcome = 'SUCCESS'),
  done AS (
    DELETE FROM task t USING result r
    WHERE t.id = r.id AND t.held_by IS NOT DISTINCT FROM p_me AND t.attempt = r.attempt
    RETURNING t.id, t.attempt, t.identifier, t.serial_key, t.occurrence, r.started, r.finished, r.value),
  run AS (
    INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome, occurrence, result_value)
    SELECT id, attempt, identifier, p_me, p_now - started * interval '1 millisecond', p_now - finished * interval '1 millisecond', 'SUCCESS', 'SUCCEEDED', occurrence, value FROM done)
  SELECT count(*), array_agg(identifier) FILTER (WHERE serial_key IS NOT NULL), array_agg(serial_key) FILTER (WHERE serial_key IS NOT NULL)
  INTO succeeded, v_identifiers, v_serial_keys FROM done;
  IF v_serial_keys IS NOT NULL THEN
    PERFORM pass_turn(d.identifier, d.serial_key) FROM (
      SELECT DISTINCT u.identifier, u.serial_key FROM unnest(v_identifiers, v_serial_keys) AS u(identifier, serial_key) ORDER BY 1, 2) AS d;
  END IF;

  failed = 0;
  released = 0;
  IF succeeded = jsonb_array_length(p_results) THEN
    RETURN;
  END IF;

  -- Two statements in one, each row in one of them, and nothing joined with what they return: that would be each failure with each.
  WITH result AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(p_results)
      AS r(id bigint, attempt integer, outcome text, started float8, finished float8, "delayMs" float8, "retryAt" timestamptz, error text)
    WHERE outcome IN ('FAILURE', 'CANCELLED')),
  over AS (
    DELETE FROM task t USING result r
    WHERE t.id = r.id AND t.held_by IS NOT DISTINCT FROM p_me AND t.attempt = r.attempt AND (r.outcome = 'CANCELLED' OR t.attempt - t.forgiven >= t.max_attempts) IS TRUE
    RETURNING t.*, CASE r.outcome WHEN 'CANCELLED' THEN 'CANCELLED' ELSE 'FAILED' END AS task_outcome, r.started, r.finished, r.error),
  kept AS (
    INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, trace_parent, failed_at, outcome)
    SELECT id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, trace_parent, p_now, task_outcome FROM over),
  again AS (
    UPDATE task t SET held_by = NULL, claim_seq = NULL, held_since = NULL, suspect_since = NULL, scheduled_for = coalesce(r."retryAt", p_now + r."delayMs" * interval '1 millisecond')
    FROM result r
    WHERE t.id = r.id AND t.held_by IS NOT DISTINCT FROM p_me AND t.attempt = r.attempt AND (r.outcome = 'CANCELLED' OR t.attempt - t.forgiven >= t.max_attempts) IS NOT TRUE
    RETURNING t.id, t.attempt, t.identifier, t.occurrence, CAST(NULL AS text) AS task_outcome, r.started, r.finished, r.error),
  run AS (
    INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome, occurrence, error_details)
    SELECT id, attempt, identifier, p_me, p_now - started * interval '1 millisecond', p_now - finished * interval '1 millisecond', 'FAILURE', task_outcome, occurrence, error
    FROM (SELECT id, attempt, identifier, occurrence, task_outcome, started, finished, error FROM over UNION ALL SELECT id, attempt, identifier, occurrence, task_outcome, started, finished, error FROM again) AS e
    RETURNING 1)
  SELECT (SELECT count(*) FROM run), array_agg(identifier) FILTER (WHERE serial_key IS NOT NULL), array_agg(serial_key) FILTER (WHERE serial_key IS NOT NULL)
  INTO failed, v_identifiers, v_serial_keys FROM over;
  IF v_serial_keys IS NOT NULL THEN
    PERFORM pass_turn(d.identifier, d.serial_key) FROM (
      SELECT DISTINCT u.identifier, u.serial_key FROM unnest(v_identifiers, v_serial_keys) AS u(identifier, serial_key) ORDER BY 1, 2) AS d;
  END IF;

  -- Never started, or could not finish through no fault of its own: forgiven.
  WITH back AS (
    UPDATE task t SET held_by = NULL, claim_seq = NULL, held_since = NULL, forgiven = t.forgiven + 1
    FROM jsonb_to_recordset(p_results) AS r(id bigint, attempt integer, outcome text)
    WHERE r.outcome = 'RELEASED' AND t.id = r.id AND t.held_by IS NOT DISTINCT FROM p_me AND t.attempt = r.attempt
    RETURNING 1)
  SELECT count(*) INTO released FROM back;
END
$record$;

-- statement
-- Takes back the tasks of expired invocations, as suspects. A statement after the one that expired them, so that its snapshot is
-- younger than the locks on their rows. It counts as an attempt only where the task was alone or a suspect already.
CREATE FUNCTION rescue(p_dead uuid[], p_now timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $rescue$
#variable_conflict use_column
DECLARE
  v_count integer;
  v_identifiers text[];
  v_serial_keys text[];
BEGIN
  WITH lost AS MATERIALIZED (
    SELECT t.id, t.held_by AS holder, t.held_since,
      CASE WHEN t.suspect_since IS NOT NULL OR count(*) OVER (PARTITION BY t.held_by) = 1 THEN 0 ELSE 1 END AS forgive,
      t.attempt - t.forgiven AS used, t.max_attempts
    FROM task t WHERE t.held_by = ANY (p_dead)),
  over AS (
    DELETE FROM task t USING lost l WHERE t.id = l.id AND l.used - l.forgive >= l.max_attempts RETURNING t.*),
  kept AS (
    INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, trace_parent, failed_at, outcome)
    SELECT id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, trace_parent, p_now, 'FAILED' FROM over),
  again AS (
    UPDATE task t SET held_by = NULL, claim_seq = NULL, held_since = NULL, suspect_since = p_now, forgiven = t.forgiven + l.forgive
    FROM lost l WHERE t.id = l.id AND l.used - l.forgive < l.max_attempts
    RETURNING t.id, t.attempt, t.identifier, t.occurrence),
  run AS (
    INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome, occurrence, error_details)
    SELECT e.id, e.attempt, e.identifier, l.holder, l.held_since, p_now, 'FAILURE', e.task_outcome, e.occurrence, 'abandoned. Its invocation was not seen for longer than the grace period.'
    FROM (SELECT id, attempt, identifier, 'FAILED' AS task_outcome, occurrence FROM over UNION ALL SELECT id, attempt, identifier, NULL, occurrence FROM again) e
    JOIN lost l ON l.id = e.id
    RETURNING 1)
  SELECT (SELECT count(*) FROM run), array_agg(identifier) FILTER (WHERE serial_key IS NOT NULL), array_agg(serial_key) FILTER (WHERE serial_key IS NOT NULL)
  INTO v_count, v_identifiers, v_serial_keys FROM over;
  IF v_serial_keys IS NOT NULL THEN
    PERFORM pass_turn(d.identifier, d.serial_key) FROM (
      SELECT DISTINCT u.identifier, u.serial_key FROM unnest(v_identifiers, v_serial_keys) AS u(identifier, serial_key) ORDER BY 1, 2) AS d;
  END IF;
  PERFORM cancel_task_v1(c.id) FROM (SELECT unnest(cancelling) AS id FROM heartbeat WHERE invocation_id = ANY (p_dead) ORDER BY 1) AS c;
  UPDATE heartbeat SET held = 0, holds_suspect = false, cancelling = '{}' WHERE invocation_id = ANY (p_dead);
  RETURN v_count;
END
$rescue$;

-- statement
-- The statement by which pick_merged picks and locks, with the parameters of pick_merged. It merges so many index scans as it reads them. One past the last identifier
-- has LIMIT 0 and is never executed. With none it sorts what a loop of one scan finds of each, up to where one has given as many as are wanted and may have more.
CREATE FUNCTION merge_statement(p_scans integer) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path FROM CURRENT
AS $statement$
SELECT format('SELECT count(*) AS locked, coalesce(array_agg(id ORDER BY turn) FILTER (WHERE fits), ''{}'') AS ids, coalesce(array_agg(identifier) FILTER (WHERE fits), ''{}'') AS identifiers,
  coalesce(sum(bytes) FILTER (WHERE fits), 0) AS bytes, max(scheduled_for) FILTER (WHERE fits) AS last
 FROM (
  SELECT *, running <= $8 OR (NOT $9 AND turn = 1) AS fits
  FROM (
   SELECT *, row_number() OVER due_order AS turn, sum(bytes) OVER due_order AS running
   FROM (
    SELECT t.id, t.identifier, t.scheduled_for, t.bytes + 300 AS bytes
    FROM (SELECT * FROM (%s) AS scans ORDER BY scheduled_for, id OFFSET 0) AS due JOIN task t ON t.ctid = due.at AND t.xmin = due.version
    ORDER BY due.scheduled_for, due.id LIMIT $7 FOR UPDATE OF t SKIP LOCKED) AS locked
   WINDOW due_order AS (ORDER BY scheduled_for, id ROWS UNBOUNDED PRECEDING)) AS placed) AS took',
  CASE WHEN p_scans = 0 THEN format('SELECT * FROM (
      SELECT scan.*, count(*) FILTER (WHERE place = $7) OVER (ORDER BY scheduled_for, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS cut
      FROM generate_series(1, cardinality($2)) AS n CROSS JOIN LATERAL %s AS scan WHERE (($3)[n], ($4)[n]) < (v_due, v_id)) AS seen WHERE cut = 0',
    format(scan, 'n', '$7', ', row_number() OVER (ORDER BY scheduled_for, id) AS place', ' AND (scheduled_for, id) <= (v_due, v_id)'))
  ELSE (SELECT string_agg(format(scan, n, 'NULL', '', ''), ' UNION ALL ' ORDER BY n) FROM generate_series(1, p_scans) AS n) END)
FROM (SELECT '(SELECT ctid AS at, xmin AS version, scheduled_for, id%3$s FROM task
  WHERE held_by IS NULL AND suspect_since IS NULL AND has_turn AND identifier = ($2)[%1$s] AND priority = $1 AND scheduled_for <= $5 AND (scheduled_for, id) > (($3)[%1$s], ($4)[%1$s])%4$s
  ORDER BY scheduled_for, id LIMIT CASE WHEN cardinality($2) >= %1$s THEN least(%2$s, CAST($10->>($2)[%1$s] AS integer)) ELSE 0 END)' AS scan) AS template
$statement$;

-- statement
-- Picks and locks what may be taken of several identifiers of one priority, in the order due time, id. Each row is locked as it comes and passed over where others have
-- locked it. Nothing is locked that is not asked for. A merge of up to 32 scans is planned once a connection, one of more each time. Where as many identifiers are due as tasks
-- are wanted, their first tasks bound what is looked at, and looking at it one identifier after the other is cheaper than beginning that many scans.
-- Where to start, by identifier, is after (p_dues, p_after_ids). p_most, as many as seem to fit into p_bytes. rooms as in pick_tasks. The parameters become what is left to do.
DO $do$
BEGIN
  EXECUTE format($create$
CREATE FUNCTION pick_merged(p_priority smallint, p_identifiers text[], p_dues timestamptz[], p_after_ids bigint[], p_now timestamptz, p_want integer, p_most bigint, p_bytes bigint,
  p_any boolean, INOUT rooms jsonb, OUT ids bigint[], OUT bytes bigint, OUT more boolean)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_material = off
AS $merged$
#variable_conflict use_column
DECLARE
  v_count integer;
  v_scans bigint;
  v_reach bigint = 2 * p_most;
  v_due timestamptz;
  v_id bigint;
  v_took record;
BEGIN
  ids = '{}';
  bytes = 0;
  more = false;
  -- In the order of their first tasks. Those without room give nothing.
  SELECT array_agg(identifier ORDER BY due, id), array_agg(due ORDER BY due, id), array_agg(id ORDER BY due, id) INTO p_identifiers, p_dues, p_after_ids
  FROM unnest(p_identifiers, p_dues, p_after_ids) AS a(identifier, due, id) WHERE coalesce(CAST(rooms->>a.identifier AS integer), 1) > 0;
  WHILE p_identifiers IS NOT NULL LOOP
    v_count = cardinality(p_identifiers);
    -- What another has changed since it was read is another version by now, and is left to the next claim. Told by xmin, as not every Postgres compares the place
    -- again, and as columns would offer the planner an index. OFFSET keeps the merge out of that second look.
    IF p_most <= least(100, v_count) AND v_reach IS NOT NULL THEN
      -- Up to the latest of twice as many first tasks as are wanted, as others may be claiming some, then of four times as many. Of no more than a hundred, as each of them may have as many.
      v_due = p_dues[least(v_reach, v_count)];
      v_id = p_after_ids[least(v_reach, v_count)] + 1;
      %s INTO v_took;
      IF v_took.locked < p_most THEN
        v_reach = CASE WHEN v_reach < least(v_count, 4 * p_most) THEN 4 * p_most END;
        CONTINUE;
      END IF;
    ELSIF v_count <= 8 THEN
      %s INTO v_took;
    ELSIF v_count <= 32 THEN
      %s INTO v_took;
    ELSE
      -- One whose first task comes after as many others as are wanted is needed only where others have locked some of these.
      v_scans = CASE WHEN v_reach IS NULL THEN v_count ELSE least(v_count, p_most) END;
      EXECUTE merge_statement(CAST(v_scans AS integer)) INTO v_took USING $1, $2, $3, $4, $5, $6, $7, $8, $9, $10;
      v_reach = NULL;
      CONTINUE WHEN v_took.locked < p_most AND v_scans < v_count;
    END IF;
    ids = ids || v_took.ids;
    bytes = bytes + v_took.bytes;
    p_bytes = p_bytes - v_took.bytes;
    p_any = p_any OR ids <> '{}';
    IF rooms <> '{}' THEN
      SELECT jsonb_object_agg(r.key, CAST(r.value AS integer) - cardinality(array_positions(v_took.identifiers, r.key))) INTO rooms FROM jsonb_each_text(rooms) AS r;
    END IF;
    more = v_took.locked > cardinality(v_took.ids);
    EXIT WHEN more OR v_took.locked < p_most;
    v_id = ids[cardinality(ids)];
    -- Where each goes on. One that does is enough when nothing more is wanted.
    SELECT array_agg(identifier ORDER BY due, id), array_agg(due ORDER BY due, id), array_agg(id ORDER BY due, id) INTO p_identifiers, p_dues, p_after_ids
    FROM (
      SELECT a.identifier, head.due, head.id FROM unnest(p_identifiers, p_dues, p_after_ids) AS a(identifier, due, id) CROSS JOIN LATERAL (
        SELECT t.scheduled_for, t.id - 1 FROM task t
        WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = a.identifier AND t.priority = p_priority AND t.scheduled_for <= p_now
          AND (t.scheduled_for, t.id) > (greatest(a.due, v_took.last), CASE WHEN (a.due, a.id) > (v_took.last, v_id) THEN a.id ELSE v_id END)
        ORDER BY t.scheduled_for, t.id LIMIT 1) AS head(due, id)
      WHERE coalesce(CAST(rooms->>a.identifier AS integer), 1) > 0 LIMIT CASE WHEN cardinality(ids) = p_want THEN 1 END) AS heads;
    more = p_identifiers IS NOT NULL;
    EXIT WHEN NOT more OR cardinality(ids) = p_want;
    -- Those that came weigh less than the first ones seemed to. By the last of them, as a large one in front says nothing of those behind it.
    p_most = least(p_want - cardinality(ids), greatest(1, p_bytes * cardinality(v_took.ids) / v_took.bytes));
    v_reach = 2 * p_most;
  END LOOP;
END
$merged$$create$, merge_statement(0), merge_statement(8), merge_statement(32));
END
$do$;

-- statement
-- Picks and locks what a claim may take, in the order priority, due time, id. p_floors, per identifier and priority the (due time, id)
-- last claimed by this invocation, spares it the dead entries of an index that an old snapshot keeps. p_rooms, how many more of an
-- identifier with a limit may run. A level of one identifier is locked in the order of its index, past what others have locked, where the weight
-- of the first says that all that are wanted fit. Otherwise, and several, by pick_merged.
CREATE FUNCTION pick_tasks(p_identifiers text[], p_now timestamptz, p_want integer, p_bytes integer, p_floors jsonb, p_rooms jsonb, OUT ids bigint[], OUT more boolean)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $pick$
#variable_conflict use_column
DECLARE
  v_level record;
  v_took record;
  v_want integer;
  v_bytes bigint = 0;
  v_rooms jsonb = p_rooms;
BEGIN
  ids = '{}';
  more = false;
  FOR v_level IN
    -- Whatever follows starts at what was found here: an index full of dead entries is walked through once, not by each statement.
    SELECT p.priority, array_agg(i.identifier) AS identifiers, array_agg(head.scheduled_for) AS dues, array_agg(head.id - 1) AS floor_ids, max(head.bytes) AS bytes
    FROM unnest(CAST('{0,25,50,75,100}' AS smallint[])) AS p(priority)
    CROSS JOIN unnest(p_identifiers) AS i(identifier)
    LEFT JOIN jsonb_to_recordset(p_floors) AS f(identifier text, priority smallint, due timestamptz, id bigint)
      ON f.identifier = i.identifier AND f.priority = p.priority
    CROSS JOIN LATERAL (
      SELECT t.scheduled_for, t.id, t.bytes + 300 AS bytes FROM task t
      WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = i.identifier AND t.priority = p.priority
        AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (coalesce(f.due, '-infinity'), coalesce(f.id, 0))
      ORDER BY t.scheduled_for, t.id LIMIT 1) AS head
    GROUP BY p.priority ORDER BY p.priority
  LOOP
    v_want = p_want - cardinality(ids);
    IF v_want > 0 AND cardinality(v_level.identifiers) = 1 AND v_rooms = '{}' AND v_level.bytes * v_want <= p_bytes - v_bytes THEN
      -- Those behind the first may weigh more.
      SELECT count(*) AS locked, coalesce(array_agg(id ORDER BY place) FILTER (WHERE fits), '{}') AS ids, coalesce(sum(bytes) FILTER (WHERE fits), 0) AS bytes,
        max(scheduled_for) FILTER (WHERE fits) AS last
      INTO v_took
      FROM (
        SELECT id, scheduled_for, bytes, place, v_bytes + running <= p_bytes OR (v_bytes = 0 AND place = 1) AS fits
        FROM (
          SELECT id, scheduled_for, bytes, row_number() OVER due_order AS place, sum(bytes) OVER due_order AS running
          FROM (
            SELECT t.id, t.scheduled_for, t.bytes + 300 AS bytes FROM task t
            WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = v_level.identifiers[1] AND t.priority = v_level.priority
              AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (v_level.dues[1], v_level.floor_ids[1])
            ORDER BY t.scheduled_for, t.id LIMIT v_want FOR UPDATE SKIP LOCKED) AS locked
          WINDOW due_order AS (ORDER BY scheduled_for, id ROWS UNBOUNDED PRECEDING)) AS placed) AS took;
      ids = ids || v_took.ids;
      v_bytes = v_bytes + v_took.bytes;
      more = v_took.locked > cardinality(v_took.ids) OR (v_took.locked = v_want AND EXISTS (
        SELECT FROM task t
        WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = v_level.identifiers[1] AND t.priority = v_level.priority
          AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (v_took.last, v_took.ids[cardinality(v_took.ids)])));
    ELSIF v_want > 0 THEN
      SELECT * INTO v_took FROM pick_merged(v_level.priority, v_level.identifiers, v_level.dues, v_level.floor_ids, p_now, v_want,
        least(v_want, greatest(1, (p_bytes - v_bytes) / v_level.bytes)), p_bytes - v_bytes, v_bytes > 0, v_rooms);
      ids = ids || v_took.ids;
      v_bytes = v_bytes + v_took.bytes;
      v_rooms = v_took.rooms;
      more = v_took.more;
    ELSE
      more = EXISTS (SELECT FROM unnest(v_level.identifiers) AS i(identifier) WHERE coalesce(CAST(v_rooms->>i.identifier AS integer), 1) > 0);
    END IF;
    EXIT WHEN more;
  END LOOP;
END
$pick$;

-- statement
-- How many more of each identifier with a limit may run. The lock on an identifier is tried, never waited for. Who does not get it
-- leaves that identifier to the one who claims now.
CREATE FUNCTION rooms_of(p_release text) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $rooms$
#variable_conflict use_column
DECLARE
  v_mine text[];
BEGIN
  SELECT array_agg(l.identifier) INTO v_mine FROM (
    SELECT identifier FROM release_task WHERE release_id = p_release AND concurrency IS NOT NULL ORDER BY identifier) AS l
  WHERE pg_try_advisory_xact_lock(hashtextextended(current_schema() || l.identifier, 2));
  -- A statement of its own, younger than the locks. What is held is counted once for all.
  RETURN (SELECT jsonb_object_agg(r.identifier, CASE WHEN r.identifier = ANY (v_mine) THEN greatest(0, r.concurrency - coalesce(held.count, 0)) ELSE 0 END)
    FROM release_task r LEFT JOIN (SELECT t.identifier, count(*) AS count FROM task t WHERE t.held_by IS NOT NULL GROUP BY 1) AS held ON held.identifier = r.identifier
    WHERE r.release_id = p_release AND r.concurrency IS NOT NULL);
END
$rooms$;

-- statement
-- Registers a release's definitions, once: exchanges name the release only.
CREATE FUNCTION register_release_v1(p_request jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $release$
BEGIN
  INSERT INTO release (id) VALUES (p_request->>'release') ON CONFLICT DO NOTHING;
  INSERT INTO release_task (release_id, identifier, timeout_ms, max_attempts, concurrency)
  SELECT p_request->>'release', t.identifier, t."timeoutMs", t."maxAttempts", t.concurrency
  FROM jsonb_to_recordset(p_request->'tasks') AS t(identifier text, "timeoutMs" integer, "maxAttempts" integer, concurrency integer)
  ON CONFLICT DO NOTHING;
  RETURN true;
END
$release$;

-- statement
-- Disables schedules that have been due for 30 minutes in which invocations lived and no release among them knew them.
CREATE FUNCTION disable_unknown(p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $unknown$
BEGIN
  UPDATE recurring_task r SET enabled = false, disabled_why = 'UNKNOWN'
  WHERE r.enabled AND r.next_at < p_now - interval '30 minutes'
    AND NOT EXISTS (
      SELECT FROM heartbeat h JOIN release_task k ON k.release_id = h.release_id AND k.identifier = r.identifier
      WHERE h.last_seen_at > p_now - interval '30 minutes')
    AND (SELECT count(DISTINCT floor(extract(epoch FROM p_now - seen.at) / 600)) FROM heartbeat h
      CROSS JOIN LATERAL generate_series(greatest(h.started_at, p_now - interval '30 minutes'), h.last_seen_at, interval '1 minute') AS seen(at)
      WHERE h.last_seen_at > p_now - interval '30 minutes' AND seen.at > p_now - interval '30 minutes' AND seen.at <= p_now) >= 3;
END
$unknown$;

-- statement
-- The exchange as release 0.1.0 speaks it, which may still run while this schema is there already: the exchange first, then a row a task, in their order.
CREATE FUNCTION exchange_v1(p_request jsonb) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $exchange$
DECLARE
  v_rows text[];
BEGIN
  SELECT array_agg(e.answer ORDER BY e.place) INTO v_rows FROM exchange_v2(p_request) WITH ORDINALITY AS e(answer, place);
  RETURN NEXT v_rows[cardinality(v_rows)];
  RETURN QUERY
  SELECT rtrim(CAST(t.told AS text), ']') || ', ' || CAST(t.payload AS text) || ']'
  FROM unnest(trim_array(v_rows, 1)) AS r(tasks) CROSS JOIN LATERAL (
    SELECT e.value AS told, lead(e.value) OVER (ORDER BY e.place) AS payload, e.place
    FROM json_array_elements(CAST('[' || r.tasks || ']' AS json)) WITH ORDINALITY AS e(value, place)) AS t
  WHERE t.place % 2 = 1
  ORDER BY CAST(t.told->>5 AS integer), CAST(t.told->>6 AS timestamptz), CAST(t.told->>0 AS bigint);
END
$exchange$;

-- statement
-- Stores what a release knows of its schedules, where it differs from what they were last planned by. Waits for `waitMs` at the most, as above.
CREATE FUNCTION plan_recurring_v1(p_request jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $plan$
#variable_conflict use_column
DECLARE
  v_count integer;
BEGIN
  PERFORM set_config('lock_timeout', p_request->>'waitMs', true) WHERE p_request ? 'waitMs';
  INSERT INTO recurring_task AS r (identifier, schedule, next_at)
  SELECT s.identifier, s.schedule, s."nextAt" FROM jsonb_to_recordset(p_request->'schedules') AS s(identifier text, schedule text, "nextAt" timestamptz)
  ORDER BY s.identifier
  ON CONFLICT (identifier) DO UPDATE SET schedule = excluded.schedule, next_at = excluded.next_at WHERE r.schedule <> excluded.schedule;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$plan$;

-- statement
-- Plans the next occurrence by compare-and-set on the stored one and the schedule that it was planned by, and enqueues the due ones in the same call. Whoever has another
-- schedule, as a release before or after this one, fires nothing of it. Waits for `waitMs` at the most for who has it locked: a caller that has given up must not fire later.
CREATE FUNCTION fire_recurring_v2(p_request jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $fire$
BEGIN
  PERFORM set_config('lock_timeout', p_request->>'waitMs', true) WHERE p_request ? 'waitMs';
  UPDATE recurring_task SET next_at = CAST(p_request->>'nextAt' AS timestamptz), last_occurrence = CAST(p_request->>'expectedAt' AS timestamptz)
  WHERE identifier = p_request->>'identifier' AND next_at = CAST(p_request->>'expectedAt' AS timestamptz) AND schedule = p_request->>'schedule' AND enabled
    AND CAST(p_request->>'nextAt' AS timestamptz) > next_at;
  IF NOT FOUND THEN
    RETURN 'lost';
  END IF;
  IF jsonb_array_length(p_request->'occurrences') = 0 THEN
    RETURN 'skipped';
  END IF;
  IF NOT CAST(p_request->>'overlap' AS boolean) THEN
    -- An operator may be just about to retry one of them.
    PERFORM take_serial_key(p_request->>'identifier', 'occurrence');
    IF EXISTS (SELECT FROM task WHERE identifier = p_request->>'identifier' AND occurrence IS NOT NULL) THEN
      UPDATE recurring_task SET skipped = skipped + 1 WHERE identifier = p_request->>'identifier';
      RETURN 'skipped';
    END IF;
  END IF;
  -- Without overlap several missed ones run one after another. None is unfinished, so the first of them has the turn.
  INSERT INTO task (identifier, payload, priority, scheduled_for, occurrence, serial_key, has_turn)
  SELECT p_request->>'identifier', p_request->'payload', CAST(p_request->>'priority' AS smallint), o.due, o.due,
    CASE WHEN NOT CAST(p_request->>'overlap' AS boolean) THEN 'occurrence' END, CAST(p_request->>'overlap' AS boolean) OR o.place = 1
  FROM (SELECT CAST(value AS timestamptz) AS due, row_number() OVER (ORDER BY CAST(value AS timestamptz)) AS place
    FROM jsonb_array_elements_text(p_request->'occurrences')) o ORDER BY o.due;
  RETURN 'fired';
END
$fire$;

-- statement
-- As release 0.1.0 calls it, which does not say by which schedule.
CREATE FUNCTION fire_recurring_v1(p_request jsonb) RETURNS text
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $fire$
  SELECT fire_recurring_v2(p_request || jsonb_build_object('schedule', (SELECT schedule FROM recurring_task WHERE identifier = p_request->>'identifier')))
$fire$;

-- statement
CREATE FUNCTION check_database_v1(p_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $check$
BEGIN
  INSERT INTO health_check (id) VALUES (p_id);
  UPDATE health_check SET created_at = clock_timestamp() WHERE id = p_id;
  DELETE FROM health_check WHERE id = p_id;
  RETURN FOUND;
END
$check$;

-- statement
-- As before, in two parts. For the exchange: what was asked of a holder that is gone.
CREATE FUNCTION cancel_task_v1(p_id bigint) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $cancel$
#variable_conflict use_column
DECLARE
  v_holder uuid;
BEGIN
  SELECT held_by INTO v_holder FROM task WHERE id = p_id;
  IF v_holder IS NOT NULL THEN
    -- The heartbeat row first, as it guards the task.
    PERFORM FROM heartbeat WHERE invocation_id = v_holder FOR UPDATE;
    UPDATE heartbeat SET cancelling = array_append(array_remove(cancelling, p_id), p_id)
    WHERE invocation_id = v_holder AND ended_at IS NULL AND expired_at IS NULL
      AND EXISTS (SELECT FROM task WHERE id = p_id AND held_by = v_holder);
    IF FOUND THEN
      RETURN 'cancelling';
    END IF;
  END IF;
  RETURN cancel_waiting(p_id);
END
$cancel$;

-- statement
-- One bounded batch of one kind of old rows. The number removed. Heartbeats go once their metrics are folded, failed tasks are counted as purged.
CREATE FUNCTION clean_up_v1(p_kind text, p_days integer, p_batch integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
AS $clean$
#variable_conflict use_column
DECLARE
  v_count integer;
  v_gone record;
  v_before timestamptz = clock_timestamp() - p_days * interval '1 day';
BEGIN
  IF p_kind IN ('task_run', 'recurring_run') THEN
    -- Runs of unfinished and of failed tasks stay with them.
    DELETE FROM task_run r WHERE ctid = ANY (ARRAY (
      SELECT o.ctid FROM task_run o WHERE o.finished_at < v_before AND (o.occurrence IS NULL) = (p_kind = 'task_run')
        AND NOT EXISTS (SELECT FROM task t WHERE t.id = o.task_id) AND NOT EXISTS (SELECT FROM failed_task f WHERE f.id = o.task_id)
      ORDER BY o.finished_at LIMIT p_batch));
  ELSIF p_kind = 'failed_task' THEN
    WITH gone AS (
      DELETE FROM failed_task WHERE id IN (SELECT id FROM failed_task WHERE failed_at < v_before ORDER BY failed_at LIMIT p_batch) RETURNING identifier, occurrence IS NOT NULL AS recurring)
    SELECT count(*) AS count, array_agg(identifier) AS identifiers, array_agg(recurring) AS recurring INTO v_gone FROM gone;
    PERFORM count_removed(v_gone.identifiers, v_gone.recurring, 'purged');
    RETURN v_gone.count;
  ELSIF p_kind = 'heartbeat' THEN
    DELETE FROM heartbeat WHERE invocation_id IN (
      SELECT h.invocation_id FROM heartbeat h
      WHERE (h.ended_at IS NOT NULL OR h.expired_at IS NOT NULL) AND h.folded AND h.last_seen_at < v_before AND h.held = 0
        AND EXISTS (SELECT FROM heartbeat y WHERE y.slot = h.slot AND y.started_at > h.started_at)
      LIMIT p_batch);
  ELSIF p_kind = 'enqueue_request' THEN
    DELETE FROM enqueue_request WHERE token IN (SELECT token FROM enqueue_request WHERE created_at < v_before LIMIT p_batch);
  ELSIF p_kind = 'health_check' THEN
    DELETE FROM health_check WHERE id IN (SELECT id FROM health_check WHERE created_at < v_before LIMIT p_batch);
  ELSIF p_kind = 'audit' THEN
    DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < v_before ORDER BY at LIMIT p_batch);
  ELSE
    RAISE EXCEPTION 'nothing is known of %', p_kind USING ERRCODE = 'TP002';
  END IF;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$clean$;

-- statement
-- Seats that nobody sits on and for which nobody was called within the grace period, lowest first; they count as called for now.
-- A seat that another exchange is looking at is passed over.
CREATE FUNCTION free_seats(p_slots integer, p_most integer, p_now timestamptz, p_grace interval) RETURNS integer[]
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $free$
DECLARE
  v_numbers integer[];
BEGIN
  IF (SELECT count(*) FROM slot WHERE number < p_slots) < p_slots THEN
    INSERT INTO slot (number, epoch) SELECT n, 0 FROM generate_series(0, p_slots - 1) AS n ORDER BY n ON CONFLICT DO NOTHING;
  END IF;
  WITH free AS (
    SELECT s.number FROM slot s
    WHERE s.number < p_slots AND coalesce(s.woken_at, '-infinity') < p_now - p_grace AND NOT EXISTS (
      SELECT FROM heartbeat h WHERE h.invocation_id = s.holder AND h.ended_at IS NULL AND h.expired_at IS NULL)
    ORDER BY s.number LIMIT p_most FOR UPDATE OF s SKIP LOCKED),
  called AS (
    UPDATE slot s SET woken_at = p_now FROM free f WHERE s.number = f.number RETURNING s.number)
  SELECT array_agg(number ORDER BY number) INTO v_numbers FROM called;
  RETURN v_numbers;
END
$free$;

-- statement
-- Hands in runs that succeeded and returned nothing to keep, by columns: p_done {id, attempt, started, finished}, each an array as Postgres writes it.
-- The caller has locked the heartbeat row that guards these tasks. Fenced by holder and attempt number.
CREATE FUNCTION record_done(p_me uuid, p_now timestamptz, p_done jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_nestloop = off
SET jit = off
AS $done$
#variable_conflict use_column
DECLARE
  v_count integer;
  v_identifiers text[];
  v_serial_keys text[];
BEGIN
  -- Their rows are read together, page by page, and hashed with what came; a look into the index for each is dearer.
  WITH result AS MATERIALIZED (
    SELECT * FROM unnest(CAST(p_done->>'id' AS bigint[]), CAST(p_done->>'attempt' AS integer[]), CAST(p_done->>'started' AS float8[]), CAST(p_done->>'finished' AS float8[]))
      AS r(id, attempt, started, finished)),
  done AS (
    DELETE FROM task t USING result r
    WHERE t.id = ANY (CAST(p_done->>'id' AS bigint[])) AND t.id = r.id AND t.held_by IS NOT DISTINCT FROM p_me AND t.attempt = r.attempt
    RETURNING t.id, t.attempt, t.identifier, t.serial_key, t.occurrence, r.started, r.finished),
  run AS (
    INSERT INTO task_run (task_id, attempt, identifier, invocation_id, started_at, finished_at, result, task_outcome, occurrence)
    SELECT id, attempt, identifier, p_me, p_now - started * interval '1 millisecond', p_now - finished * interval '1 millisecond', 'SUCCESS', 'SUCCEEDED', occurrence FROM done)
  SELECT count(*), array_agg(identifier) FILTER (WHERE serial_key IS NOT NULL), array_agg(serial_key) FILTER (WHERE serial_key IS NOT NULL)
  INTO v_count, v_identifiers, v_serial_keys FROM done;
  IF v_serial_keys IS NOT NULL THEN
    PERFORM pass_turn(d.identifier, d.serial_key) FROM (
      SELECT DISTINCT u.identifier, u.serial_key FROM unnest(v_identifiers, v_serial_keys) AS u(identifier, serial_key) ORDER BY 1, 2) AS d;
  END IF;
  RETURN v_count;
END
$done$;

-- statement
-- p_request {invocation, slot, onlyFree, release, graceMs, seq, acked, want, alone, ending, remainingMs, bytes, floors, results, done, progress, metrics, wake {slots, most}, waitMs};
-- done (as in record_done) and what follows it may be missing. Waits for waitMs at the most for who has a row locked: for a caller that has given up nothing is claimed. Answers the tasks that the caller was not yet known to know of, in no order, several in a row of
-- at most some 60 KB, each as an array of its columns and its payload, with commas between all. Then, as the last row, the exchange itself.
CREATE FUNCTION exchange_v2(p_request jsonb) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
SET timezone = 'UTC'
AS $exchange$
#variable_conflict use_column
DECLARE
  v_me uuid = CAST(p_request->>'invocation' AS uuid);
  v_slot integer = CAST(p_request->>'slot' AS integer);
  v_seq integer = CAST(p_request->>'seq' AS integer);
  v_acked integer = CAST(p_request->>'acked' AS integer);
  v_want integer = CAST(p_request->>'want' AS integer);
  v_ending boolean = CAST(p_request->>'ending' AS boolean);
  v_grace interval = CAST(p_request->>'graceMs' AS float8) * interval '1 millisecond';
  v_done integer = coalesce(cardinality(CAST(p_request->'done'->>'id' AS bigint[])), 0);
  v_results integer = jsonb_array_length(p_request->'results');
  v_wait text = p_request->>'waitMs';
  v_reported bigint[];
  v_succeeded integer;
  h heartbeat;
  v_now timestamptz;
  v_new boolean;
  v_newest boolean;
  v_recorded record;
  v_dead uuid[];
  v_rescued integer = 0;
  v_silent boolean;
  v_fading boolean;
  v_identifiers text[];
  v_max_attempts jsonb;
  v_rooms jsonb = '{}';
  v_suspect record;
  v_pick record;
  v_ids bigint[] = '{}';
  v_more boolean = false;
  v_starves boolean = false;
  v_due json;
  v_schedules json;
  v_wake integer[];
  -- Where a row of the answer is cut. The Data API takes 64 KB a row, and the largest payload comes on top.
  v_row_bytes CONSTANT integer = 8192;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'an exchange runs under READ COMMITTED only' USING ERRCODE = 'TP001';
  END IF;
  IF v_wait IS NOT NULL THEN
    v_wait = set_config('lock_timeout', v_wait, true);
  END IF;

  -- 1. own row, before any other lock
  IF v_seq = 1 THEN
    IF NOT EXISTS (SELECT FROM release WHERE id = p_request->>'release') THEN
      RETURN NEXT json_build_object('status', 'unknown_release');
      RETURN;
    END IF;
    INSERT INTO heartbeat (invocation_id, slot, release_id, grace) VALUES (v_me, v_slot, p_request->>'release', v_grace) ON CONFLICT DO NOTHING;
  END IF;
  SELECT * INTO h FROM heartbeat WHERE invocation_id = v_me FOR UPDATE;
  IF NOT FOUND OR h.ended_at IS NOT NULL OR h.expired_at IS NOT NULL THEN
    RETURN NEXT json_build_object('status', 'gone', 'ended', h.ended_at IS NOT NULL AND h.seq = v_seq);
    RETURN;
  END IF;
  IF v_seq < h.seq THEN
    RETURN NEXT json_build_object('status', 'old');
    RETURN;
  END IF;
  v_now = clock_timestamp();
  v_new = v_seq > h.seq;

  -- 2. the seat
  IF h.seq = 0 THEN
    SELECT epoch INTO h.epoch FROM take_seat(v_me, v_slot, CAST(p_request->>'onlyFree' AS boolean));
    IF h.epoch IS NULL THEN
      DELETE FROM heartbeat WHERE invocation_id = v_me;
      RETURN NEXT json_build_object('status', 'seat_taken');
      RETURN;
    END IF;
    UPDATE slot SET woken_at = NULL WHERE number = v_slot AND woken_at IS NOT NULL;
    h.seen_since = v_now;
    h.last_seen_at = v_now;
  END IF;
  SELECT holder IS NOT DISTINCT FROM v_me AND epoch = h.epoch INTO v_newest FROM slot WHERE number = v_slot;
  v_newest = coalesce(v_newest, false);
  IF v_now - h.last_seen_at > v_grace / 2 THEN
    h.seen_since = v_now;
  END IF;

  IF v_new THEN
    -- 3. results
    IF v_done > 0 THEN
      v_succeeded = record_done(v_me, v_now, p_request->'done');
      h.succeeded = h.succeeded + v_succeeded;
      h.held = h.held - v_succeeded;
      h.stale_completions = h.stale_completions + v_done - v_succeeded;
    END IF;
    IF v_results > 0 THEN
      SELECT * INTO v_recorded FROM record_results(v_me, v_now, p_request->'results');
      h.succeeded = h.succeeded + v_recorded.succeeded;
      h.failed = h.failed + v_recorded.failed;
      h.held = h.held - v_recorded.succeeded - v_recorded.failed - v_recorded.released;
      h.stale_completions = h.stale_completions + v_results - v_recorded.succeeded - v_recorded.failed - v_recorded.released;
    END IF;
    h.holds_suspect = h.holds_suspect AND h.held > 0;
    IF h.cancelling <> '{}' THEN
      -- One whose run ended otherwise before its holder heard of the cancel is cancelled now, where it waits again.
      v_reported = CAST(p_request->'done'->>'id' AS bigint[]) || ARRAY (SELECT id FROM jsonb_to_recordset(p_request->'results') AS r(id bigint));
      PERFORM cancel_task_v1(c.id) FROM unnest(h.cancelling) AS c(id) WHERE c.id = ANY (v_reported) ORDER BY c.id;
      h.cancelling = ARRAY (SELECT c.id FROM unnest(h.cancelling) AS c(id) WHERE c.id <> ALL (v_reported));
    END IF;

    IF p_request ? 'progress' THEN
      UPDATE task t SET progress = r.value FROM jsonb_to_recordset(p_request->'progress') AS r(id bigint, attempt integer, value jsonb)
      WHERE t.id = ANY (ARRAY (SELECT p.id FROM jsonb_to_recordset(p_request->'progress') AS p(id bigint))) AND t.id = r.id AND t.held_by IS NOT DISTINCT FROM v_me AND t.attempt = r.attempt;
    END IF;

    -- 4. and 5. the silent, as a witness only: seen over grace/4 without a gap over grace/2
    IF v_now - h.seen_since >= v_grace / 4 THEN
      WITH silent AS (
        SELECT invocation_id FROM heartbeat
        WHERE ended_at IS NULL AND expired_at IS NULL AND last_seen_at < v_now - v_grace AND last_seen_at < v_now - greatest(grace, v_grace) AND invocation_id <> v_me
        ORDER BY invocation_id FOR UPDATE SKIP LOCKED),
      expired AS (
        UPDATE heartbeat b SET expired_at = v_now FROM silent s WHERE b.invocation_id = s.invocation_id RETURNING b.invocation_id)
      SELECT array_agg(invocation_id) INTO v_dead FROM expired;
      IF v_dead IS NOT NULL THEN
        v_rescued = rescue(v_dead, v_now);
        h.rescued = h.rescued + v_rescued;
      END IF;
    END IF;
  END IF;

  -- 6. claim
  IF v_new AND v_newest AND NOT v_ending THEN
    SELECT array_agg(identifier), jsonb_object_agg(identifier, max_attempts) INTO v_identifiers, v_max_attempts FROM release_task
    WHERE release_id = h.release_id AND (p_request->>'remainingMs' IS NULL OR timeout_ms <= CAST(p_request->>'remainingMs' AS float8))
      AND NOT EXISTS (SELECT FROM paused_identifier p WHERE p.identifier IN (release_task.identifier, '*'));
    IF EXISTS (SELECT FROM release_task WHERE release_id = h.release_id AND concurrency IS NOT NULL) THEN
      v_rooms = rooms_of(h.release_id);
      SELECT array_agg(i.identifier) INTO v_identifiers FROM unnest(v_identifiers) AS i(identifier)
      WHERE coalesce(CAST(v_rooms->>i.identifier AS integer), 1) > 0;
    END IF;
    IF EXISTS (SELECT FROM serial_gap) THEN
      PERFORM pass_turn(g.identifier, g.serial_key) FROM (SELECT DISTINCT identifier, serial_key FROM serial_gap ORDER BY 1, 2 LIMIT 100) AS g
      WHERE pg_try_advisory_xact_lock(hashtextextended(current_schema() || g.identifier || ' ' || g.serial_key, 1));
    END IF;
    IF v_want > 0 AND (h.held = 0 OR h.claimed_seq <= v_acked) THEN
      SELECT t.id, t.priority, t.scheduled_for, greatest(t.scheduled_for, t.suspect_since) < v_now - v_grace AS starves
      INTO v_suspect FROM task t
      WHERE t.held_by IS NULL AND t.suspect_since IS NOT NULL AND t.scheduled_for <= v_now AND t.identifier = ANY (v_identifiers)
      ORDER BY greatest(t.scheduled_for, t.suspect_since) < v_now - v_grace DESC, t.priority, t.scheduled_for, t.id LIMIT 1;
      -- Whoever has just run one claims of the others first. So many suspects do not keep everything else waiting, each of them for a turn alone.
      IF v_suspect.id IS NOT NULL AND NOT h.ran_suspect AND h.held = 0 AND CAST(p_request->>'alone' AS boolean) AND (v_suspect.starves OR NOT EXISTS (
        SELECT FROM unnest(v_identifiers) AS i(identifier) CROSS JOIN unnest(CAST('{0,25,50,75,100}' AS smallint[])) AS p(priority)
        CROSS JOIN LATERAL (
          SELECT t.id, t.scheduled_for FROM task t
          WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = i.identifier AND t.priority = p.priority AND t.scheduled_for <= v_now
          ORDER BY t.scheduled_for, t.id LIMIT 1) AS head
        WHERE (p.priority, head.scheduled_for, head.id) < (v_suspect.priority, v_suspect.scheduled_for, v_suspect.id))) THEN
        SELECT array_agg(id) INTO v_ids FROM (
          SELECT id FROM task WHERE id = v_suspect.id AND held_by IS NULL AND suspect_since IS NOT NULL FOR UPDATE SKIP LOCKED) locked;
        h.holds_suspect = v_ids IS NOT NULL;
        h.ran_suspect = h.holds_suspect;
      END IF;
      IF h.holds_suspect THEN
        v_more = true;
      ELSIF v_suspect.id IS NOT NULL AND v_suspect.starves AND NOT h.ran_suspect AND (h.held > 0 OR NOT CAST(p_request->>'alone' AS boolean)) THEN
        -- It waits for an invocation that holds nothing, here and in the process's other databases: become one.
        v_more = true;
        v_starves = true;
      ELSE
        SELECT * INTO v_pick FROM pick_tasks(v_identifiers, v_now, v_want, CAST(p_request->>'bytes' AS integer), p_request->'floors', v_rooms);
        v_ids = v_pick.ids;
        v_more = v_pick.more OR v_suspect.id IS NOT NULL;
        -- There was nothing else. It is the next one's turn.
        v_starves = h.ran_suspect AND v_ids = '{}' AND v_suspect.id IS NOT NULL;
        h.ran_suspect = false;
      END IF;
      IF cardinality(v_ids) > 0 THEN
        RETURN QUERY
        WITH claimed AS (
          -- Looked up, not joined. What a task is compared with must not grow with the number of identifiers.
          UPDATE task t SET held_by = v_me, held_since = v_now, claim_seq = v_seq, attempt = t.attempt + 1, max_attempts = coalesce(t.max_attempts, CAST(v_max_attempts->>t.identifier AS integer))
          WHERE t.id = ANY (v_ids)
          RETURNING CAST(json_build_array(CAST(t.id AS text), t.identifier, t.attempt, t.attempt - t.forgiven, t.max_attempts, t.priority, t.scheduled_for, t.suspect_since IS NOT NULL,
            t.occurrence, t.trace_parent) AS text) || ',' || CAST(t.payload AS text) AS told),
        placed AS (SELECT told, sum(octet_length(told)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(told) AS at FROM claimed)
        SELECT string_agg(told, ',') FROM placed GROUP BY at / v_row_bytes;
        h.held = h.held + cardinality(v_ids);
        h.claimed = h.claimed + cardinality(v_ids);
        h.claimed_seq = v_seq;
      END IF;
    ELSE
      SELECT more INTO v_more FROM pick_tasks(v_identifiers, v_now, 0, 0, p_request->'floors', v_rooms);
    END IF;
    SELECT json_agg(json_build_object('identifier', identifier, 'nextAt', next_at, 'schedule', schedule)) INTO v_due FROM recurring_task
    WHERE enabled AND next_at <= v_now AND identifier IN (SELECT identifier FROM release_task WHERE release_id = h.release_id);
    IF v_seq = 1 THEN
      UPDATE recurring_task SET enabled = true, disabled_why = NULL
      WHERE NOT enabled AND disabled_why = 'UNKNOWN' AND identifier IN (SELECT identifier FROM release_task WHERE release_id = h.release_id);
      PERFORM disable_unknown(v_now);
      SELECT json_object_agg(identifier, schedule) INTO v_schedules FROM recurring_task;
    END IF;
  END IF;

  -- More is due than it took. Each free seat is woken by one exchange only. Not at seq 1, which may have just made its own seat.
  IF v_more AND v_new AND v_newest AND v_seq > 1 AND NOT v_ending AND p_request ? 'wake' THEN
    v_wake = free_seats(CAST(p_request->'wake'->>'slots' AS integer), CAST(p_request->'wake'->>'most' AS integer), v_now, v_grace);
  END IF;

  -- What an earlier answer told, but nobody is known to have heard
  IF (h.claimed_seq > v_acked AND h.held > 0 AND h.claimed_seq <> v_seq AND NOT v_ending) OR NOT v_new THEN
    RETURN QUERY
    WITH held AS (
      SELECT CAST(json_build_array(CAST(id AS text), identifier, attempt, attempt - forgiven, max_attempts, priority, scheduled_for, suspect_since IS NOT NULL, occurrence, trace_parent) AS text) || ',' || CAST(payload AS text) AS told FROM task WHERE held_by = v_me AND claim_seq > v_acked),
    placed AS (SELECT told, sum(octet_length(told)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(told) AS at FROM held)
    SELECT string_agg(told, ',') FROM placed GROUP BY at / v_row_bytes;
  END IF;

  -- 7. the end
  IF v_ending AND v_new THEN
    UPDATE task SET held_by = NULL, held_since = NULL, claim_seq = NULL, forgiven = forgiven + 1 WHERE held_by = v_me;
    PERFORM cancel_task_v1(c.id) FROM unnest(h.cancelling) AS c(id) ORDER BY c.id;
    h.cancelling = '{}';
    UPDATE slot SET holder = NULL WHERE number = v_slot AND holder = v_me AND epoch = h.epoch;
    h.ended_at = clock_timestamp();
    h.held = 0;
  END IF;

  -- 8. beat and answer
  UPDATE heartbeat SET last_seen_at = clock_timestamp(), seen_since = h.seen_since, seq = v_seq, epoch = h.epoch, ended_at = h.ended_at,
    held = h.held, holds_suspect = h.holds_suspect, ran_suspect = h.ran_suspect, claimed_seq = h.claimed_seq, cancelling = h.cancelling, claimed = h.claimed, succeeded = h.succeeded,
    failed = h.failed, rescued = h.rescued, stale_completions = h.stale_completions,
    metrics = CASE WHEN v_new THEN coalesce(p_request->'metrics', metrics) ELSE metrics END
  WHERE invocation_id = v_me;
  -- Silent, for longer than grace. Fading, for half of it, which no healthy one is.
  SELECT count(*) > 0, coalesce(bool_or(last_seen_at < v_now - greatest(grace, v_grace)), false) INTO v_fading, v_silent FROM heartbeat
  WHERE ended_at IS NULL AND expired_at IS NULL AND last_seen_at < v_now - v_grace / 2 AND last_seen_at < v_now - greatest(grace, v_grace) / 2 AND invocation_id <> v_me;
  RETURN NEXT json_build_object('status', 'ok', 'at', v_now, 'epoch', h.epoch, 'newest', v_newest, 'more', v_more, 'repeated', NOT v_new, 'starves', v_starves, 'silent', v_silent, 'fading', v_fading, 'rescued', v_rescued,
    'claimed', h.claimed, 'succeeded', h.succeeded, 'failed', h.failed, 'stale', h.stale_completions, 'recurring', v_due, 'schedules', v_schedules,
    'cancelling', CASE WHEN h.cancelling <> '{}' THEN to_json(CAST(h.cancelling AS text[])) END, 'wake', to_json(v_wake));
END
$exchange$;

-- statement
CREATE TABLE audit (
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at                timestamptz NOT NULL DEFAULT clock_timestamp(),
  who               text NOT NULL,                           -- the token's name, or cli
  action            text NOT NULL,
  what              jsonb NOT NULL,                          -- what was asked for
  count             integer NOT NULL                         -- how many it concerned
);

-- statement
CREATE INDEX audit_at ON audit (at);

-- statement
-- What ended invocations have run, and what was removed unfinished. One folds at a time, so no row is hot.
CREATE TABLE run_counter (
  identifier        text NOT NULL,
  task_type         text NOT NULL,                           -- standard or recurring
  result            text NOT NULL,                           -- success, failure; deleted by an operator, purged by clean-up
  runs              bigint NOT NULL,
  duration_ms       float8 NOT NULL DEFAULT 0,
  buckets           bigint[] NOT NULL DEFAULT '{}',          -- runs by duration, bounds in lib/counters.ts
  PRIMARY KEY (identifier, task_type, result)
);

-- statement
CREATE INDEX heartbeat_unfolded ON heartbeat (invocation_id) WHERE NOT folded AND (ended_at IS NOT NULL OR expired_at IS NOT NULL);

-- statement
CREATE INDEX task_retrying ON task (identifier, scheduled_for, id) WHERE held_by IS NULL AND attempt > 0;

-- statement
CREATE INDEX task_run_by_identifier ON task_run (identifier, finished_at, task_id);

-- statement
-- One run in 16, by a hash of the attempt, so that bursts and habits of who enqueues play no part; one in 32 has a level of 32 or more, and
-- so on up to 1048576. With all that its expression is made of, as only then it is read alone. A success costs a sixteenth of an entry.
CREATE INDEX task_run_sampled ON task_run (identifier, (((hashint8extended(task_id, attempt) & 1048575) | 1048576) & -((hashint8extended(task_id, attempt) & 1048575) | 1048576)), finished_at)
  INCLUDE (result, task_id, attempt) WHERE hashint8extended(task_id, attempt) & 15 = 0;

-- statement
CREATE INDEX task_run_failed ON task_run (finished_at, identifier) WHERE result = 'FAILURE';

-- statement
-- Adds the metrics of ended invocations to run_counter, once each. How many of them.
CREATE FUNCTION fold_counters_v1(p_batch integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $fold$
DECLARE
  v_ids uuid[];
BEGIN
  SELECT array_agg(invocation_id) INTO v_ids FROM (
    SELECT invocation_id FROM heartbeat WHERE NOT folded AND (ended_at IS NOT NULL OR expired_at IS NOT NULL)
    LIMIT p_batch FOR UPDATE SKIP LOCKED) AS locked;
  UPDATE heartbeat SET folded = true WHERE invocation_id = ANY (v_ids);
  INSERT INTO run_counter AS c (identifier, task_type, result, runs, duration_ms, buckets)
  SELECT s.identifier, s.task_type, s.result, s.runs, s.duration_ms, s.buckets
  FROM sum_metrics((SELECT jsonb_agg(metrics) FROM heartbeat WHERE invocation_id = ANY (v_ids) AND metrics IS NOT NULL)) AS s
  ORDER BY 1, 2, 3
  ON CONFLICT (identifier, task_type, result) DO UPDATE
    SET runs = c.runs + excluded.runs, duration_ms = c.duration_ms + excluded.duration_ms,
      buckets = (SELECT array_agg(coalesce(u.a, 0) + coalesce(u.b, 0) ORDER BY u.place) FROM unnest(c.buckets, excluded.buckets) WITH ORDINALITY AS u(a, b, place));
  RETURN coalesce(cardinality(v_ids), 0);
END
$fold$;

-- statement
-- p_metrics, a list of what heartbeats carry, [[identifier, task type, result, runs, duration in ms, [runs by bucket]], ...] each.
CREATE FUNCTION sum_metrics(p_metrics jsonb) RETURNS TABLE (identifier text, task_type text, result text, runs bigint, duration_ms float8, buckets bigint[])
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $sum$
  WITH series AS MATERIALIZED (
    SELECT s.value->>0 AS identifier, s.value->>1 AS task_type, s.value->>2 AS result, CAST(s.value->>3 AS bigint) AS runs, CAST(s.value->>4 AS float8) AS duration_ms, s.value->5 AS buckets
    FROM jsonb_array_elements(p_metrics) AS h CROSS JOIN LATERAL jsonb_array_elements(h.value) AS s),
  bucket AS (
    SELECT b.identifier, b.task_type, b.result, array_agg(b.runs ORDER BY b.place) AS buckets FROM (
      SELECT s.identifier, s.task_type, s.result, e.place, CAST(sum(CAST(e.value AS bigint)) AS bigint) AS runs
      FROM series s CROSS JOIN LATERAL jsonb_array_elements_text(s.buckets) WITH ORDINALITY AS e(value, place)
      GROUP BY 1, 2, 3, 4) AS b GROUP BY 1, 2, 3)
  SELECT s.identifier, s.task_type, s.result, CAST(sum(s.runs) AS bigint), sum(s.duration_ms), coalesce(b.buckets, '{}')
  FROM series s LEFT JOIN bucket b USING (identifier, task_type, result) GROUP BY s.identifier, s.task_type, s.result, b.buckets
$sum$;

-- statement
CREATE FUNCTION count_removed(p_identifiers text[], p_recurring boolean[], p_result text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $removed$
  INSERT INTO run_counter AS c (identifier, task_type, result, runs)
  SELECT u.identifier, CASE WHEN u.recurring THEN 'recurring' ELSE 'standard' END, p_result, count(*)
  FROM unnest(p_identifiers, p_recurring) AS u(identifier, recurring) GROUP BY 1, 2 ORDER BY 1, 2
  ON CONFLICT (identifier, task_type, result) DO UPDATE SET runs = c.runs + excluded.runs
$removed$;

-- statement
-- Rows a plan expects. The literal, as a parameter would be planned for any value.
CREATE FUNCTION expected_rows(p_from text) RETURNS float8
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $expected$
DECLARE
  v_plan json;
BEGIN
  EXECUTE 'EXPLAIN (FORMAT JSON) SELECT FROM ' || p_from INTO v_plan;
  RETURN CAST(v_plan->0->'Plan'->>'Plan Rows' AS float8);
END
$expected$;

-- statement
-- Identifiers that have tasks, failed tasks, runs or a release that was seen lately. One probe an identifier and source.
CREATE FUNCTION identifiers_v1(p_now timestamptz, p_most integer) RETURNS TABLE (identifier text, known boolean)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $identifiers$
  WITH RECURSIVE claimable AS (
    (SELECT t.identifier FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn ORDER BY 1 LIMIT 1)
    UNION ALL
    SELECT n.identifier FROM claimable c CROSS JOIN LATERAL (
      SELECT t.identifier FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier > c.identifier ORDER BY 1 LIMIT 1) n),
  serial AS (
    (SELECT t.identifier FROM task t WHERE t.serial_key IS NOT NULL ORDER BY 1 LIMIT 1)
    UNION ALL
    SELECT n.identifier FROM serial c CROSS JOIN LATERAL (
      SELECT t.identifier FROM task t WHERE t.serial_key IS NOT NULL AND t.identifier > c.identifier ORDER BY 1 LIMIT 1) n),
  failed AS (
    (SELECT f.identifier FROM failed_task f ORDER BY 1 LIMIT 1)
    UNION ALL
    SELECT n.identifier FROM failed c CROSS JOIN LATERAL (SELECT f.identifier FROM failed_task f WHERE f.identifier > c.identifier ORDER BY 1 LIMIT 1) n),
  ran AS (
    (SELECT r.identifier FROM task_run r ORDER BY 1 LIMIT 1)
    UNION ALL
    SELECT n.identifier FROM ran c CROSS JOIN LATERAL (SELECT r.identifier FROM task_run r WHERE r.identifier > c.identifier ORDER BY 1 LIMIT 1) n),
  live AS (
    SELECT DISTINCT r.identifier FROM slot s
    CROSS JOIN LATERAL (SELECT h.release_id, h.last_seen_at FROM heartbeat h WHERE h.slot = s.number ORDER BY h.started_at DESC LIMIT 1) h
    JOIN release_task r ON r.release_id = h.release_id WHERE h.last_seen_at > p_now - interval '30 minutes')
  SELECT i.identifier, bool_or(i.known) FROM (
    (SELECT c.identifier, false AS known FROM claimable c LIMIT p_most) UNION ALL (SELECT c.identifier, false FROM serial c LIMIT p_most)
    UNION ALL (SELECT c.identifier, false FROM failed c LIMIT p_most) UNION ALL (SELECT c.identifier, false FROM ran c LIMIT p_most)
    UNION ALL (SELECT t.identifier, false FROM task t WHERE t.held_by IS NOT NULL LIMIT 2000)
    UNION ALL (SELECT t.identifier, false FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NOT NULL LIMIT 2000)
    UNION ALL SELECT l.identifier, true FROM live l) AS i
  GROUP BY 1 ORDER BY 1 LIMIT p_most
$identifiers$;

-- statement
-- Counts of one identifier, exact up to p_most of each kind.
CREATE FUNCTION count_tasks_v1(p_identifier text, p_now timestamptz, p_most integer) RETURNS json
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $count$
DECLARE
  v_due bigint;
  v_later bigint;
  v_retrying bigint;
  v_failed bigint;
  v_running bigint;
  v_oldest timestamptz;
  v_over boolean[] = '{f,f,f,f}';
  v_more record;
BEGIN
  SELECT count(*) INTO v_due FROM (
    SELECT FROM unnest(CAST('{0,25,50,75,100}' AS smallint[])) AS p(priority) CROSS JOIN LATERAL (
      SELECT FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = p_identifier AND t.priority = p.priority
        AND t.scheduled_for <= p_now LIMIT p_most) AS each LIMIT p_most) AS every;
  SELECT count(*) INTO v_later FROM (
    SELECT FROM unnest(CAST('{0,25,50,75,100}' AS smallint[])) AS p(priority) CROSS JOIN LATERAL (
      SELECT FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = p_identifier AND t.priority = p.priority
        AND t.scheduled_for > p_now LIMIT p_most) AS each LIMIT p_most) AS every;
  -- Outside the claim's index, those that wait for their turn, and suspects.
  SELECT count(*) FILTER (WHERE o.scheduled_for <= p_now) AS due, count(*) FILTER (WHERE o.scheduled_for > p_now) AS later, min(o.scheduled_for) AS oldest INTO v_more FROM (
    (SELECT s.scheduled_for FROM (
      SELECT t.scheduled_for, t.has_turn, t.held_by, t.suspect_since FROM task t WHERE t.identifier = p_identifier AND t.serial_key IS NOT NULL LIMIT p_most) AS s
      WHERE NOT s.has_turn AND s.held_by IS NULL AND s.suspect_since IS NULL)
    UNION ALL
    (SELECT s.scheduled_for FROM (
      SELECT t.scheduled_for, t.identifier FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NOT NULL LIMIT p_most) AS s WHERE s.identifier = p_identifier)) AS o;
  SELECT count(*) INTO v_retrying FROM (
    SELECT FROM task t WHERE t.held_by IS NULL AND t.attempt > 0 AND t.identifier = p_identifier AND t.scheduled_for > p_now LIMIT p_most) AS r;
  SELECT count(*) INTO v_failed FROM (SELECT FROM failed_task f WHERE f.identifier = p_identifier LIMIT p_most) AS f;
  SELECT count(*) INTO v_running FROM task t WHERE t.held_by IS NOT NULL AND t.identifier = p_identifier;
  SELECT min(h.scheduled_for) INTO v_oldest FROM unnest(CAST('{0,25,50,75,100}' AS smallint[])) AS p(priority) CROSS JOIN LATERAL (
    SELECT t.scheduled_for FROM task t WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = p_identifier AND t.priority = p.priority
      AND t.scheduled_for <= p_now ORDER BY t.scheduled_for LIMIT 1) AS h;
  v_oldest = least(v_oldest, v_more.oldest);
  v_due = v_due + v_more.due;
  v_later = greatest(0, v_later + v_more.later - v_retrying);
  v_over = ARRAY[v_due >= p_most, v_later + v_retrying >= p_most, v_retrying >= p_most, v_failed >= p_most];
  RETURN json_build_object('waiting', v_due, 'running', v_running, 'scheduled', v_later, 'retrying', v_retrying, 'failed', v_failed, 'over', v_over,
    'oldestMs', CASE WHEN v_oldest <= p_now THEN extract(epoch FROM p_now - v_oldest) * 1000 END);
END
$count$;

-- statement
-- What count_tasks_v1 found, with the planner's estimates where it stopped counting.
CREATE FUNCTION estimate_tasks_v1(p_identifier text, p_now timestamptz, p_counts json) RETURNS json
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $estimate$
DECLARE
  v_of text = 'task WHERE held_by IS NULL AND identifier = ' || quote_literal(p_identifier);
  v_due text = quote_literal(p_now);
BEGIN
  IF NOT coalesce(CAST(p_counts->'over' AS jsonb) @> 'true', false) THEN
    RETURN p_counts;
  END IF;
  RETURN json_build_object('running', p_counts->'running', 'oldestMs', p_counts->'oldestMs', 'over', p_counts->'over',
    'waiting', greatest(CAST(p_counts->>'waiting' AS float8), CASE WHEN CAST(p_counts->'over'->>0 AS boolean) THEN expected_rows(v_of || ' AND scheduled_for <= ' || v_due) END),
    'scheduled', greatest(CAST(p_counts->>'scheduled' AS float8), CASE WHEN CAST(p_counts->'over'->>1 AS boolean) THEN expected_rows(v_of || ' AND scheduled_for > ' || v_due) END),
    'retrying', greatest(CAST(p_counts->>'retrying' AS float8), CASE WHEN CAST(p_counts->'over'->>2 AS boolean) THEN expected_rows(v_of || ' AND attempt > 0 AND scheduled_for > ' || v_due) END),
    'failed', greatest(CAST(p_counts->>'failed' AS float8), CASE WHEN CAST(p_counts->'over'->>3 AS boolean) THEN expected_rows('failed_task WHERE identifier = ' || quote_literal(p_identifier)) END));
END
$estimate$;

-- statement
-- What the sample says of the runs of one identifier, from at most p_most of it, of the level at which they are so many. The caller sees
-- to the settings under which only the index will do.
CREATE FUNCTION sample_runs(p_identifier text, p_from timestamptz, p_to timestamptz, p_most bigint, OUT level bigint, OUT runs bigint, OUT failed bigint)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $sample$
DECLARE
  v_at bigint = 2048;
  v_one record;
BEGIN
  -- As a rule the sparse half of the levels is next to nothing, and is read at once.
  level = 4096;
  SELECT count(*), count(*) FILTER (WHERE r.result = 'FAILURE') INTO runs, failed FROM generate_series(12, 20) AS g(power) CROSS JOIN LATERAL (
    SELECT t.result FROM task_run t WHERE hashint8extended(t.task_id, t.attempt) & 15 = 0 AND t.identifier = p_identifier AND (((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576) & -((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576)) = CAST(2 ^ g.power AS bigint)
      AND t.finished_at >= p_from AND t.finished_at < p_to ORDER BY t.finished_at LIMIT p_most + 1) AS r;
  IF runs > p_most THEN
    level = NULL;
    runs = 0;
    failed = 0;
    v_at = 1048576;
  END IF;
  LOOP
    SELECT count(*) AS runs, count(*) FILTER (WHERE r.result = 'FAILURE') AS failed INTO v_one FROM (
      SELECT t.result FROM task_run t WHERE hashint8extended(t.task_id, t.attempt) & 15 = 0 AND t.identifier = p_identifier AND (((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576) & -((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576)) = v_at
        AND t.finished_at >= p_from AND t.finished_at < p_to ORDER BY t.finished_at LIMIT p_most + 1) AS r;
    EXIT WHEN level IS NOT NULL AND runs + v_one.runs > p_most;
    runs = runs + v_one.runs;
    failed = failed + v_one.failed;
    level = v_at;
    EXIT WHEN v_at = 16;
    v_at = v_at / 2;
  END LOOP;
  runs = runs * level;
  failed = failed * level;
END
$sample$;

-- statement
-- Runs of each between two moments. Exact while they fit, small ones first, into p_budget entries of an index, a quarter of
-- them shared evenly; beyond it from the sample, at a level for each. Failures are exact up to p_budget of all.
CREATE FUNCTION count_runs_v1(p_names text[], p_from timestamptz, p_to timestamptz, p_budget bigint)
RETURNS TABLE (identifier text, runs bigint, failed bigint, estimated boolean, level bigint)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_incremental_sort = off
SET jit = off
AS $count$
#variable_conflict use_variable
DECLARE
  v_fair bigint = greatest(1, p_budget / 4 / greatest(1, cardinality(p_names)));
  v_left bigint = p_budget - p_budget / 4;
  v_failed jsonb;
  v_large text[] = '{}';
  v_one record;
BEGIN
  SELECT CASE WHEN coalesce(sum(f.failed), 0) <= p_budget THEN coalesce(jsonb_object_agg(f.name, f.failed), '{}') END INTO v_failed FROM (
    SELECT r.name, count(*) AS failed FROM (
      SELECT t.identifier AS name FROM task_run t WHERE t.result = 'FAILURE' AND t.finished_at >= p_from AND t.finished_at < p_to
      ORDER BY t.finished_at, t.identifier LIMIT p_budget + 1) AS r GROUP BY 1) AS f;
  level = 16;
  estimated = false;
  FOREACH identifier IN ARRAY coalesce(p_names, '{}') LOOP
    SELECT count(*) INTO runs FROM (
      SELECT FROM task_run t WHERE t.identifier = identifier AND t.finished_at >= p_from AND t.finished_at < p_to ORDER BY t.finished_at, t.task_id LIMIT v_fair + 1) AS r;
    IF runs > v_fair THEN
      v_large = array_append(v_large, identifier);
      CONTINUE;
    END IF;
    failed = coalesce(CAST(v_failed->>identifier AS bigint), 0);
    IF v_failed IS NULL THEN
      SELECT count(*) FILTER (WHERE r.result = 'FAILURE') INTO failed FROM (
        SELECT t.result FROM task_run t WHERE t.identifier = identifier AND t.finished_at >= p_from AND t.finished_at < p_to ORDER BY t.finished_at, t.task_id LIMIT v_fair) AS r;
    END IF;
    RETURN NEXT;
  END LOOP;
  FOR v_one IN SELECT u.name, s.level, s.runs, s.failed FROM unnest(v_large) AS u(name)
    CROSS JOIN LATERAL sample_runs(u.name, p_from, p_to, greatest(50, p_budget / cardinality(v_large))) AS s
    -- By size in steps of four, each with steps of its own. Else those that happen to look small were counted, and those that look large left.
    ORDER BY floor(log(4, greatest(1, s.runs)) + (hashtext(u.name) & 1023) / 1024.0), u.name
  LOOP
    identifier = v_one.name;
    level = v_one.level;
    estimated = true;
    IF v_one.runs <= v_left THEN
      SELECT count(*) INTO runs FROM (
        SELECT FROM task_run t WHERE t.identifier = identifier AND t.finished_at >= p_from AND t.finished_at < p_to ORDER BY t.finished_at, t.task_id LIMIT v_left + 1) AS r;
      estimated = runs > v_left;
      v_left = greatest(0, v_left - runs);
    END IF;
    IF estimated THEN
      runs = greatest(v_one.runs, v_fair + 1);
    END IF;
    -- Of too many failures the share is taken from the sample.
    failed = least(runs, coalesce(CAST(v_failed->>identifier AS bigint), CASE WHEN v_failed IS NULL THEN runs * v_one.failed / greatest(1, v_one.runs) ELSE 0 END));
    estimated = estimated OR v_failed IS NULL;
    RETURN NEXT;
  END LOOP;
END
$count$;

-- statement
-- Runs of all in each of 60 minutes, the last one that of p_now. Exact while they fit into p_budget entries of an index, small ones first;
-- beyond it from the sample of these identifiers, each with the level that count_runs_v1 found. Failures are exact up to p_budget.
CREATE FUNCTION count_minutes_v1(p_names text[], p_levels bigint[], p_now timestamptz, p_budget bigint)
RETURNS TABLE (minute timestamptz, runs bigint, failed bigint, estimated boolean)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_incremental_sort = off
SET jit = off
AS $minutes$
#variable_conflict use_variable
DECLARE
  v_from timestamptz = date_trunc('minute', p_now) - interval '59 minutes';
  v_left bigint = p_budget;
  v_exact boolean;
  v_one record;
BEGIN
  SELECT count(*) <= p_budget INTO v_exact FROM (
    SELECT FROM task_run t WHERE t.result = 'FAILURE' AND t.finished_at >= v_from ORDER BY t.finished_at, t.identifier LIMIT p_budget + 1) AS r;
  -- Small ones first, by steps, as for identifiers.
  FOR v_one IN
    SELECT m.minute, coalesce(s.runs, 0) AS runs, coalesce(s.failed, 0) AS failed
    FROM (SELECT v_from + g.place * interval '1 minute' AS minute FROM generate_series(0, 59) AS g(place)) AS m
    LEFT JOIN (
      SELECT date_trunc('minute', r.finished_at) AS minute, sum(n.level) AS runs, sum(n.level) FILTER (WHERE r.result = 'FAILURE') AS failed
      FROM unnest(p_names, p_levels) AS n(name, level) JOIN generate_series(4, 20) AS g(power) ON 2 ^ g.power >= n.level CROSS JOIN LATERAL (
        SELECT t.finished_at, t.result FROM task_run t WHERE hashint8extended(t.task_id, t.attempt) & 15 = 0 AND t.identifier = n.name AND (((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576) & -((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576)) = CAST(2 ^ g.power AS bigint) AND t.finished_at >= v_from
        ORDER BY t.finished_at LIMIT p_budget) AS r
      GROUP BY 1) AS s ON s.minute = m.minute
    ORDER BY floor(log(4, greatest(1, coalesce(s.runs, 0))) + (hashtext(CAST(extract(epoch FROM m.minute) AS text)) & 1023) / 1024.0), m.minute DESC
  LOOP
    minute = v_one.minute;
    runs = v_left + 1;
    IF v_one.runs <= v_left THEN
      SELECT count(*) INTO runs FROM (
        SELECT FROM task_run t WHERE t.finished_at >= minute AND t.finished_at < minute + interval '1 minute' ORDER BY t.finished_at LIMIT v_left + 1) AS r;
    END IF;
    estimated = runs > v_left;
    IF estimated THEN
      runs = v_one.runs;
    ELSE
      v_left = v_left - runs;
    END IF;
    failed = v_one.failed;
    IF v_exact THEN
      SELECT count(*) INTO failed FROM (
        SELECT FROM task_run t WHERE t.result = 'FAILURE' AND t.finished_at >= minute AND t.finished_at < minute + interval '1 minute' ORDER BY t.finished_at, t.identifier) AS r;
    END IF;
    IF estimated THEN
      runs = greatest(runs, failed);
    ELSE
      failed = least(runs, failed);
    END IF;
    estimated = estimated OR NOT v_exact;
    RETURN NEXT;
  END LOOP;
END
$minutes$;

-- statement
-- How long about p_runs runs of one identifier took, in ms, p50, p95, p99. Of all up to eight times p_most, beyond it of a sample of at most about p_most. Null where nothing ran.
CREATE FUNCTION time_runs_v1(p_identifier text, p_from timestamptz, p_to timestamptz, p_runs bigint, p_most bigint) RETURNS float8[]
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_incremental_sort = off
SET jit = off
AS $time$
DECLARE
  v_power integer = 4;
  v_found float8[];
BEGIN
  IF p_runs > 8 * p_most THEN
    v_power = least(18, greatest(4, ceil(log(2, CAST(p_runs AS numeric) / p_most))));
    SELECT percentile_disc(CAST('{0.5,0.95,0.99}' AS float8[])) WITHIN GROUP (ORDER BY CAST(extract(epoch FROM r.finished_at - r.started_at) AS float8) * 1000) INTO v_found
    FROM generate_series(v_power, v_power + 2) AS g(power) CROSS JOIN LATERAL (
      SELECT t.started_at, t.finished_at FROM task_run t WHERE hashint8extended(t.task_id, t.attempt) & 15 = 0 AND t.identifier = p_identifier AND (((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576) & -((hashint8extended(t.task_id, t.attempt) & 1048575) | 1048576)) = CAST(2 ^ g.power AS bigint)
        AND t.finished_at >= p_from AND t.finished_at < p_to ORDER BY t.finished_at LIMIT 2 * p_most) AS r;
  END IF;
  IF v_found IS NULL AND p_runs > 0 THEN
    SELECT percentile_disc(CAST('{0.5,0.95,0.99}' AS float8[])) WITHIN GROUP (ORDER BY CAST(extract(epoch FROM r.finished_at - r.started_at) AS float8) * 1000) INTO v_found FROM (
      SELECT t.started_at, t.finished_at FROM task_run t WHERE t.identifier = p_identifier AND t.finished_at >= p_from AND t.finished_at < p_to
      ORDER BY t.finished_at DESC, t.task_id DESC LIMIT 8 * p_most) AS r;
  END IF;
  RETURN v_found;
END
$time$;

-- statement
-- Rows of JSON, [kind, value] each. Everything is bounded, by the number of identifiers too. Of runs some 300,000 entries of indexes are read
-- at the most, whatever there is, and as many again where masses fail.
CREATE FUNCTION stats_v1(p_most integer) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $stats$
DECLARE
  v_now timestamptz = clock_timestamp();
  v_one record;
  v_count integer;
  v_names text[];
  v_known boolean[];
  v_levels bigint[];
  v_hours jsonb;
  v_days jsonb;
  v_timed bigint;
BEGIN
  RETURN NEXT json_build_array('at', v_now);
  SELECT count(*), array_agg(i.identifier ORDER BY i.place) FILTER (WHERE i.place <= p_most), array_agg(i.known ORDER BY i.place) FILTER (WHERE i.place <= p_most)
  INTO v_count, v_names, v_known FROM identifiers_v1(v_now, p_most + 1) WITH ORDINALITY AS i(identifier, known, place);
  RETURN NEXT json_build_array('truncated', v_count > p_most);
  v_count = greatest(1, least(v_count, p_most));
  v_timed = greatest(10, 2000 / v_count);
  SELECT jsonb_object_agg(c.identifier, to_jsonb(c)), array_agg(c.level ORDER BY array_position(v_names, c.identifier)) INTO v_hours, v_levels
  FROM count_runs_v1(v_names, v_now - interval '1 hour', v_now, 50000) AS c;
  SELECT jsonb_object_agg(c.identifier, to_jsonb(c)) INTO v_days FROM count_runs_v1(v_names, v_now - interval '1 day', v_now - interval '1 hour', 30000) AS c;
  FOR v_one IN
    SELECT n.*, n.hour_runs + n.rest_runs AS day_runs, n.hour_failed + n.rest_failed AS day_failed, n.hour_estimated OR n.rest_estimated AS day_estimated FROM (
      SELECT u.identifier, u.known, CAST(h.value->>'runs' AS bigint) AS hour_runs, CAST(h.value->>'failed' AS bigint) AS hour_failed, CAST(h.value->>'estimated' AS boolean) AS hour_estimated,
        CAST(d.value->>'runs' AS bigint) AS rest_runs, CAST(d.value->>'failed' AS bigint) AS rest_failed, CAST(d.value->>'estimated' AS boolean) AS rest_estimated
      FROM unnest(v_names, v_known) AS u(identifier, known) CROSS JOIN LATERAL (SELECT v_hours->u.identifier AS value) AS h CROSS JOIN LATERAL (SELECT v_days->u.identifier AS value) AS d) AS n
  LOOP
    RETURN NEXT json_build_array('identifier', json_build_object('identifier', v_one.identifier, 'known', v_one.known,
      'paused', EXISTS (SELECT FROM paused_identifier p WHERE p.identifier IN (v_one.identifier, '*')),
      'counts', estimate_tasks_v1(v_one.identifier, v_now, count_tasks_v1(v_one.identifier, v_now, greatest(50, 5000 / v_count))),
      'hour', json_build_object('succeeded', v_one.hour_runs - v_one.hour_failed, 'failed', v_one.hour_failed, 'estimated', v_one.hour_estimated,
        'percentiles', time_runs_v1(v_one.identifier, v_now - interval '1 hour', v_now, v_one.hour_runs, v_timed)),
      'day', json_build_object('succeeded', v_one.day_runs - v_one.day_failed, 'failed', v_one.day_failed, 'estimated', v_one.day_estimated,
        'percentiles', time_runs_v1(v_one.identifier, v_now - interval '1 day', v_now, v_one.day_runs, v_timed))));
  END LOOP;
  RETURN QUERY SELECT CAST(json_build_array('minute', m.minute, json_build_object('succeeded', m.runs - m.failed, 'failed', m.failed, 'estimated', m.estimated)) AS text)
    FROM count_minutes_v1(v_names, v_levels, v_now, 50000) AS m ORDER BY m.minute;
  RETURN QUERY SELECT CAST(json_build_array('slot', json_build_object('slot', s.number, 'epoch', s.epoch, 'holder', h.invocation_id, 'release', h.release_id,
      'startedAt', h.started_at, 'lastSeenAt', h.last_seen_at, 'seenAgoMs', greatest(0, extract(epoch FROM v_now - h.last_seen_at) * 1000),
      'ended', h.ended_at IS NOT NULL, 'expired', h.expired_at IS NOT NULL, 'held', h.held, 'succeeded', h.succeeded, 'failed', h.failed)) AS text)
    FROM slot s LEFT JOIN LATERAL (SELECT * FROM heartbeat WHERE slot = s.number ORDER BY started_at DESC LIMIT 1) h ON true ORDER BY s.number;
  RETURN QUERY SELECT CAST(json_build_array('paused', p.identifier) AS text) FROM paused_identifier p ORDER BY p.identifier LIMIT 1000;
  RETURN QUERY SELECT recurring_stats_v1();
END
$stats$;

-- statement
CREATE FUNCTION recurring_stats_v1() RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $recurring$
  SELECT CAST(json_build_array('recurring', json_build_object('identifier', r.identifier, 'schedule', left(r.schedule, 500), 'enabled', r.enabled, 'disabledWhy', r.disabled_why,
    'nextAt', CASE WHEN isfinite(r.next_at) THEN r.next_at END, 'lastOccurrence', r.last_occurrence, 'lastRunAt', l.started_at, 'lastResult', l.result,
    'lastDurationMs', extract(epoch FROM l.finished_at - l.started_at) * 1000, 'skipped', r.skipped)) AS text)
  FROM recurring_task r LEFT JOIN LATERAL (
    SELECT t.started_at, t.finished_at, t.result FROM task_run t WHERE t.identifier = r.identifier ORDER BY t.finished_at DESC LIMIT 1) AS l ON true
  ORDER BY r.identifier LIMIT 1000
$recurring$;

-- statement
-- What was counted by invocations, folded or not, and what stands in the tables, in the caller's one snapshot, as the sum of both is a counter.
CREATE FUNCTION read_counters(p_now timestamptz, p_most integer, p_bound integer) RETURNS TABLE (identifier text, value json)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $read$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH unfolded AS (
      SELECT h.metrics FROM heartbeat h WHERE NOT h.folded AND (h.ended_at IS NOT NULL OR h.expired_at IS NOT NULL) AND h.metrics IS NOT NULL
      UNION ALL
      SELECT h.metrics FROM heartbeat h WHERE h.ended_at IS NULL AND h.expired_at IS NULL AND h.metrics IS NOT NULL)
    SELECT s.identifier, json_build_array(s.task_type, s.result, s.runs, s.duration_ms, s.buckets) FROM sum_metrics((SELECT jsonb_agg(u.metrics) FROM unfolded u)) AS s
    UNION ALL
    SELECT c.identifier, json_build_array(c.task_type, c.result, c.runs, c.duration_ms, c.buckets) FROM run_counter c;
  RETURN QUERY SELECT i.identifier, count_tasks_v1(i.identifier, p_now, p_bound) FROM identifiers_v1(p_now, p_most) AS i;
END
$read$;

-- statement
-- Rows of JSON, [kind, ...] each.
CREATE FUNCTION metrics_v1(p_most integer, p_bound integer) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $metrics$
DECLARE
  v_now timestamptz = clock_timestamp();
  v_one record;
BEGIN
  FOR v_one IN SELECT * FROM read_counters(v_now, p_most, p_bound) LOOP
    IF json_typeof(v_one.value) = 'array' THEN
      RETURN NEXT json_build_array('run', v_one.identifier, v_one.value);
    ELSE
      RETURN NEXT json_build_array('identifier', v_one.identifier, v_one.value, estimate_tasks_v1(v_one.identifier, v_now, v_one.value));
    END IF;
  END LOOP;
  RETURN QUERY SELECT CAST(json_build_array('slot', json_build_object('slot', s.number, 'seenAgoMs', greatest(0, extract(epoch FROM v_now - h.last_seen_at) * 1000),
      'ended', h.ended_at IS NOT NULL, 'expired', h.expired_at IS NOT NULL)) AS text)
    FROM slot s LEFT JOIN LATERAL (SELECT * FROM heartbeat WHERE slot = s.number ORDER BY started_at DESC LIMIT 1) h ON true ORDER BY s.number;
END
$metrics$;

-- statement
-- Ids of tasks that a filter matches, newest first, of at most p_walk rows. p_filter {state, identifier, key, from, to}.
-- A row for each, then one [null, last row looked at] where there may be more.
CREATE FUNCTION match_tasks_v1(p_filter jsonb, p_after bigint, p_limit integer, p_walk integer) RETURNS TABLE (id bigint, at bigint)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET jit = off
AS $match$
#variable_conflict use_column
DECLARE
  v_now timestamptz = clock_timestamp();
  v_state text = p_filter->>'state';
  v_identifier text = p_filter->>'identifier';
  v_key text = p_filter->>'key';
  v_from timestamptz = coalesce(CAST(p_filter->>'from' AS timestamptz), '-infinity');
  v_to timestamptz = coalesce(CAST(p_filter->>'to' AS timestamptz), 'infinity');
  v_ids bigint[];
  v_seen record;
BEGIN
  IF v_state IN ('failed', 'cancelled') THEN
    SELECT count(*) AS rows, min(w.id) AS last, coalesce(array_agg(w.id ORDER BY w.id DESC) FILTER (WHERE w.fits), '{}') AS ids INTO v_seen FROM (
      SELECT f.id, f.outcome = upper(v_state) AND f.identifier = coalesce(v_identifier, f.identifier) AND (v_key IS NULL OR f.key = v_key)
        AND f.created_at >= v_from AND f.created_at < v_to AS fits
      FROM failed_task f WHERE f.id < p_after ORDER BY f.id DESC LIMIT p_walk) AS w;
  ELSIF v_state = 'running' THEN
    SELECT count(*) AS rows, min(w.id) AS last, coalesce(array_agg(w.id ORDER BY w.id DESC) FILTER (WHERE w.fits), '{}') AS ids INTO v_seen FROM (
      SELECT t.id, t.identifier = coalesce(v_identifier, t.identifier) AND (v_key IS NULL OR t.key = v_key) AND t.created_at >= v_from AND t.created_at < v_to AS fits
      FROM task t WHERE t.held_by IS NOT NULL AND t.id < p_after ORDER BY t.id DESC LIMIT p_walk) AS w;
  ELSE
    SELECT count(*) AS rows, min(w.id) AS last, coalesce(array_agg(w.id ORDER BY w.id DESC) FILTER (WHERE w.fits), '{}') AS ids INTO v_seen FROM (
      SELECT t.id, t.identifier = coalesce(v_identifier, t.identifier) AND (v_key IS NULL OR t.key = v_key) AND t.created_at >= v_from AND t.created_at < v_to
        AND CASE v_state WHEN 'waiting' THEN t.held_by IS NULL AND t.scheduled_for <= v_now
          WHEN 'retrying' THEN t.held_by IS NULL AND t.scheduled_for > v_now AND t.attempt > 0
          WHEN 'scheduled' THEN t.held_by IS NULL AND t.scheduled_for > v_now AND t.attempt = 0 ELSE true END AS fits
      FROM task t WHERE t.id < p_after ORDER BY t.id DESC LIMIT p_walk) AS w;
  END IF;
  v_ids = ARRAY (SELECT u.id FROM unnest(v_seen.ids) WITH ORDINALITY AS u(id, place) WHERE u.place <= p_limit ORDER BY u.place);
  RETURN QUERY SELECT u.id, u.id FROM unnest(v_ids) AS u(id);
  IF cardinality(v_seen.ids) > p_limit OR (v_seen.rows = p_walk AND v_seen.rows > 0) THEN
    RETURN QUERY SELECT CAST(NULL AS bigint), CASE WHEN cardinality(v_seen.ids) > p_limit THEN v_ids[p_limit] ELSE v_seen.last END;
  END IF;
END
$match$;

-- statement
-- A task as it is listed. Rows of JSON.
CREATE FUNCTION describe_tasks_v1(p_ids bigint[]) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $describe$
  SELECT CAST(json_build_object('id', CAST(d.id AS text), 'identifier', d.identifier, 'state', d.state, 'priority', d.priority, 'scheduledFor', d.scheduled_for,
    'createdAt', d.created_at, 'key', d.key, 'serialKey', d.serial_key, 'attempt', d.attempt, 'attemptsUsed', d.attempt - d.forgiven, 'maxAttempts', d.max_attempts,
    'heldSince', d.held_since, 'finishedAt', d.finished_at, 'error', l.error, 'occurrence', d.occurrence, 'traceParent', d.trace_parent, 'holder', d.held_by, 'progress', d.progress,
    'payloadBytes', d.bytes) AS text)
  FROM (
    SELECT t.id, t.identifier, CASE WHEN t.held_by IS NOT NULL THEN 'running' WHEN t.scheduled_for <= clock_timestamp() THEN 'waiting' WHEN t.attempt > 0 THEN 'retrying' ELSE 'scheduled' END AS state,
      t.priority, t.scheduled_for, t.created_at, t.key, t.serial_key, t.attempt, t.forgiven, t.max_attempts, t.held_since, CAST(NULL AS timestamptz) AS finished_at, t.occurrence, t.trace_parent,
      t.held_by, t.progress, t.bytes
    FROM task t WHERE t.id = ANY (p_ids)
    UNION ALL
    SELECT f.id, f.identifier, lower(f.outcome), f.priority, f.scheduled_for, f.created_at, f.key, f.serial_key, f.attempt, f.forgiven, f.max_attempts, NULL, f.failed_at, f.occurrence, f.trace_parent,
      NULL, NULL, octet_length(CAST(f.payload AS text))
    FROM failed_task f WHERE f.id = ANY (p_ids)
    UNION ALL
    SELECT r.task_id, r.identifier, 'succeeded', NULL, NULL, NULL, NULL, NULL, r.attempt, NULL, NULL, NULL, r.finished_at, r.occurrence, NULL, NULL, NULL, NULL
    FROM task_run r WHERE r.task_id = ANY (p_ids) AND r.task_outcome = 'SUCCEEDED') AS d
  LEFT JOIN LATERAL (
    SELECT left(r.error_details, 300) AS error FROM task_run r WHERE r.task_id = d.id AND d.state <> 'succeeded' ORDER BY r.attempt DESC LIMIT 1) AS l ON true
  ORDER BY d.id DESC
$describe$;

-- statement
-- A page of tasks, rows of JSON; the last one is a number, the next cursor, where there may be more.
CREATE FUNCTION list_tasks_v1(p_filter jsonb, p_cursor text, p_limit integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $list$
#variable_conflict use_column
DECLARE
  v_ids bigint[];
  v_next bigint;
  v_walk integer;
BEGIN
  IF p_filter->>'state' = 'succeeded' THEN
    RETURN QUERY SELECT list_succeeded_v1(p_filter, p_cursor, p_limit);
    RETURN;
  END IF;
  -- Most pages are full after a short walk.
  FOREACH v_walk IN ARRAY CAST('{1000,50000}' AS integer[]) LOOP
    SELECT array_agg(m.id) FILTER (WHERE m.id IS NOT NULL), max(m.at) FILTER (WHERE m.id IS NULL) INTO v_ids, v_next
    FROM match_tasks_v1(p_filter, coalesce(CAST(p_cursor AS bigint), 9223372036854775807), p_limit, v_walk) AS m;
    EXIT WHEN v_next IS NULL OR cardinality(v_ids) >= p_limit;
  END LOOP;
  RETURN QUERY SELECT describe_tasks_v1(v_ids);
  IF v_next IS NOT NULL THEN
    RETURN NEXT CAST(v_next AS text);
  END IF;
END
$list$;

-- statement
-- By the time they finished; the cursor is that time in microseconds and the id.
CREATE FUNCTION list_succeeded_v1(p_filter jsonb, p_cursor text, p_limit integer) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
AS $succeeded$
#variable_conflict use_column
DECLARE
  v_identifier text = p_filter->>'identifier';
  v_from timestamptz = coalesce(CAST(p_filter->>'from' AS timestamptz), '-infinity');
  v_to timestamptz = coalesce(CAST(p_filter->>'to' AS timestamptz), 'infinity');
  v_until timestamptz = coalesce(to_timestamp(0) + CAST(split_part(p_cursor, '.', 1) AS bigint) * interval '1 microsecond', 'infinity');
  v_before bigint = coalesce(CAST(nullif(split_part(p_cursor, '.', 2), '') AS bigint), 9223372036854775807);
  v_run record;
  v_found integer = 0;
  v_seen integer = 0;
BEGIN
  -- Tasks that finished in the same microsecond are told apart by id.
  FOR v_run IN EXECUTE 'SELECT task_id, identifier, attempt, finished_at, occurrence, task_outcome FROM task_run WHERE finished_at >= $1 AND finished_at < $2 AND finished_at <= $3'
    || CASE WHEN v_identifier IS NULL THEN ' ORDER BY finished_at DESC, task_id DESC' ELSE ' AND identifier = $4 ORDER BY identifier DESC, finished_at DESC, task_id DESC' END
    USING v_from, v_to, v_until, v_identifier LOOP
    v_seen = v_seen + 1;
    CONTINUE WHEN v_run.finished_at = v_until AND v_run.task_id >= v_before;
    IF v_run.task_outcome = 'SUCCEEDED' AND p_filter->>'key' IS NULL THEN
      v_found = v_found + 1;
      RETURN NEXT json_build_object('id', CAST(v_run.task_id AS text), 'identifier', v_run.identifier, 'state', 'succeeded', 'priority', NULL, 'scheduledFor', NULL, 'createdAt', NULL,
        'key', NULL, 'serialKey', NULL, 'attempt', v_run.attempt, 'attemptsUsed', NULL, 'maxAttempts', NULL, 'heldSince', NULL, 'finishedAt', v_run.finished_at, 'error', NULL);
    END IF;
    IF v_found = p_limit OR v_seen >= 20000 THEN
      RETURN NEXT CAST(CAST(extract(epoch FROM v_run.finished_at) * 1000000 AS bigint) AS text) || '.' || v_run.task_id;
      RETURN;
    END IF;
  END LOOP;
END
$succeeded$;

-- statement
-- A task, its newest runs, and its payload where asked for. Rows of JSON, [kind, value] each.
CREATE FUNCTION show_task_v1(p_id bigint, p_payload boolean) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $show$
  SELECT CAST(json_build_array('task', CAST(d AS json)) AS text) FROM describe_tasks_v1(ARRAY[p_id]) AS d
  UNION ALL
  SELECT CAST(json_build_array('run', json_build_object('attempt', r.attempt, 'startedAt', r.started_at, 'finishedAt', r.finished_at,
    'durationMs', extract(epoch FROM r.finished_at - r.started_at) * 1000, 'result', r.result, 'outcome', r.task_outcome, 'error', r.error_details, 'invocation', r.invocation_id)) AS text)
  FROM (SELECT * FROM task_run WHERE task_id = p_id ORDER BY attempt DESC LIMIT 50) AS r
  UNION ALL
  SELECT CAST(json_build_array('payload', p.payload) AS text) FROM (
    SELECT payload FROM task WHERE id = p_id UNION ALL SELECT payload FROM failed_task WHERE id = p_id) AS p WHERE p_payload
  UNION ALL
  SELECT CAST(json_build_array('result', r.result_value) AS text) FROM task_run r WHERE r.task_id = p_id AND r.task_outcome = 'SUCCEEDED' AND p_payload AND r.result_value IS NOT NULL
$show$;

-- statement
-- Failed tasks wait again, under their ids, with all their attempts. One that never started and whose key is taken stays where it is.
CREATE FUNCTION retry_tasks(p_ids bigint[]) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $retry$
#variable_conflict use_column
DECLARE
  v_count integer;
BEGIN
  -- One that fails from here on is left out: its serial key may be one that is not held.
  p_ids = ARRAY (SELECT id FROM failed_task WHERE id = ANY (p_ids));
  PERFORM take_serial_key(s.identifier, s.serial_key) FROM (
    SELECT DISTINCT identifier, serial_key FROM failed_task WHERE id = ANY (p_ids) AND serial_key IS NOT NULL ORDER BY 1, 2) AS s;
  WITH chosen AS (
    SELECT id FROM failed_task f
    WHERE id = ANY (p_ids) AND (f.key IS NULL OR f.attempt > 0 OR NOT EXISTS (
      SELECT FROM task t WHERE t.identifier = f.identifier AND t.key = f.key AND t.attempt = 0
      UNION ALL
      SELECT FROM failed_task o WHERE o.identifier = f.identifier AND o.key = f.key AND o.attempt = 0 AND o.id > f.id AND o.id = ANY (p_ids)))
    ORDER BY id FOR UPDATE SKIP LOCKED),
  -- One with the same key, which a producer is just about to commit, is waited for, and what it stands for stays where it is.
  came AS (
    INSERT INTO task (id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, has_turn, trace_parent)
    OVERRIDING SYSTEM VALUE
    SELECT g.id, g.identifier, g.payload, g.priority, clock_timestamp(), g.created_at, g.key, g.attempt, g.attempt, g.max_attempts, g.occurrence, g.serial_key,
      g.serial_key IS NULL OR (NOT EXISTS (SELECT FROM task t WHERE t.identifier = g.identifier AND t.serial_key = g.serial_key)
        AND g.id = min(g.id) OVER (PARTITION BY g.identifier, g.serial_key)), g.trace_parent
    FROM failed_task g JOIN chosen c ON c.id = g.id
    ON CONFLICT (identifier, key) WHERE key IS NOT NULL AND attempt = 0 DO NOTHING
    RETURNING id)
  DELETE FROM failed_task f USING came c WHERE f.id = c.id;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  -- The first of a serial key may be the one that stays.
  PERFORM pass_turn(s.identifier, s.serial_key) FROM (
    SELECT DISTINCT identifier, serial_key FROM failed_task WHERE id = ANY (p_ids) AND serial_key IS NOT NULL ORDER BY 1, 2) AS s;
  RETURN v_count;
END
$retry$;

-- statement
-- Removes tasks that nobody holds, and counts them as deleted.
CREATE FUNCTION delete_tasks(p_ids bigint[]) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $delete$
#variable_conflict use_column
DECLARE
  v_gone record;
BEGIN
  WITH locked AS (
    SELECT id FROM task WHERE id = ANY (p_ids) AND held_by IS NULL ORDER BY id FOR UPDATE SKIP LOCKED),
  unfinished AS (
    DELETE FROM task t USING locked l WHERE t.id = l.id RETURNING t.identifier, t.serial_key, t.occurrence),
  failed AS (
    DELETE FROM failed_task WHERE id = ANY (p_ids) RETURNING identifier, CAST(NULL AS text) AS serial_key, occurrence),
  gone AS (
    SELECT * FROM unfinished UNION ALL SELECT * FROM failed)
  SELECT count(*) AS count, array_agg(identifier) AS identifiers, array_agg(serial_key) AS serial_keys, array_agg(occurrence IS NOT NULL) AS recurring INTO v_gone FROM gone;
  PERFORM pass_turn(d.identifier, d.serial_key) FROM (
    SELECT DISTINCT u.identifier, u.serial_key FROM unnest(v_gone.identifiers, v_gone.serial_keys) AS u(identifier, serial_key) WHERE u.serial_key IS NOT NULL ORDER BY 1, 2) AS d;
  PERFORM count_removed(v_gone.identifiers, v_gone.recurring, 'deleted');
  RETURN v_gone.count;
END
$delete$;

-- statement
-- A waiting task goes to the failed ones as cancelled. One that is held is left alone, and so is one that somebody has locked. Who waits here may hold heartbeats.
CREATE FUNCTION cancel_waiting(p_id bigint) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $waiting$
#variable_conflict use_column
DECLARE
  v_task task;
BEGIN
  PERFORM FROM task WHERE id = p_id AND held_by IS NULL FOR UPDATE SKIP LOCKED;
  IF FOUND THEN
    DELETE FROM task WHERE id = p_id RETURNING * INTO v_task;
  END IF;
  IF v_task.id IS NULL THEN
    RETURN CASE WHEN EXISTS (SELECT FROM task WHERE id = p_id) THEN 'held' ELSE 'not_found' END;
  END IF;
  INSERT INTO failed_task (id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, trace_parent, failed_at, outcome)
  VALUES (v_task.id, v_task.identifier, v_task.payload, v_task.priority, v_task.scheduled_for, v_task.created_at, v_task.key, v_task.attempt, v_task.forgiven,
    v_task.max_attempts, v_task.occurrence, v_task.serial_key, v_task.trace_parent, clock_timestamp(), 'CANCELLED');
  IF v_task.serial_key IS NOT NULL THEN
    PERFORM pass_turn(v_task.identifier, v_task.serial_key);
  END IF;
  RETURN 'cancelled';
END
$waiting$;

-- statement
-- Unfinished ones that nobody holds end as cancelled, holders are told. The heartbeat rows first, all of them in one order, and none
-- later: a row that was claimed while it was waited for stays locked, though it does not match any more, and its holder may wait for it.
CREATE FUNCTION cancel_tasks(p_ids bigint[]) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $cancel$
#variable_conflict use_column
DECLARE
  v_locked uuid[];
  v_id bigint;
  v_count integer = 0;
BEGIN
  SELECT array_agg(l.invocation_id) INTO v_locked FROM (
    SELECT invocation_id FROM heartbeat WHERE invocation_id IN (SELECT t.held_by FROM task t WHERE t.id = ANY (p_ids) AND t.held_by IS NOT NULL)
    ORDER BY invocation_id FOR UPDATE) AS l;
  FOR v_id IN SELECT DISTINCT u.id FROM unnest(p_ids) AS u(id) ORDER BY 1 LOOP
    UPDATE heartbeat SET cancelling = array_append(array_remove(cancelling, v_id), v_id)
    WHERE invocation_id = ANY (v_locked) AND invocation_id = (SELECT t.held_by FROM task t WHERE t.id = v_id) AND ended_at IS NULL AND expired_at IS NULL;
    IF FOUND OR cancel_waiting(v_id) = 'cancelled' THEN
      v_count = v_count + 1;
    END IF;
  END LOOP;
  RETURN v_count;
END
$cancel$;

-- statement
-- One bounded batch of an action on tasks. p_request {action, ids or filter, priority, due, dryRun, who, what, audit, after, batch}.
-- Answers {count, audit, next}. With a next there may be more, to be asked for by the same request with audit and after.
-- Waits for 5 s at the most for who has a row or key locked, less than any caller does: what was given up must not be done after what was asked for next.
CREATE FUNCTION act_on_tasks_v1(p_request jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET lock_timeout = '5s'
AS $act$
#variable_conflict use_column
DECLARE
  v_action text = p_request->>'action';
  v_now timestamptz = clock_timestamp();
  v_filter jsonb = p_request->'filter';
  v_audit bigint = CAST(p_request->>'audit' AS bigint);
  v_ids bigint[];
  v_next bigint;
  v_count integer;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'an operator acts under READ COMMITTED only' USING ERRCODE = 'TP001';
  END IF;
  IF v_filter IS NULL THEN
    SELECT array_agg(DISTINCT CAST(i.id AS bigint)) INTO v_ids FROM jsonb_array_elements_text(p_request->'ids') AS i(id);
  ELSE
    IF v_action = 'retry' AND v_filter->>'state' IS NULL THEN
      v_filter = v_filter || jsonb_build_object('state', 'failed');
    END IF;
    SELECT array_agg(m.id) FILTER (WHERE m.id IS NOT NULL), max(m.at) FILTER (WHERE m.id IS NULL) INTO v_ids, v_next
    FROM match_tasks_v1(v_filter, coalesce(CAST(p_request->>'after' AS bigint), 9223372036854775807), CAST(p_request->>'batch' AS integer), 50000) AS m;
  END IF;
  v_ids = coalesce(v_ids, '{}');
  IF CAST(p_request->>'dryRun' AS boolean) THEN
    SELECT (SELECT count(*) FROM task t WHERE t.id = ANY (v_ids) AND (
        v_action = 'cancel' OR (v_action IN ('delete', 'set_priority', 'set_due') AND t.held_by IS NULL) OR (v_action = 'run_now' AND t.held_by IS NULL AND t.scheduled_for > v_now)))
      + (SELECT count(*) FROM failed_task f WHERE f.id = ANY (v_ids) AND v_action IN ('retry', 'delete')) INTO v_count;
    RETURN jsonb_build_object('count', v_count, 'next', CAST(v_next AS text));
  END IF;
  IF v_action = 'retry' THEN
    v_count = retry_tasks(v_ids);
  ELSIF v_action = 'cancel' THEN
    v_count = cancel_tasks(v_ids);
  ELSIF v_action = 'delete' THEN
    v_count = delete_tasks(v_ids);
  ELSIF v_action IN ('run_now', 'set_priority', 'set_due') THEN
    -- What a worker is claiming at this moment is passed over.
    WITH locked AS (
      SELECT id FROM task WHERE id = ANY (v_ids) AND held_by IS NULL AND (v_action <> 'run_now' OR scheduled_for > v_now) ORDER BY id FOR UPDATE SKIP LOCKED)
    UPDATE task t SET priority = CASE WHEN v_action = 'set_priority' THEN CAST(p_request->>'priority' AS smallint) ELSE t.priority END,
      scheduled_for = CASE v_action WHEN 'run_now' THEN v_now WHEN 'set_due' THEN CAST(p_request->>'due' AS timestamptz) ELSE t.scheduled_for END
    FROM locked l WHERE t.id = l.id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
  ELSE
    RAISE EXCEPTION 'nothing is known of %', v_action USING ERRCODE = 'TP002';
  END IF;
  IF v_audit IS NULL THEN
    INSERT INTO audit (who, action, what, count) VALUES (p_request->>'who', v_action, p_request->'what', v_count) RETURNING id INTO v_audit;
  ELSE
    UPDATE audit SET count = count + v_count WHERE id = v_audit;
  END IF;
  RETURN jsonb_build_object('count', v_count, 'audit', CAST(v_audit AS text), 'next', CAST(v_next AS text));
END
$act$;

-- statement
-- Pauses and resumes an identifier, runs, enables and disables a schedule. How many it concerned, 0 or 1. Waits as above.
CREATE FUNCTION act_on_identifier_v1(p_action text, p_identifier text, p_who text) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET lock_timeout = '5s'
AS $act$
DECLARE
  v_count integer;
BEGIN
  IF p_action = 'pause' THEN
    INSERT INTO paused_identifier (identifier) VALUES (p_identifier) ON CONFLICT DO NOTHING;
  ELSIF p_action = 'resume' THEN
    DELETE FROM paused_identifier WHERE identifier = p_identifier;
  ELSIF p_action = 'recurring_run' THEN
    UPDATE recurring_task SET next_at = date_trunc('milliseconds', clock_timestamp()) WHERE identifier = p_identifier AND enabled;
  ELSIF p_action IN ('recurring_enable', 'recurring_disable') THEN
    UPDATE recurring_task SET enabled = p_action = 'recurring_enable', disabled_why = CASE WHEN p_action = 'recurring_disable' THEN 'OPERATOR' END WHERE identifier = p_identifier;
  ELSE
    RAISE EXCEPTION 'nothing is known of %', p_action USING ERRCODE = 'TP002';
  END IF;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  INSERT INTO audit (who, action, what, count) VALUES (p_who, p_action, jsonb_build_object('identifier', p_identifier), v_count);
  RETURN v_count;
END
$act$;

-- statement
CREATE TABLE database_role (
  kind              text NOT NULL,
  name              text NOT NULL,                           -- of a role of the server; several may share a kind
  PRIMARY KEY (kind, name),
  CONSTRAINT kind_is_known CHECK (kind IN ('producer', 'worker', 'monitor', 'operator'))
);

-- statement
CREATE FUNCTION leave_health_row_v1(p_id uuid) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $leave$
  INSERT INTO health_check (id) VALUES (p_id) ON CONFLICT DO NOTHING RETURNING true
$leave$;

-- statement
CREATE FUNCTION take_health_row_v1(p_id uuid) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $take$
  DELETE FROM health_check WHERE id = p_id RETURNING true
$take$;

-- statement
-- A canary only, whatever id a producer may name.
CREATE FUNCTION drop_canary_v1(p_id bigint) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $drop$
  DELETE FROM task WHERE id = p_id AND held_by IS NULL AND identifier = 'task_processor.health_check' RETURNING true
$drop$;

-- statement
-- The rights of everything in this schema, as they should be. Repeated after each migration, for what it made or replaced.
CREATE FUNCTION secure_v1() RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $secure$
DECLARE
  v_schema text = current_schema();
  v_producer text[] = '{enqueue_task,enqueue_v1,check_database_v1,take_health_row_v1,drop_canary_v1}';
  v_worker text[] = '{exchange_v1,exchange_v2,register_release_v1,plan_recurring_v1,fire_recurring_v1,fire_recurring_v2,clean_up_v1,fold_counters_v1,arrange_wake_v1,leave_health_row_v1}';
  v_owner text[] = '{secure_v1,make_role_v1}';
  v_one record;
  v_role record;
  v_gets boolean;
BEGIN
  FOR v_one IN SELECT p.proname AS name, CAST(CAST(p.oid AS regprocedure) AS text) AS signature FROM pg_proc p WHERE p.pronamespace = CAST(quote_ident(v_schema) AS regnamespace) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_one.signature);
    IF v_one.name = ANY (v_producer || v_worker) THEN
      EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', v_one.signature);
    END IF;
    FOR v_role IN SELECT d.kind, d.name FROM database_role d JOIN pg_roles r ON r.rolname = d.name LOOP
      v_gets = CASE
        WHEN v_one.name = ANY (v_owner) THEN false
        WHEN v_one.name = ANY (v_producer) THEN v_role.kind = 'producer'
        WHEN v_one.name = ANY (v_worker) THEN v_role.kind = 'worker'
        ELSE v_role.kind IN ('monitor', 'operator') END;
      IF v_gets THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_one.signature, v_role.name);
      END IF;
    END LOOP;
  END LOOP;
  FOR v_role IN SELECT d.kind, d.name FROM database_role d JOIN pg_roles r ON r.rolname = d.name LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', v_schema, v_role.name);
    EXECUTE format('GRANT SELECT ON migration TO %I', v_role.name);
    IF v_role.kind = 'worker' THEN
      -- What it reports of itself. It sees payloads anyway.
      EXECUTE format('GRANT SELECT ON task, slot, heartbeat TO %I', v_role.name);
    ELSIF v_role.kind IN ('monitor', 'operator') THEN
      EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', v_schema, v_role.name);
    END IF;
    IF v_role.kind = 'operator' THEN
      FOR v_one IN SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = CAST(quote_ident(v_schema) AS regnamespace) AND c.relkind = 'r' AND c.relname NOT IN ('migration', 'database_role') LOOP
        -- What was done stays written.
        EXECUTE format(CASE WHEN v_one.name = 'audit' THEN 'GRANT INSERT, UPDATE (count) ON %I TO %I' ELSE 'GRANT INSERT, UPDATE, DELETE ON %I TO %I' END, v_one.name, v_role.name);
      END LOOP;
    END IF;
  END LOOP;
  RETURN true;
END
$secure$;

-- statement
-- Makes a login where there is none, or takes one that is there, for a kind. p_verifier is a SCRAM verifier, never a password; null leaves what is.
CREATE FUNCTION make_role_v1(p_kind text, p_name text, p_verifier text) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $role$
DECLARE
  v_role pg_roles;
BEGIN
  SELECT * INTO v_role FROM pg_roles WHERE rolname = p_name;
  IF v_role.rolsuper OR p_name = current_user THEN
    RAISE EXCEPTION '% is a superuser or the owner of the schema, and cannot be the %', p_name, p_kind USING ERRCODE = 'TP002';
  END IF;
  IF EXISTS (SELECT FROM database_role WHERE name = p_name AND kind <> p_kind) THEN
    RAISE EXCEPTION '% serves as another kind already, and cannot be the % too', p_name, p_kind USING ERRCODE = 'TP002';
  END IF;
  IF v_role.rolname IS NULL THEN
    IF p_verifier IS NULL THEN
      RAISE EXCEPTION 'there is no role %, and it was given no password', p_name USING ERRCODE = 'TP002';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L', p_name, p_verifier);
  ELSIF p_verifier IS NOT NULL THEN
    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', p_name, p_verifier);
  END IF;
  INSERT INTO database_role (kind, name) VALUES (p_kind, p_name) ON CONFLICT DO NOTHING;
  RETURN CASE WHEN v_role.rolname IS NULL THEN 'made' WHEN p_verifier IS NULL THEN 'kept' ELSE 'changed' END;
END
$role$;

-- statement
-- Whoever could store a task by rights on the table, before the functions were closed to the public, still can.
DO $grant$
DECLARE
  v_one record;
BEGIN
  FOR v_one IN
    SELECT r.rolname FROM pg_roles r
    WHERE NOT r.rolsuper AND r.rolname NOT LIKE 'pg\_%' AND has_table_privilege(r.oid, 'task', 'INSERT')
      AND r.oid <> (SELECT relowner FROM pg_class WHERE oid = CAST('task' AS regclass))
      AND has_schema_privilege(r.oid, CAST(current_schema() AS text), 'USAGE')
  LOOP
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO %I', current_schema(), v_one.rolname);
    EXECUTE format('REVOKE ALL ON FUNCTION secure_v1(), make_role_v1(text, text, text) FROM %I', v_one.rolname);
  END LOOP;
END
$grant$;

-- statement
SELECT secure_v1();
-- Wakes at a time, for where nobody polls.

-- statement
CREATE TABLE arranged_wake (
  single            boolean PRIMARY KEY DEFAULT true,
  at                timestamptz NOT NULL,                    -- the earliest call that is under way; it may be lost
  CONSTRAINT one_row CHECK (single)
);

-- statement
-- When somebody must look next: at the next due task or occurrence that p_release knows, and when an invocation that lives now would
-- count as silent. Built-in schedules call nobody: they run when somebody comes. Milliseconds from now for the caller to arrange, at most p_most_ms; null when an earlier call is under way or none is needed.
CREATE FUNCTION arrange_wake_v1(p_release text, p_grace_ms float8, p_most_ms float8, p_beginning boolean) RETURNS float8
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $arrange$
#variable_conflict use_column
DECLARE
  v_now timestamptz = clock_timestamp();
  v_at timestamptz;
BEGIN
  -- Half as long as its caller waits: what nobody is called for must not stand as a call under way.
  PERFORM set_config('lock_timeout', CAST(ceil(p_grace_ms / 8) AS text), true);
  SELECT least(
    (SELECT min(head.scheduled_for) FROM release_task r CROSS JOIN unnest(CAST('{0,25,50,75,100}' AS smallint[])) AS p(priority)
      CROSS JOIN LATERAL (
        SELECT t.scheduled_for FROM task t
        WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = r.identifier AND t.priority = p.priority
        ORDER BY t.scheduled_for, t.id LIMIT 1) AS head
      WHERE r.release_id = p_release AND NOT EXISTS (SELECT FROM paused_identifier q WHERE q.identifier IN (r.identifier, '*'))),
    (SELECT min(t.scheduled_for) FROM task t JOIN release_task r ON r.release_id = p_release AND r.identifier = t.identifier
      WHERE t.held_by IS NULL AND t.suspect_since IS NOT NULL AND NOT EXISTS (SELECT FROM paused_identifier q WHERE q.identifier IN (r.identifier, '*'))),
    (SELECT min(next_at) FROM recurring_task WHERE enabled AND NOT starts_with(identifier, 'task_processor.')
      AND identifier IN (SELECT identifier FROM release_task WHERE release_id = p_release)),
    (SELECT min(last_seen_at + 1.25 * greatest(grace, p_grace_ms * interval '1 millisecond')) FROM heartbeat WHERE ended_at IS NULL AND expired_at IS NULL))
  INTO v_at;
  -- Before it claims, and so that its claim cannot be lost with it. With nothing to do there is nothing to guard: each call would lead to the next.
  IF p_beginning THEN
    IF v_at IS NULL OR v_at > v_now THEN
      RETURN NULL;
    END IF;
    v_at = v_now + p_grace_ms * 1.25 * interval '1 millisecond';
  END IF;
  IF v_at IS NULL THEN
    RETURN NULL;
  END IF;
  -- A queue holds a call for so long at the most; who is called then arranges the rest of the way.
  v_at = least(greatest(v_at, v_now + interval '1 second'), v_now + p_most_ms * interval '1 millisecond');
  -- One whose time has passed has come, or is lost.
  INSERT INTO arranged_wake AS w (at) VALUES (v_at)
  ON CONFLICT (single) DO UPDATE SET at = excluded.at
  WHERE w.at > excluded.at + interval '1 second' OR w.at < v_now;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  RETURN extract(epoch FROM v_at - v_now) * 1000;
END
$arrange$;
