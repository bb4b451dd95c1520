-- Least privilege. A producer may only enqueue, a worker only process, a monitor only read, an operator act. Producer and worker
-- get EXECUTE on functions that run with their owner's rights; a monitor reads the tables; what runs with the caller's rights
-- (helpers, statistics, an operator's calls) can do for a monitor no more than reading. No password stands in any of this.

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
