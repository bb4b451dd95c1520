-- The application's own tables, beside Stint's schema in the same database. Applied whole at each start, by one process at a time.
SELECT pg_advisory_xact_lock(20261124);

CREATE TABLE IF NOT EXISTS customer (
  id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  email        text NOT NULL UNIQUE,
  signed_up_at timestamptz NOT NULL DEFAULT now()
);

-- Who wants to hear of sign-ups. Set by an operator: an address that strangers may choose would let them call what only this network can reach.
CREATE TABLE IF NOT EXISTS subscriber (
  url text PRIMARY KEY
);

CREATE TABLE IF NOT EXISTS sign_up_report (
  day      date PRIMARY KEY,
  sign_ups integer NOT NULL
);
