-- What an operator sees and does. Reading is bounded whatever the number of tasks and runs; every action is one guarded call that
-- leaves a row in audit.

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
ALTER TABLE heartbeat ADD COLUMN folded boolean NOT NULL DEFAULT false; -- its metrics stand in run_counter

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
-- An operator's calls come through act_on_tasks_v1 and act_on_identifier_v1, which leave a row in the audit log: there is no second way.
DROP FUNCTION pause_v1(text), resume_v1(text), replay_failed_v1(jsonb);

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
-- As before, in two parts. For the exchange: what was asked of a holder that is gone.
CREATE OR REPLACE FUNCTION cancel_task_v1(p_id bigint) RETURNS text
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
-- One bounded batch of one kind of old rows. The number removed. Heartbeats go once their metrics are folded, failed tasks are counted as purged.
CREATE OR REPLACE FUNCTION clean_up_v1(p_kind text, p_days integer, p_batch integer) RETURNS integer
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
