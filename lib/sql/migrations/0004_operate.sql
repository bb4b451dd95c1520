-- What an operator does, each a guarded call, safe against what a worker does at the same moment.

-- statement
CREATE FUNCTION pause_v1(p_identifier text) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $pause$
  INSERT INTO paused_identifier (identifier) VALUES (p_identifier) ON CONFLICT DO NOTHING RETURNING true
$pause$;

-- statement
CREATE FUNCTION resume_v1(p_identifier text) RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $resume$
  DELETE FROM paused_identifier WHERE identifier = p_identifier RETURNING true
$resume$;

-- statement
-- A waiting task goes to the failed ones as cancelled; the holder of a running one is told at its next exchange.
CREATE FUNCTION cancel_task_v1(p_id bigint) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $cancel$
#variable_conflict use_column
DECLARE
  v_task task;
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
  DELETE FROM task WHERE id = p_id AND held_by IS NULL RETURNING * INTO v_task;
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
$cancel$;

-- statement
-- Failed tasks wait again, under their ids, with all their attempts. One that never started and whose key is taken stays where it is. p_filter {ids, identifier, failedSince, limit}.
CREATE FUNCTION replay_failed_v1(p_filter jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $replay$
#variable_conflict use_column
DECLARE
  v_serial record;
  v_count integer;
BEGIN
  FOR v_serial IN
    SELECT DISTINCT identifier, serial_key FROM failed_task
    WHERE serial_key IS NOT NULL AND (p_filter->'ids' IS NULL OR p_filter->'ids' ? CAST(id AS text)) AND identifier = coalesce(p_filter->>'identifier', identifier)
    ORDER BY 1, 2
  LOOP
    PERFORM take_serial_key(v_serial.identifier, v_serial.serial_key);
  END LOOP;
  WITH chosen AS (
    SELECT id FROM failed_task f
    WHERE (p_filter->'ids' IS NULL OR p_filter->'ids' ? CAST(id AS text)) AND identifier = coalesce(p_filter->>'identifier', identifier)
      AND failed_at >= coalesce(CAST(p_filter->>'failedSince' AS timestamptz), '-infinity')
      AND (f.key IS NULL OR f.attempt > 0 OR NOT EXISTS (
        SELECT FROM task t WHERE t.identifier = f.identifier AND t.key = f.key AND t.attempt = 0
        UNION ALL
        SELECT FROM failed_task o WHERE o.identifier = f.identifier AND o.key = f.key AND o.attempt = 0 AND o.id > f.id
          AND (p_filter->'ids' IS NULL OR p_filter->'ids' ? CAST(o.id AS text))))
    ORDER BY failed_at, id LIMIT coalesce(CAST(p_filter->>'limit' AS integer), 10000) FOR UPDATE SKIP LOCKED),
  gone AS (
    DELETE FROM failed_task f USING chosen c WHERE f.id = c.id RETURNING f.*)
  INSERT INTO task (id, identifier, payload, priority, scheduled_for, created_at, key, attempt, forgiven, max_attempts, occurrence, serial_key, has_turn, trace_parent)
  OVERRIDING SYSTEM VALUE
  SELECT g.id, g.identifier, g.payload, g.priority, clock_timestamp(), g.created_at, g.key, g.attempt, g.attempt, g.max_attempts, g.occurrence, g.serial_key,
    g.serial_key IS NULL OR (NOT EXISTS (SELECT FROM task t WHERE t.identifier = g.identifier AND t.serial_key = g.serial_key)
      AND g.id = min(g.id) OVER (PARTITION BY g.identifier, g.serial_key)), g.trace_parent
  FROM gone g;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$replay$;

-- statement
-- One bounded batch of one kind of old rows. The number removed.
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
  v_before timestamptz = clock_timestamp() - p_days * interval '1 day';
BEGIN
  IF p_kind IN ('task_run', 'recurring_run') THEN
    -- Runs of unfinished and of failed tasks stay with them.
    DELETE FROM task_run r WHERE ctid = ANY (ARRAY (
      SELECT o.ctid FROM task_run o WHERE o.finished_at < v_before AND (o.occurrence IS NULL) = (p_kind = 'task_run')
        AND NOT EXISTS (SELECT FROM task t WHERE t.id = o.task_id) AND NOT EXISTS (SELECT FROM failed_task f WHERE f.id = o.task_id)
      ORDER BY o.finished_at LIMIT p_batch));
  ELSIF p_kind = 'failed_task' THEN
    DELETE FROM failed_task WHERE id IN (SELECT id FROM failed_task WHERE failed_at < v_before ORDER BY failed_at LIMIT p_batch);
  ELSIF p_kind = 'heartbeat' THEN
    DELETE FROM heartbeat WHERE invocation_id IN (
      SELECT h.invocation_id FROM heartbeat h
      WHERE (h.ended_at IS NOT NULL OR h.expired_at IS NOT NULL) AND h.last_seen_at < v_before AND h.held = 0
        AND EXISTS (SELECT FROM heartbeat y WHERE y.slot = h.slot AND y.started_at > h.started_at)
      LIMIT p_batch);
  ELSIF p_kind = 'enqueue_request' THEN
    DELETE FROM enqueue_request WHERE token IN (SELECT token FROM enqueue_request WHERE created_at < v_before LIMIT p_batch);
  ELSIF p_kind = 'health_check' THEN
    DELETE FROM health_check WHERE id IN (SELECT id FROM health_check WHERE created_at < v_before LIMIT p_batch);
  ELSE
    RAISE EXCEPTION 'nothing is known of %', p_kind USING ERRCODE = 'TP002';
  END IF;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$clean$;
