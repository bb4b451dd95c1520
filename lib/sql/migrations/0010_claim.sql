-- Claims that run side by side no longer look at the same rows and leave one of them empty-handed. With it what a review of the claim found in turns of serial keys, limits
-- and schedules.

-- statement
-- A payload is stored as the text it is told as, and is checked by its stored size, not by its text with each claim's update.
ALTER TABLE task DROP CONSTRAINT payload_is_small, DROP COLUMN bytes;

-- statement
ALTER TABLE task ALTER payload DROP DEFAULT, ALTER payload TYPE json USING CAST(payload AS json);

-- statement
ALTER TABLE task ALTER payload SET DEFAULT '{}', ADD COLUMN bytes integer GENERATED ALWAYS AS (octet_length(CAST(payload AS text))) STORED,
  ADD CONSTRAINT payload_is_small CHECK (bytes <= 49152);

-- statement
ALTER TABLE failed_task ALTER payload TYPE json USING CAST(payload AS json);

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
CREATE OR REPLACE FUNCTION pick_tasks(p_identifiers text[], p_now timestamptz, p_want integer, p_bytes integer, p_floors jsonb, p_rooms jsonb, OUT ids bigint[], OUT more boolean)
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
-- A row for each removal that could not pass the turn: one that is being worked off must not stand for one that comes meanwhile.
ALTER TABLE serial_gap DROP CONSTRAINT serial_gap_pkey, ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;

-- statement
-- The one before it has left. The next with this serial key gets the turn. A producer that is just adding to the key, or another who passes the turn,
-- is not waited for, as its rows cannot be seen yet. A later exchange looks again. Only the gaps that were seen before the look are closed: whoever left one
-- since may have removed just the one that was to get the turn. Whoever was cancelled or deleted need not have had it, and one that was retried may stand before the one that has.
CREATE OR REPLACE FUNCTION pass_turn(p_identifier text, p_serial_key text) RETURNS boolean
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
-- Stores what a release knows of its schedules, where it differs from what they were last planned by. Waits for `waitMs` at the most, as above.
CREATE OR REPLACE FUNCTION plan_recurring_v1(p_request jsonb) RETURNS integer
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
-- As release 0.1.0 calls it, which does not say by which schedule.
CREATE OR REPLACE FUNCTION fire_recurring_v1(p_request jsonb) RETURNS text
LANGUAGE sql VOLATILE
SET search_path FROM CURRENT
AS $fire$
  SELECT fire_recurring_v2(p_request || jsonb_build_object('schedule', (SELECT schedule FROM recurring_task WHERE identifier = p_request->>'identifier')))
$fire$;

-- statement
CREATE INDEX task_turn ON task (identifier, serial_key) WHERE serial_key IS NOT NULL AND has_turn;

-- statement
CREATE INDEX serial_gap_by_key ON serial_gap (identifier, serial_key);

-- statement
-- Whether a task with this serial key may run at once. Holds the key until the caller's transaction ends.
CREATE OR REPLACE FUNCTION take_serial_key(p_identifier text, p_serial_key text) RETURNS boolean
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
CREATE OR REPLACE FUNCTION enqueue_task(
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
-- How many more of each identifier with a limit may run. The lock on an identifier is tried, never waited for. Who does not get it
-- leaves that identifier to the one who claims now.
CREATE OR REPLACE FUNCTION rooms_of(p_release text) RETURNS jsonb
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
ALTER TABLE heartbeat ADD COLUMN ran_suspect boolean NOT NULL DEFAULT false;

-- statement
-- Hands in results. The caller has locked the heartbeat row that guards these tasks. Fenced by holder and attempt number.
CREATE OR REPLACE FUNCTION record_results(p_me uuid, p_now timestamptz, p_results jsonb, OUT succeeded integer, OUT failed integer, OUT released integer)
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
