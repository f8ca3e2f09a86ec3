-- The tables of the log and the triggers that let it only grow.

CREATE TABLE leaf (
  tenant_id uuid NOT NULL,
  idx bigint NOT NULL,
  run_id uuid NOT NULL,
  seq bigint NOT NULL,
  CONSTRAINT pk_leaf PRIMARY KEY (tenant_id, idx),
  CONSTRAINT uq_leaf_record UNIQUE (tenant_id, run_id, seq),
  CONSTRAINT ck_leaf_idx CHECK (idx >= 0)
) PARTITION BY LIST (tenant_id);
--;;
CREATE TABLE tile (
  tenant_id uuid NOT NULL,
  level smallint NOT NULL,
  n bigint NOT NULL,
  data bytea NOT NULL,
  CONSTRAINT pk_tile PRIMARY KEY (tenant_id, level, n),
  CONSTRAINT ck_tile_data CHECK (octet_length(data) BETWEEN 32 AND 8192 AND octet_length(data) % 32 = 0)
) PARTITION BY LIST (tenant_id);
--;;
CREATE TABLE leaf_default PARTITION OF leaf DEFAULT;
--;;
CREATE TABLE tile_default PARTITION OF tile DEFAULT;
--;;
-- Hashes do not compress.
ALTER TABLE tile ALTER COLUMN data SET STORAGE EXTERNAL;
--;;
CREATE TABLE log_head (
  tenant_id uuid NOT NULL,
  origin text NOT NULL,
  size bigint NOT NULL,
  root bytea NOT NULL,
  recovery integer NOT NULL DEFAULT 0,
  integrated_at timestamptz NOT NULL,
  CONSTRAINT pk_log_head PRIMARY KEY (tenant_id),
  CONSTRAINT ck_log_head_root CHECK (octet_length(root) = 32),
  CONSTRAINT ck_log_head_size CHECK (size >= 0)
);
--;;
CREATE TABLE checkpoint (
  tenant_id uuid NOT NULL,
  origin text NOT NULL,
  size bigint NOT NULL,
  root bytea NOT NULL,
  note text NOT NULL,
  created_at timestamptz NOT NULL,
  anchor_run uuid,
  anchor_seq bigint,
  CONSTRAINT pk_checkpoint PRIMARY KEY (tenant_id, size, origin),
  CONSTRAINT ck_checkpoint_root CHECK (octet_length(root) = 32)
);
--;;
-- A witness signs the same checkpoint again while nothing happens: its time is what is new.
CREATE TABLE cosignature (
  tenant_id uuid NOT NULL,
  origin text NOT NULL,
  size bigint NOT NULL,
  witness text NOT NULL,
  line text NOT NULL,
  cosigned_at timestamptz NOT NULL,
  CONSTRAINT pk_cosignature PRIMARY KEY (tenant_id, size, origin, witness, cosigned_at)
);
--;;
-- Runs that go no further into the log, and the alarm that says so once it is recorded.
CREATE TABLE left_out (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  seq bigint NOT NULL,
  reason text NOT NULL,
  found_at timestamptz NOT NULL DEFAULT now(),
  alarm_seq bigint,
  CONSTRAINT pk_left_out PRIMARY KEY (tenant_id, run_id)
);
--;;
CREATE TABLE sequencer_state (
  tenant_id uuid NOT NULL,
  term bigint NOT NULL,
  system_identifier text NOT NULL,
  xid xid8 NOT NULL,
  beaten_at timestamptz NOT NULL,
  CONSTRAINT pk_sequencer_state PRIMARY KEY (tenant_id)
);
--;;
CREATE FUNCTION tile_only_widens() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF ROW(NEW.tenant_id, NEW.level, NEW.n) IS DISTINCT FROM ROW(OLD.tenant_id, OLD.level, OLD.n)
    OR octet_length(NEW.data) <= octet_length(OLD.data)
    OR substr(NEW.data, 1, octet_length(OLD.data)) <> OLD.data THEN
    RAISE EXCEPTION 'a tile only widens: the ledger is append-only' USING ERRCODE = 'MF004';
  END IF;
  RETURN NEW;
END $$;
--;;
-- The sequencer lets a log grow; only the owner opens a recovery, and that alone changes the name.
CREATE FUNCTION log_head_only_grows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_owner boolean := current_user = (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = TG_RELID);
BEGIN
  IF NEW.tenant_id <> OLD.tenant_id OR NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root <> OLD.root) THEN
    RAISE EXCEPTION 'a log only grows: the ledger is append-only' USING ERRCODE = 'MF004';
  END IF;
  IF ROW(NEW.origin, NEW.recovery) IS DISTINCT FROM ROW(OLD.origin, OLD.recovery)
    AND NOT (is_owner AND NEW.recovery > OLD.recovery AND NEW.size = OLD.size) THEN
    RAISE EXCEPTION 'only a recovery renames a log: the ledger is append-only' USING ERRCODE = 'MF004';
  END IF;
  RETURN NEW;
END $$;
--;;
CREATE FUNCTION sequencer_term_only_grows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NEW.tenant_id <> OLD.tenant_id OR NEW.term < OLD.term THEN
    RAISE EXCEPTION 'a term only grows: the ledger is append-only' USING ERRCODE = 'MF004';
  END IF;
  RETURN NEW;
END $$;
--;;
CREATE FUNCTION left_out_stands() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF OLD.alarm_seq IS NOT NULL
    OR ROW(NEW.tenant_id, NEW.run_id, NEW.seq, NEW.reason) IS DISTINCT FROM ROW(OLD.tenant_id, OLD.run_id, OLD.seq, OLD.reason) THEN
    RAISE EXCEPTION 'a finding stands: the ledger is append-only' USING ERRCODE = 'MF004';
  END IF;
  RETURN NEW;
END $$;
--;;
-- Whoever may halt the ledger may not let it go on: that is the owner's.
CREATE FUNCTION halt_stays() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF OLD.halted IS NOT NULL AND NEW.halted IS NULL
    AND current_user <> (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = TG_RELID) THEN
    RAISE EXCEPTION 'only the owner lets a halted ledger go on' USING ERRCODE = 'MF004';
  END IF;
  RETURN NEW;
END $$;
