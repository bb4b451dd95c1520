-- Claims that run side by side no longer look at the same rows and leave one of them empty-handed.

-- statement
-- By the stored size. A check of the text itself was made again with each claim's update.
ALTER TABLE task DROP CONSTRAINT payload_is_small, ADD CONSTRAINT payload_is_small CHECK (bytes <= 49152);

-- statement
-- Picks and locks what a claim may take, in the order priority, due time, id. p_floors, per identifier and priority the (due time, id)
-- last claimed by this invocation, spares it the dead entries of an index that an old snapshot keeps. p_rooms, how many more of an
-- identifier with a limit may run. A level of one identifier is locked in the order of its index, past what others have locked. As many as are wanted,
-- where the weight of the first says that they fit, else as many as a look without locking finds to fit. Of several identifiers, what was seen
-- and is still there is locked, and looked further where others were faster.
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
  v_look record;
  v_took record;
  v_most integer;
  v_want integer;
  v_shares integer[];
  v_bytes bigint = 0;
  v_rooms jsonb = p_rooms;
  v_after timestamptz;
  v_after_id bigint;
  v_locked bigint[];
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
    v_shares = array_fill(greatest(1, least(v_want, greatest(8, 2 * v_want / cardinality(v_level.identifiers)))), ARRAY[cardinality(v_level.identifiers)]);
    v_after = '-infinity';
    v_after_id = 0;
    LOOP
      v_want = p_want - cardinality(ids);
      IF v_want <= 0 THEN
        more = true;
        RETURN;
      END IF;
      -- Of each identifier a share, and one row more that shows where the seen ends: before the first such row the order is whole.
      WITH head AS MATERIALIZED (
        SELECT h.*, i.place AS of, h.nth > i.share AS beyond
        FROM unnest(v_level.identifiers, v_level.dues, v_level.floor_ids, v_shares) WITH ORDINALITY AS i(identifier, due, floor_id, share, place)
        CROSS JOIN LATERAL (
          SELECT t.id, t.scheduled_for, t.bytes + 300 AS bytes, row_number() OVER (ORDER BY t.scheduled_for, t.id) AS nth FROM task t
          WHERE t.held_by IS NULL AND t.suspect_since IS NULL AND t.has_turn AND t.identifier = i.identifier AND t.priority = v_level.priority
            AND t.scheduled_for <= p_now AND (t.scheduled_for, t.id) > (greatest(i.due, v_after),
              CASE WHEN i.due > v_after THEN i.floor_id WHEN i.due < v_after THEN v_after_id ELSE greatest(i.floor_id, v_after_id) END)
          ORDER BY t.scheduled_for, t.id LIMIT least(i.share + 1, CAST(v_rooms->>i.identifier AS integer))) AS h),
      edge AS MATERIALIZED (
        SELECT scheduled_for, id FROM head WHERE beyond ORDER BY scheduled_for, id LIMIT 1),
      placed AS (
        SELECT id, of, scheduled_for, bytes, row_number() OVER due_order AS place, sum(bytes) OVER due_order AS running
        FROM (
          SELECT id, of, scheduled_for, bytes FROM head
          WHERE (SELECT id FROM edge) IS NULL OR (scheduled_for, id) < (SELECT scheduled_for, id FROM edge)
          ORDER BY scheduled_for, id LIMIT v_want + 1) AS whole
        WINDOW due_order AS (ORDER BY scheduled_for, id ROWS UNBOUNDED PRECEDING)),
      look AS (
        SELECT id, of, scheduled_for, bytes, place, v_bytes + running <= p_bytes OR (v_bytes = 0 AND place = 1) AS light FROM placed)
      SELECT array_agg(id ORDER BY place) FILTER (WHERE light AND place <= v_want) AS ids, max(scheduled_for) FILTER (WHERE light AND place <= v_want) AS last,
        sum(bytes) FILTER (WHERE light AND place <= v_want) AS bytes, count(*) AS whole, bool_or(NOT light AND place <= v_want) AS heavy, EXISTS (SELECT FROM edge) AS cut,
        -- Whoever gave much has more: four times as much of each is looked at next.
        CASE WHEN EXISTS (SELECT FROM edge) THEN ARRAY (SELECT CAST(greatest(8, 4 * count(l.id)) AS integer)
          FROM generate_subscripts(v_shares, 1) AS g(place) LEFT JOIN look l ON l.of = g.place AND l.place <= v_want GROUP BY g.place ORDER BY g.place) END AS shares
      INTO v_look FROM look;
      EXIT WHEN v_look.whole = 0;
      IF v_look.ids IS NULL THEN
        more = true;
        RETURN;
      END IF;
      SELECT array_agg(id) INTO v_locked FROM (
        SELECT id FROM task
        WHERE id = ANY (v_look.ids) AND held_by IS NULL AND suspect_since IS NULL AND has_turn AND scheduled_for <= p_now AND priority = v_level.priority
        FOR UPDATE SKIP LOCKED) AS locked;
      ids = ids || coalesce(v_locked, '{}');
      IF v_rooms <> '{}' AND v_locked IS NOT NULL THEN
        SELECT jsonb_object_agg(r.key, CAST(r.value AS integer) - (SELECT count(*) FROM task t WHERE t.id = ANY (v_locked) AND t.identifier = r.key))
        INTO v_rooms FROM jsonb_each_text(v_rooms) AS r;
      END IF;
      v_bytes = v_bytes + v_look.bytes;
      v_after = v_look.last;
      v_after_id = v_look.ids[cardinality(v_look.ids)];
      IF v_look.heavy THEN
        more = true;
        RETURN;
      END IF;
      v_shares = v_look.shares;
      EXIT WHEN NOT v_look.cut AND v_look.whole = cardinality(v_look.ids);
    END LOOP;
  END LOOP;
END
$pick$;
