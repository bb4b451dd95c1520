/** An observer inside the database: triggers that see each change as it is made, and write down what no rule allows. */
export const monitorSql = (graceMs: number): string => `
CREATE SCHEMA chaos;
CREATE TABLE chaos.violation (invariant integer NOT NULL, what text NOT NULL, task bigint, invocation uuid, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE chaos.fault (disk_full float8 NOT NULL);
INSERT INTO chaos.fault VALUES (0);
CREATE TABLE chaos.claim (task bigint NOT NULL, attempt integer NOT NULL, invocation uuid NOT NULL, seq integer NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
-- Every task that was ever stored, with the payload it was stored with; it is somewhere, or has been asked for, at the end.
CREATE TABLE chaos.stored (task bigint PRIMARY KEY, token text, occurrence timestamptz);
-- Failed tasks that were made old, so that clean-up may remove them, and the runs that it has removed.
CREATE TABLE chaos.aged (task bigint PRIMARY KEY);
CREATE TABLE chaos.purged_run (task_id bigint, attempt integer, identifier text, invocation_id uuid, result text, task_outcome text, error_details text, result_value jsonb);

CREATE FUNCTION chaos.broken(p_invariant integer, p_what text, p_task bigint, p_invocation uuid) RETURNS void
LANGUAGE sql AS $$ INSERT INTO chaos.violation (invariant, what, task, invocation) VALUES (p_invariant, p_what, p_task, p_invocation) $$;

-- Whether this transaction holds the lock on an invocation's row, which guards all of its tasks.
CREATE FUNCTION chaos.guards(p_invocation uuid) RETURNS boolean
LANGUAGE sql AS $$
  SELECT coalesce((SELECT me IN (CAST(CAST(xmin AS text) AS bigint), CAST(CAST(xmax AS text) AS bigint))
    FROM task_processor.heartbeat, (SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint) % 4294967296 AS me) x WHERE invocation_id = p_invocation), false) $$;

CREATE FUNCTION chaos.disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF random() < (SELECT disk_full FROM chaos.fault) THEN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION chaos.on_store() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- A failed one that is tried again comes back under its id.
  INSERT INTO chaos.stored VALUES (NEW.id, NEW.payload->>'token', NEW.occurrence) ON CONFLICT DO NOTHING;
  RETURN NEW;
END $$;

CREATE FUNCTION chaos.on_purge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM task_processor.task WHERE id = OLD.task_id) OR EXISTS (SELECT FROM task_processor.failed_task WHERE id = OLD.task_id) THEN
    PERFORM chaos.broken(8, 'a run was removed before its task', OLD.task_id, OLD.invocation_id);
  END IF;
  IF OLD.finished_at > clock_timestamp() - interval '1 day' THEN
    PERFORM chaos.broken(8, 'a run was removed before its time', OLD.task_id, OLD.invocation_id);
  END IF;
  INSERT INTO chaos.purged_run VALUES (OLD.task_id, OLD.attempt, OLD.identifier, OLD.invocation_id, OLD.result, OLD.task_outcome, OLD.error_details, OLD.result_value);
  RETURN OLD;
END $$;

CREATE FUNCTION chaos.on_task() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  h task_processor.heartbeat;
  s task_processor.slot;
BEGIN
  IF OLD.held_by IS NOT NULL AND NOT chaos.guards(OLD.held_by) THEN
    PERFORM chaos.broken(3, 'a held task was changed by one who had not locked its holder', OLD.id, OLD.held_by);
  END IF;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  IF NEW.attempt - NEW.forgiven > NEW.max_attempts OR NEW.attempt < NEW.forgiven THEN
    PERFORM chaos.broken(7, 'attempts used out of bounds', OLD.id, NEW.held_by);
  END IF;
  IF NEW.attempt < OLD.attempt THEN PERFORM chaos.broken(2, 'an attempt number went back', OLD.id, NEW.held_by); END IF;
  IF NEW.held_by IS NOT NULL AND OLD.held_by IS NOT NULL AND NEW.held_by <> OLD.held_by THEN
    PERFORM chaos.broken(1, 'a held task was claimed', OLD.id, NEW.held_by);
  END IF;
  IF NEW.held_by IS NOT NULL AND OLD.held_by IS NULL THEN
    IF NEW.attempt <> OLD.attempt + 1 THEN PERFORM chaos.broken(2, 'a claim without a new attempt number', OLD.id, NEW.held_by); END IF;
    SELECT * INTO h FROM task_processor.heartbeat WHERE invocation_id = NEW.held_by;
    IF h.invocation_id IS NULL OR h.expired_at IS NOT NULL OR h.ended_at IS NOT NULL THEN
      PERFORM chaos.broken(3, 'a claim by an expired or ended invocation', OLD.id, NEW.held_by);
    END IF;
    IF h.seq >= NEW.claim_seq THEN PERFORM chaos.broken(10, 'a repeated exchange claimed', OLD.id, NEW.held_by); END IF;
    IF EXISTS (SELECT FROM task_processor.task WHERE held_by = NEW.held_by AND (suspect_since IS NOT NULL OR OLD.suspect_since IS NOT NULL)) THEN
      PERFORM chaos.broken(7, 'a suspect that is not alone', OLD.id, NEW.held_by);
    END IF;
    INSERT INTO chaos.claim VALUES (OLD.id, NEW.attempt, NEW.held_by, NEW.claim_seq);
    SELECT * INTO s FROM task_processor.slot WHERE number = h.slot;
    -- The newer holder's second exchange was over before this transaction began, so its first was too.
    IF h.seq > 0 AND s.epoch <> h.epoch AND EXISTS (SELECT FROM task_processor.heartbeat n
        WHERE n.slot = h.slot AND n.epoch > h.epoch AND n.seq >= 2 AND n.last_seen_at < now()) THEN
      PERFORM chaos.broken(12, 'a claim by one who was superseded', OLD.id, NEW.held_by);
    END IF;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION chaos.on_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  h task_processor.heartbeat;
  v_abandoned boolean = coalesce(NEW.error_details LIKE 'abandoned. %', false);
BEGIN
  SELECT * INTO h FROM task_processor.heartbeat WHERE invocation_id = NEW.invocation_id;
  IF NOT chaos.guards(NEW.invocation_id) THEN
    PERFORM chaos.broken(3, 'a run recorded by one who had not locked its holder', NEW.task_id, NEW.invocation_id);
  END IF;
  IF v_abandoned AND h.expired_at IS NULL THEN PERFORM chaos.broken(1, 'a rescue from a living invocation', NEW.task_id, NEW.invocation_id); END IF;
  IF NOT v_abandoned AND (h.expired_at IS NOT NULL OR h.ended_at IS NOT NULL) THEN
    PERFORM chaos.broken(3, 'a result of an expired or ended invocation', NEW.task_id, NEW.invocation_id);
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION chaos.on_slot() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_epoch bigint;
BEGIN
  IF NEW.epoch < OLD.epoch OR (NEW.holder IS NOT NULL AND NEW.holder IS DISTINCT FROM OLD.holder AND NEW.epoch <= OLD.epoch) THEN
    PERFORM chaos.broken(4, 'an epoch that does not grow', NULL, NEW.holder);
  END IF;
  -- By name: the column came with the second release.
  IF CAST(to_jsonb(NEW)->>'woken_at' AS timestamptz) - CAST(to_jsonb(OLD)->>'woken_at' AS timestamptz) BETWEEN interval '1 microsecond' AND ${graceMs} * interval '1 millisecond' THEN
    PERFORM chaos.broken(13, 'a seat called for twice within the grace period', NULL, OLD.holder);
  END IF;
  IF NEW.holder IS NULL AND OLD.holder IS NOT NULL THEN
    SELECT epoch INTO v_epoch FROM task_processor.heartbeat WHERE invocation_id = OLD.holder;
    IF NOT chaos.guards(OLD.holder) OR v_epoch NOT IN (0, OLD.epoch) THEN
      PERFORM chaos.broken(4, 'a slot freed by one who is not its newest holder', NULL, OLD.holder);
    END IF;
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION chaos.on_heartbeat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.expired_at IS NULL AND NEW.expired_at IS NOT NULL AND clock_timestamp() - OLD.last_seen_at <= ${graceMs} * interval '1 millisecond' THEN
    PERFORM chaos.broken(1, 'expired within the grace period', NULL, OLD.invocation_id);
  END IF;
  IF (OLD.expired_at IS NOT NULL OR OLD.ended_at IS NOT NULL) AND (NEW.seq, NEW.last_seen_at, NEW.claimed, NEW.succeeded, NEW.failed, NEW.ended_at, NEW.expired_at)
      IS DISTINCT FROM (OLD.seq, OLD.last_seen_at, OLD.claimed, OLD.succeeded, OLD.failed, OLD.ended_at, OLD.expired_at) THEN
    PERFORM chaos.broken(3, 'an expired or ended invocation came back', NULL, OLD.invocation_id);
  END IF;
  IF NEW.seq < OLD.seq THEN PERFORM chaos.broken(10, 'an exchange number went back', NULL, OLD.invocation_id); END IF;
  IF NEW.seq = OLD.seq AND (NEW.claimed, NEW.succeeded, NEW.failed) IS DISTINCT FROM (OLD.claimed, OLD.succeeded, OLD.failed) THEN
    PERFORM chaos.broken(10, 'a repeated exchange claimed or recorded', NULL, OLD.invocation_id);
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER chaos_disk_full BEFORE INSERT ON task_processor.task FOR EACH ROW EXECUTE FUNCTION chaos.disk_full();
CREATE TRIGGER chaos_disk_full BEFORE INSERT ON task_processor.task_run FOR EACH ROW EXECUTE FUNCTION chaos.disk_full();
CREATE TRIGGER chaos_stored AFTER INSERT ON task_processor.task FOR EACH ROW EXECUTE FUNCTION chaos.on_store();
CREATE TRIGGER chaos_purged BEFORE DELETE ON task_processor.task_run FOR EACH ROW EXECUTE FUNCTION chaos.on_purge();
CREATE TRIGGER chaos_monitor BEFORE UPDATE OR DELETE ON task_processor.task FOR EACH ROW EXECUTE FUNCTION chaos.on_task();
CREATE TRIGGER chaos_monitor BEFORE INSERT ON task_processor.task_run FOR EACH ROW EXECUTE FUNCTION chaos.on_run();
CREATE TRIGGER chaos_monitor BEFORE UPDATE ON task_processor.slot FOR EACH ROW EXECUTE FUNCTION chaos.on_slot();
CREATE TRIGGER chaos_monitor BEFORE UPDATE ON task_processor.heartbeat FOR EACH ROW EXECUTE FUNCTION chaos.on_heartbeat();
`;

/** Runs, those that clean-up has removed among them. */
export const RUNS = ["task_run", "chaos.purged_run"]
  .map(
    (table) =>
      `SELECT task_id, attempt, identifier, invocation_id, result, task_outcome, error_details, result_value FROM ${table}`,
  )
  .join(" UNION ALL ");
