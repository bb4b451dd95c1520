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
