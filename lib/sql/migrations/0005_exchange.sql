-- Wake of further slots, and the counters of an invocation on its heartbeat.

-- statement
ALTER TABLE slot ADD COLUMN woken_at timestamptz;            -- an invocation was called for it that has not sat down yet

-- statement
ALTER TABLE heartbeat ADD COLUMN metrics jsonb;              -- what it has run so far, by identifier

-- statement
-- Null for those of release 0.1.0 that live while this comes.
ALTER TABLE heartbeat ADD COLUMN grace interval;              -- its own: whoever has a shorter one must not call it silent

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
-- The exchange as release 0.1.0 speaks it, which may still run while this schema is there already: the exchange first, then a row a task, in their order.
CREATE OR REPLACE FUNCTION exchange_v1(p_request jsonb) RETURNS SETOF text
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
