-- Requests to erase, holds that forbid it, and keys on their way out; then the only ways to erase.

CREATE TABLE erasure (
  tenant_id uuid NOT NULL,
  erasure_id uuid NOT NULL,
  log_id uuid NOT NULL,
  action text NOT NULL,
  run_id uuid,
  fields text[],
  legal_basis text NOT NULL,
  request_ref bytea NOT NULL,
  actor text NOT NULL,
  requested_at timestamptz NOT NULL,
  writer_id uuid NOT NULL,
  sig bytea NOT NULL,
  status text NOT NULL DEFAULT 'requested',
  executed_at timestamptz,
  due_at timestamptz,
  completed_at timestamptz,
  kek_ids text[] NOT NULL DEFAULT '{}',
  record_run uuid,
  record_seq bigint,
  reason text,
  CONSTRAINT pk_erasure PRIMARY KEY (tenant_id, erasure_id),
  CONSTRAINT ck_erasure_action CHECK (action IN ('anonymize_run', 'delete_run', 'delete_tenant')),
  CONSTRAINT ck_erasure_status CHECK (status IN ('requested', 'pending', 'complete', 'refused')),
  CONSTRAINT ck_erasure_run CHECK ((run_id IS NULL) = (action = 'delete_tenant')),
  CONSTRAINT ck_erasure_ref CHECK (octet_length(request_ref) = 32),
  CONSTRAINT ck_erasure_sig CHECK (octet_length(sig) = 64)
);
--;;
CREATE INDEX ix_erasure_open ON erasure (tenant_id, erasure_id) WHERE status IN ('requested', 'pending');
--;;
CREATE TABLE run_hold (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  reason text NOT NULL,
  actor text NOT NULL,
  set_at timestamptz NOT NULL,
  CONSTRAINT pk_run_hold PRIMARY KEY (tenant_id, run_id),
  CONSTRAINT fk_run_hold_run FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, run_id)
);
--;;
-- A KEK that wraps nothing new from `retired_at` on; `successor` is null when its tenant is gone.
CREATE TABLE kek_retirement (
  tenant_id uuid NOT NULL,
  kek_id text NOT NULL,
  successor text,
  retired_at timestamptz NOT NULL,
  destroyed_at timestamptz,
  due_at timestamptz,
  CONSTRAINT pk_kek_retirement PRIMARY KEY (tenant_id, kek_id)
);
--;;
-- Stores a signed wish; nothing is erased by it.
CREATE FUNCTION erasure_request(
  p_tenant uuid, p_erasure uuid, p_log uuid, p_action text, p_run uuid, p_fields text[], p_legal_basis text,
  p_request_ref bytea, p_actor text, p_at timestamptz, p_writer uuid, p_sig bytea
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.erasure (tenant_id, erasure_id, log_id, action, run_id, fields, legal_basis, request_ref, actor, requested_at, writer_id, sig)
  VALUES (p_tenant, p_erasure, p_log, p_action, p_run, p_fields, p_legal_basis, p_request_ref, p_actor, p_at, p_writer, p_sig)
  ON CONFLICT (tenant_id, erasure_id) DO NOTHING;
$$;
--;;
-- The ledger's record of an erasure must be part of this very transaction. MF008 otherwise.
CREATE FUNCTION erase_recorded(p_tenant uuid, p_action text, p_run uuid, p_seq bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (
    SELECT 1 FROM public.record r
    JOIN public.batch b ON b.tenant_id = r.tenant_id AND b.batch_id = r.batch_id
    JOIN public.runs a ON a.tenant_id = r.tenant_id AND a.run_id = r.run_id
    WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.seq = p_seq AND a.kind = 'admin'
      AND r.kind = 'erasure.' || p_action AND b.xid = pg_current_xact_id()
  ) THEN
    RAISE EXCEPTION 'the erasure is not recorded' USING ERRCODE = 'MF008';
  END IF;
END $$;
--;;
-- Locks a run and compares it with the statement's snapshot.
-- MF003 no such run; MF009 a hold; MF010 the run goes on; MF011 the rows are not those of the snapshot.
CREATE FUNCTION erase_locked(p_tenant uuid, p_run uuid, p_seqs bigint[], p_rcs bytea[], p_chains bytea[], p_field_seqs bigint[], p_fields smallint[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE found_run public.runs%ROWTYPE;
BEGIN
  SELECT * INTO found_run FROM public.runs r WHERE r.tenant_id = p_tenant AND r.run_id = p_run FOR UPDATE;
  IF NOT FOUND OR found_run.kind = 'admin' THEN RAISE EXCEPTION 'no such run' USING ERRCODE = 'MF003'; END IF;
  IF EXISTS (SELECT 1 FROM public.run_hold h WHERE h.tenant_id = p_tenant AND h.run_id = p_run) THEN
    RAISE EXCEPTION 'a hold' USING ERRCODE = 'MF009';
  END IF;
  IF found_run.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted') THEN
    RAISE EXCEPTION 'the run goes on' USING ERRCODE = 'MF010';
  END IF;
  IF EXISTS (
    (SELECT r.seq, r.rc, r.chain FROM public.record r WHERE r.tenant_id = p_tenant AND r.run_id = p_run
      EXCEPT SELECT u.seq, u.rc, u.chain FROM unnest(p_seqs, p_rcs, p_chains) AS u(seq, rc, chain))
    UNION ALL
    (SELECT u.seq, u.rc, u.chain FROM unnest(p_seqs, p_rcs, p_chains) AS u(seq, rc, chain)
      EXCEPT SELECT r.seq, r.rc, r.chain FROM public.record r WHERE r.tenant_id = p_tenant AND r.run_id = p_run)
  ) OR EXISTS (
    (SELECT p.seq, p.field FROM public.payload p WHERE p.tenant_id = p_tenant AND p.run_id = p_run
      EXCEPT SELECT u.seq, u.field FROM unnest(p_field_seqs, p_fields) AS u(seq, field))
    UNION ALL
    (SELECT u.seq, u.field FROM unnest(p_field_seqs, p_fields) AS u(seq, field)
      EXCEPT SELECT p.seq, p.field FROM public.payload p WHERE p.tenant_id = p_tenant AND p.run_id = p_run)
  ) THEN
    RAISE EXCEPTION 'the run is not what the statement says' USING ERRCODE = 'MF011';
  END IF;
END $$;
--;;
-- The receipt of what was just done: pending until no key of `kek_ids` exists.
CREATE FUNCTION erase_receipt(p_tenant uuid, p_erasure uuid, p_keks text[], p_run uuid, p_seq bigint, p_at timestamptz, p_due timestamptz, p_reason text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE public.erasure e SET status = 'pending', executed_at = p_at, due_at = p_due, kek_ids = p_keks,
    record_run = p_run, record_seq = p_seq, reason = p_reason
  WHERE e.tenant_id = p_tenant AND e.erasure_id = p_erasure AND e.status = 'requested';
  IF NOT FOUND THEN RAISE EXCEPTION 'no such request' USING ERRCODE = 'MF012'; END IF;
END $$;
--;;
-- Level 1: chosen fields go; what stays is there again under a new run key.
-- A copy of the run opens with any key that ever wrapped its own: those of now, those that earlier erasures of it still wait
-- for, and those that are retired and not destroyed yet.
CREATE FUNCTION erase_anonymize_run(
  p_tenant uuid, p_run uuid, p_erasure uuid, p_record_run uuid, p_record_seq bigint,
  p_seqs bigint[], p_rcs bytea[], p_chains bytea[], p_gone_seqs bigint[], p_gone_fields smallint[],
  p_kept_seqs bigint[], p_kept_fields smallint[], p_kept_blobs bytea[], p_kek text, p_wrapped bytea,
  p_at timestamptz, p_due timestamptz, p_reason text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE keks text[];
BEGIN
  PERFORM public.erase_recorded(p_tenant, 'anonymize_run', p_record_run, p_record_seq);
  PERFORM public.erase_locked(p_tenant, p_run, p_seqs, p_rcs, p_chains, p_gone_seqs || p_kept_seqs, p_gone_fields || p_kept_fields);
  PERFORM public.kek_in_use(p_tenant, p_kek);
  SELECT array_agg(k.kek_id) INTO keks FROM (
    SELECT r.kek_id FROM public.run_key r WHERE r.tenant_id = p_tenant AND r.run_id = p_run
    UNION SELECT s.kek_id FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.run_id = p_run
    UNION SELECT u.kek_id FROM public.erasure e CROSS JOIN LATERAL unnest(e.kek_ids) AS u(kek_id)
      WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status = 'pending'
    UNION SELECT t.kek_id FROM public.kek_retirement t WHERE t.tenant_id = p_tenant AND t.destroyed_at IS NULL) AS k(kek_id);
  DELETE FROM public.payload p USING unnest(p_gone_seqs, p_gone_fields) AS u(seq, field)
  WHERE p.tenant_id = p_tenant AND p.run_id = p_run AND p.seq = u.seq AND p.field = u.field;
  UPDATE public.payload p SET blob = u.blob FROM unnest(p_kept_seqs, p_kept_fields, p_kept_blobs) AS u(seq, field, blob)
  WHERE p.tenant_id = p_tenant AND p.run_id = p_run AND p.seq = u.seq AND p.field = u.field;
  UPDATE public.run_key k SET kek_id = p_kek, wrapped = p_wrapped WHERE k.tenant_id = p_tenant AND k.run_id = p_run;
  DELETE FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.run_id = p_run;
  PERFORM public.erase_receipt(p_tenant, p_erasure, coalesce(keks, '{}'), p_record_run, p_record_seq, p_at, p_due, p_reason);
END $$;
--;;
-- Level 2: of a run only the hashes of its records stay.
CREATE FUNCTION erase_delete_run(
  p_tenant uuid, p_run uuid, p_erasure uuid, p_record_run uuid, p_record_seq bigint,
  p_seqs bigint[], p_rcs bytea[], p_chains bytea[], p_gone_seqs bigint[], p_gone_fields smallint[],
  p_at timestamptz, p_due timestamptz, p_reason text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE keks text[];
BEGIN
  PERFORM public.erase_recorded(p_tenant, 'delete_run', p_record_run, p_record_seq);
  PERFORM public.erase_locked(p_tenant, p_run, p_seqs, p_rcs, p_chains, p_gone_seqs, p_gone_fields);
  SELECT array_agg(k.kek_id) INTO keks FROM (
    SELECT r.kek_id FROM public.run_key r WHERE r.tenant_id = p_tenant AND r.run_id = p_run
    UNION SELECT s.kek_id FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.run_id = p_run
    UNION SELECT u.kek_id FROM public.erasure e CROSS JOIN LATERAL unnest(e.kek_ids) AS u(kek_id)
      WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status = 'pending'
    UNION SELECT t.kek_id FROM public.kek_retirement t WHERE t.tenant_id = p_tenant AND t.destroyed_at IS NULL) AS k(kek_id);
  DELETE FROM public.payload p WHERE p.tenant_id = p_tenant AND p.run_id = p_run;
  DELETE FROM public.run_key k WHERE k.tenant_id = p_tenant AND k.run_id = p_run;
  DELETE FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.run_id = p_run;
  DELETE FROM public.run_command c WHERE c.tenant_id = p_tenant AND c.run_id = p_run;
  UPDATE public.record r SET header = NULL, kind = NULL, ts = NULL, epoch = NULL WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  DELETE FROM public.runs r WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  PERFORM public.erase_receipt(p_tenant, p_erasure, coalesce(keks, '{}'), p_record_run, p_record_seq, p_at, p_due, p_reason);
END $$;
--;;
-- Level 3: everything of a tenant, its log and its name. The record is in the operator log.
CREATE FUNCTION erase_delete_tenant(
  p_operator uuid, p_log uuid, p_erasure uuid, p_record_run uuid, p_record_seq bigint, p_keks text[],
  p_at timestamptz, p_due timestamptz, p_reason text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.erase_recorded(p_operator, 'delete_tenant', p_record_run, p_record_seq);
  PERFORM 1 FROM public.tenants t WHERE t.tenant_id = p_log AND t.name <> '!operator' FOR UPDATE;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such tenant' USING ERRCODE = 'MF003'; END IF;
  PERFORM 1 FROM public.runs r WHERE r.tenant_id = p_log FOR UPDATE;
  IF EXISTS (SELECT 1 FROM public.run_hold h WHERE h.tenant_id = p_log) THEN
    RAISE EXCEPTION 'a hold' USING ERRCODE = 'MF009';
  END IF;
  IF EXISTS (SELECT 1 FROM public.runs r WHERE r.tenant_id = p_log AND r.kind <> 'admin'
    AND r.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted')) THEN
    RAISE EXCEPTION 'a run goes on' USING ERRCODE = 'MF010';
  END IF;
  DELETE FROM public.payload x WHERE x.tenant_id = p_log;
  DELETE FROM public.run_key x WHERE x.tenant_id = p_log;
  DELETE FROM public.run_result x WHERE x.tenant_id = p_log;
  DELETE FROM public.run_command x WHERE x.tenant_id = p_log;
  DELETE FROM public.record x WHERE x.tenant_id = p_log;
  DELETE FROM public.batch x WHERE x.tenant_id = p_log;
  DELETE FROM public.leaf x WHERE x.tenant_id = p_log;
  DELETE FROM public.tile x WHERE x.tenant_id = p_log;
  DELETE FROM public.cosignature x WHERE x.tenant_id = p_log;
  DELETE FROM public.checkpoint x WHERE x.tenant_id = p_log;
  DELETE FROM public.log_head x WHERE x.tenant_id = p_log;
  DELETE FROM public.left_out x WHERE x.tenant_id = p_log;
  DELETE FROM public.erasure x WHERE x.tenant_id = p_log;
  DELETE FROM public.kek_retirement x WHERE x.tenant_id = p_log;
  DELETE FROM public.runs x WHERE x.tenant_id = p_log;
  DELETE FROM public.tenants x WHERE x.tenant_id = p_log;
  PERFORM public.erase_receipt(p_operator, p_erasure, p_keks, p_record_run, p_record_seq, p_at, p_due, p_reason);
END $$;
--;;
CREATE FUNCTION erasure_refuse(p_tenant uuid, p_erasure uuid, p_reason text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.erasure e SET status = 'refused', reason = p_reason
  WHERE e.tenant_id = p_tenant AND e.erasure_id = p_erasure AND e.status = 'requested';
$$;
--;;
-- Requests nobody has looked at yet, oldest first.
CREATE FUNCTION erasure_waiting() RETURNS SETOF erasure
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT * FROM public.erasure e WHERE e.status = 'requested' ORDER BY e.requested_at, e.erasure_id LIMIT 64;
$$;
--;;
-- KEKs that have to die before a receipt can be complete.
CREATE FUNCTION kek_waiting() RETURNS TABLE (tenant_id uuid, log_id uuid, kek_id text, successor text, due_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT DISTINCT e.tenant_id, e.log_id, k.kek_id, r.successor, r.due_at
  FROM public.erasure e CROSS JOIN LATERAL unnest(e.kek_ids) AS k(kek_id)
  LEFT JOIN public.kek_retirement r ON r.tenant_id = e.tenant_id AND r.kek_id = k.kek_id
  WHERE e.status = 'pending' AND r.destroyed_at IS NULL ORDER BY 1, 3;
$$;
--;;
-- Whoever wraps under a KEK holds this lock to the end; whoever retires it waits for them. MF007 when it is retired.
CREATE FUNCTION kek_in_use(p_tenant uuid, p_kek text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtextextended(p_kek, 0));
  IF EXISTS (SELECT 1 FROM public.kek_retirement r WHERE r.tenant_id = p_tenant AND r.kek_id = p_kek) THEN
    RAISE EXCEPTION 'the key is retired' USING ERRCODE = 'MF007';
  END IF;
END $$;
--;;
-- From its commit on nothing new is wrapped under the KEK; the successor in force.
CREATE FUNCTION kek_retire(p_tenant uuid, p_kek text, p_successor text, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE named text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(p_kek, 0));
  INSERT INTO public.kek_retirement (tenant_id, kek_id, successor, retired_at) VALUES (p_tenant, p_kek, p_successor, p_at)
  ON CONFLICT (tenant_id, kek_id) DO NOTHING;
  SELECT r.successor INTO named FROM public.kek_retirement r WHERE r.tenant_id = p_tenant AND r.kek_id = p_kek;
  RETURN named;
END $$;
--;;
-- What a KEK still wraps.
CREATE FUNCTION kek_wraps(p_tenant uuid, p_kek text) RETURNS TABLE (what text, run_id uuid, wrapped bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT 'run', k.run_id, k.wrapped FROM public.run_key k WHERE k.tenant_id = p_tenant AND k.kek_id = p_kek
  UNION ALL
  SELECT 'result', s.run_id, s.wrapped FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.kek_id = p_kek;
$$;
--;;
CREATE FUNCTION kek_rewrap(p_tenant uuid, p_what text, p_run uuid, p_old text, p_new text, p_wrapped bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.kek_in_use(p_tenant, p_new);
  IF p_what = 'run' THEN
    UPDATE public.run_key k SET kek_id = p_new, wrapped = p_wrapped WHERE k.tenant_id = p_tenant AND k.run_id = p_run AND k.kek_id = p_old;
  ELSE
    UPDATE public.run_result s SET kek_id = p_new, wrapped = p_wrapped WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.kek_id = p_old;
  END IF;
END $$;
--;;
-- The key store's word on a retired KEK: gone, or gone by `p_due`. Completes the receipts that waited for it last.
CREATE FUNCTION kek_destroyed(p_tenant uuid, p_kek text, p_destroyed timestamptz, p_due timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM public.run_key k WHERE k.tenant_id = p_tenant AND k.kek_id = p_kek)
    OR EXISTS (SELECT 1 FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.kek_id = p_kek) THEN
    RAISE EXCEPTION 'the key still wraps something' USING ERRCODE = 'MF013';
  END IF;
  UPDATE public.kek_retirement r SET destroyed_at = p_destroyed, due_at = p_due WHERE r.tenant_id = p_tenant AND r.kek_id = p_kek;
  IF NOT FOUND THEN RAISE EXCEPTION 'the key is not retired' USING ERRCODE = 'MF013'; END IF;
  UPDATE public.erasure e SET due_at = greatest(e.due_at, p_due)
  WHERE e.tenant_id = p_tenant AND e.status = 'pending' AND p_kek = ANY (e.kek_ids) AND p_destroyed IS NULL;
  PERFORM public.erasure_complete(p_tenant, p_destroyed);
END $$;
--;;
-- Receipts for which no key is left to wait for.
CREATE FUNCTION erasure_complete(p_tenant uuid, p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.erasure e SET status = 'complete', completed_at = p_at, due_at = NULL
  WHERE e.tenant_id = p_tenant AND e.status = 'pending' AND p_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM unnest(e.kek_ids) AS k(kek_id) WHERE NOT EXISTS (
      SELECT 1 FROM public.kek_retirement r WHERE r.tenant_id = e.tenant_id AND r.kek_id = k.kek_id AND r.destroyed_at IS NOT NULL));
$$;
