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
  p_trace_parent text = trace_parent;
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
    IF v_id IS NULL THEN
      status = 'queue_full';
      RETURN;
    END IF;
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
