-- Claims that run side by side no longer look at the same rows and leave one of them empty-handed.

-- statement
-- By the stored size. A check of the text itself was made again with each claim's update.
ALTER TABLE task DROP CONSTRAINT payload_is_small, ADD CONSTRAINT payload_is_small CHECK (bytes <= 49152);

-- statement
-- Picks and locks what may be taken of several identifiers of one priority, in the order due time, id. Of each some rows are locked in the order
-- of its index, past what others have locked, and what is locked is merged up to the first row after which an identifier may have more. Whoever holds up
-- the merge, or soon will, is then asked for four times as many. What was locked and is not needed is free again when the exchange commits.
-- Where to start, by identifier, is after (p_dues, p_after_ids). p_most, as many as seem to fit into p_bytes. p_rooms as in pick_tasks.
CREATE FUNCTION pick_merged(p_priority smallint, p_identifiers text[], p_dues timestamptz[], p_after_ids bigint[], p_now timestamptz, p_want integer, p_most bigint, p_bytes bigint,
  p_any boolean, p_rooms jsonb, OUT ids bigint[], OUT bytes bigint, OUT rooms jsonb, OUT more boolean)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $merged$
#variable_conflict use_column
DECLARE
  v_want integer = p_want;
  v_bytes bigint = 0;
  v_any boolean = p_any;
  v_look record;
BEGIN
  ids = '{}';
  rooms = p_rooms;
  more = false;
  -- By identifier, where it was last locked, how many to lock (0 for none), the most it was asked for, whether it may have more. Then what is locked and not taken yet.
  SELECT p_dues AS dues, p_after_ids AS after_ids, array_agg(CAST(0 AS bigint)) AS grown, array_agg(NOT p_rooms ? i.identifier ORDER BY i.place) AS open,
    array_agg(coalesce(CAST(p_rooms->>i.identifier AS bigint), 2 + p_most / 4 / cardinality(p_identifiers)) ORDER BY i.place) AS asked,
    CAST('{}' AS bigint[]) AS kept, CAST('{}' AS bigint[]) AS kept_of, CAST('{}' AS timestamptz[]) AS kept_dues, CAST('{}' AS integer[]) AS kept_bytes
  INTO v_look FROM unnest(p_identifiers) WITH ORDINALITY AS i(identifier, place);
  LOOP
    WITH ask AS MATERIALIZED (
      SELECT * FROM unnest(p_identifiers, v_look.dues, v_look.after_ids, v_look.asked, v_look.open, v_look.grown) WITH ORDINALITY
        AS a(identifier, due, after_id, asked, open, grown, place)),
    locked AS MATERIALIZED (
      SELECT a.place AS of, t.id, t.scheduled_for, t.bytes FROM ask a CROSS JOIN LATERAL (
        SELECT t.id, t.scheduled_for, t.bytes + 300 AS bytes FROM task t
        WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = a.identifier AND t.priority = p_priority
          AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (a.due, a.after_id)
        ORDER BY t.scheduled_for, t.id LIMIT a.asked FOR UPDATE SKIP LOCKED) AS t
      WHERE a.asked > 0),
    last AS (
      SELECT DISTINCT ON (of) of, scheduled_for, id, count(*) OVER (PARTITION BY of) AS got FROM locked ORDER BY of, scheduled_for DESC, id DESC),
    reach AS MATERIALIZED (
      SELECT a.place, coalesce(l.scheduled_for, a.due) AS due, coalesce(l.id, a.after_id) AS after_id, greatest(a.asked, a.grown) AS grown,
        a.open AND (a.asked = 0 OR coalesce(l.got, 0) = a.asked) AS open
      FROM ask a LEFT JOIN last l ON l.of = a.place),
    edge AS MATERIALIZED (
      SELECT due, after_id FROM reach WHERE open ORDER BY due, after_id LIMIT 1),
    placed AS MATERIALIZED (
      SELECT id, of, scheduled_for, bytes, row_number() OVER due_order AS place, v_bytes + sum(bytes) OVER due_order AS weight,
        NOT EXISTS (SELECT FROM edge) OR (scheduled_for, id) <= (SELECT due, after_id FROM edge) AS whole
      FROM (SELECT of, id, scheduled_for, bytes FROM locked
        UNION ALL SELECT * FROM unnest(v_look.kept_of, v_look.kept, v_look.kept_dues, v_look.kept_bytes)) AS mine(of, id, scheduled_for, bytes)
      WINDOW due_order AS (ORDER BY scheduled_for, id ROWS UNBOUNDED PRECEDING)),
    took AS MATERIALIZED (
      SELECT coalesce(array_agg(id ORDER BY place), '{}') AS ids, coalesce(array_agg(of), '{}') AS of, max(weight) AS weight FROM placed
      WHERE whole AND place <= v_want AND (weight <= p_bytes OR (NOT v_any AND place = 1))),
    kept AS (
      SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(of), '{}') AS of, coalesce(array_agg(scheduled_for), '{}') AS dues, coalesce(array_agg(bytes), '{}') AS bytes
      FROM placed WHERE place > (SELECT cardinality(ids) FROM took)),
    goal AS MATERIALIZED (
      SELECT scheduled_for, id FROM placed WHERE place = least(v_want, (SELECT 1 + count(*) FILTER (WHERE whole) + count(*) / 4 FROM placed))),
    next AS (
      SELECT array_agg(due ORDER BY place) AS dues, array_agg(after_id ORDER BY place) AS after_ids, array_agg(grown ORDER BY place) AS grown,
        array_agg(open ORDER BY place) AS open, bool_or(open) AS any_open,
        array_agg(CASE WHEN open AND (NOT EXISTS (SELECT FROM goal) OR (due, after_id) < (SELECT scheduled_for, id FROM goal))
          THEN least(v_want - (SELECT cardinality(ids) FROM took), 4 * grown) ELSE 0 END ORDER BY place) AS asked
      FROM reach)
    SELECT n.*, k.ids AS kept, k.of AS kept_of, k.dues AS kept_dues, k.bytes AS kept_bytes, t.ids, t.of, t.weight,
      EXISTS (SELECT FROM placed WHERE whole AND place <= v_want AND place = cardinality(t.ids) + 1) AS heavy
    INTO v_look FROM took t CROSS JOIN kept k CROSS JOIN next n;
    ids = ids || v_look.ids;
    v_any = v_any OR ids <> '{}';
    v_want = v_want - cardinality(v_look.ids);
    v_bytes = coalesce(v_look.weight, v_bytes);
    bytes = v_bytes;
    IF rooms <> '{}' THEN
      SELECT jsonb_object_agg(r.key, CAST(r.value AS integer) - (SELECT count(*) FROM unnest(v_look.of) AS o(place) WHERE p_identifiers[o.place] = r.key))
      INTO rooms FROM jsonb_each_text(rooms) AS r;
    END IF;
    IF v_look.heavy OR (v_want = 0 AND v_look.kept <> '{}') THEN
      more = true;
      RETURN;
    END IF;
    EXIT WHEN NOT v_look.any_open;
    IF v_want = 0 THEN
      more = EXISTS (
        SELECT FROM unnest(p_identifiers, v_look.dues, v_look.after_ids, v_look.open) AS a(identifier, due, after_id, open) CROSS JOIN LATERAL (
          SELECT FROM task t
          WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = a.identifier AND t.priority = p_priority
            AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (a.due, a.after_id)
          ORDER BY t.scheduled_for, t.id LIMIT 1) AS head
        WHERE a.open);
      RETURN;
    END IF;
  END LOOP;
END
$merged$;

-- statement
-- Picks and locks what a claim may take, in the order priority, due time, id. p_floors, per identifier and priority the (due time, id)
-- last claimed by this invocation, spares it the dead entries of an index that an old snapshot keeps. p_rooms, how many more of an
-- identifier with a limit may run. A level of one identifier is locked in the order of its index, past what others have locked. As many as are wanted,
-- where the weight of the first says that they fit, else as many as a look without locking finds to fit. Several are merged.
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
  v_merged record;
  v_most integer;
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
    IF v_want > 0 AND cardinality(v_level.identifiers) = 1 AND v_rooms = '{}' THEN
      v_most = v_want;
      IF v_level.bytes * v_want > p_bytes - v_bytes THEN
        SELECT count(*) FILTER (WHERE v_bytes + running <= p_bytes OR (v_bytes = 0 AND place = 1)) INTO v_most
        FROM (
          SELECT row_number() OVER due_order AS place, sum(bytes) OVER due_order AS running
          FROM (
            SELECT t.id, t.scheduled_for, t.bytes + 300 AS bytes FROM task t
            WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = v_level.identifiers[1] AND t.priority = v_level.priority
              AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (v_level.dues[1], v_level.floor_ids[1])
            ORDER BY t.scheduled_for, t.id LIMIT v_want) AS seen
          WINDOW due_order AS (ORDER BY scheduled_for, id ROWS UNBOUNDED PRECEDING)) AS placed;
      END IF;
      -- Others' rows are passed over, so other ones may come than were seen. What they weigh is counted again.
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
            ORDER BY t.scheduled_for, t.id LIMIT v_most FOR UPDATE SKIP LOCKED) AS locked
          WINDOW due_order AS (ORDER BY scheduled_for, id ROWS UNBOUNDED PRECEDING)) AS placed) AS took;
      ids = ids || v_took.ids;
      v_bytes = v_bytes + v_took.bytes;
      more = v_took.locked > cardinality(v_took.ids) OR v_most = 0 OR (v_took.locked = v_most AND EXISTS (
        SELECT FROM task t
        WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = v_level.identifiers[1] AND t.priority = v_level.priority
          AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (v_took.last, v_took.ids[cardinality(v_took.ids)])));
      IF more THEN
        RETURN;
      END IF;
      CONTINUE;
    END IF;
    IF v_want <= 0 THEN
      more = true;
      RETURN;
    END IF;
    SELECT * INTO v_merged FROM pick_merged(v_level.priority, v_level.identifiers, v_level.dues, v_level.floor_ids, p_now, v_want,
      least(v_want, greatest(1, (p_bytes - v_bytes) / v_level.bytes)), p_bytes - v_bytes, v_bytes > 0, v_rooms);
    ids = ids || v_merged.ids;
    v_bytes = v_bytes + v_merged.bytes;
    v_rooms = v_merged.rooms;
    more = v_merged.more;
    IF more THEN
      RETURN;
    END IF;
  END LOOP;
END
$pick$;

-- statement
-- A row for each removal that could not pass the turn: one that is being worked off must not stand for one that comes meanwhile.
ALTER TABLE serial_gap DROP CONSTRAINT serial_gap_pkey, ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;

-- statement
-- The one before it has left. The next with this serial key gets the turn. A producer that is just adding to the key, or another who passes the turn,
-- is not waited for, as its rows cannot be seen yet. A later exchange looks again. Only the gaps that were seen before the look are closed: whoever left one
-- since may have removed just the one that was to get the turn.
CREATE OR REPLACE FUNCTION pass_turn(p_identifier text, p_serial_key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET enable_seqscan = off
AS $turn$
DECLARE
  v_gaps bigint[];
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended(current_schema() || p_identifier || ' ' || p_serial_key, 1)) THEN
    INSERT INTO serial_gap (identifier, serial_key) VALUES (p_identifier, p_serial_key);
    RETURN false;
  END IF;
  v_gaps = ARRAY (SELECT id FROM serial_gap WHERE identifier = p_identifier AND serial_key = p_serial_key);
  UPDATE task SET has_turn = true
  WHERE NOT has_turn AND id = (
    SELECT id FROM task WHERE identifier = p_identifier AND serial_key = p_serial_key ORDER BY id LIMIT 1);
  DELETE FROM serial_gap WHERE id = ANY (v_gaps);
  RETURN true;
END
$turn$;
