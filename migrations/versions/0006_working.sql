-- The working copy of a run: what a process needs in clear to go on with it, sealed outside the ledger.

-- The row at seq 0 bears the wrapped work key and the task; each other one what the records up to that seq brought.
-- When the run ends only which KEK it was under stays, for erasures that have to wait for that KEK.
CREATE TABLE run_work (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  seq bigint NOT NULL,
  kek_id text,
  wrapped bytea,
  blob bytea,
  CONSTRAINT pk_run_work PRIMARY KEY (tenant_id, run_id, seq),
  CONSTRAINT fk_run_work_run FOREIGN KEY (tenant_id, run_id)
    REFERENCES runs (tenant_id, run_id) ON DELETE CASCADE,
  CONSTRAINT ck_run_work_key CHECK ((seq = 0) = (kek_id IS NOT NULL)),
  CONSTRAINT ck_run_work_blob CHECK (seq = 0 OR blob IS NOT NULL)
);
--;;
ALTER TABLE run_work ALTER COLUMN blob SET STORAGE EXTERNAL;
--;;
-- Which work keys are needed, and what a dying one wraps.
CREATE INDEX ix_run_work_kek ON run_work (kek_id) WHERE kek_id IS NOT NULL;
--;;
-- Keeps what came with records of this very transaction, and destroys all of it with a run's last record.
-- MF007 the KEK is retired; MF008 the records are not there.
CREATE FUNCTION work_keep(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE c jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
    IF c->>'op' = 'work.open' THEN
      PERFORM public.kek_in_use(p_tenant, c->>'kek_id');
      INSERT INTO public.run_work (tenant_id, run_id, seq, kek_id, wrapped, blob)
      VALUES (p_tenant, (c->>'run_id')::uuid, 0, c->>'kek_id', decode(c->>'wrapped', 'hex'), decode(c->>'blob', 'base64'));
    ELSIF c->>'op' = 'work.put' THEN
      INSERT INTO public.run_work (tenant_id, run_id, seq, blob)
      VALUES (p_tenant, (c->>'run_id')::uuid, (c->>'seq')::bigint, decode(c->>'blob', 'base64'));
    ELSIF c->>'op' = 'run.change' AND c->>'finished_at' IS NOT NULL THEN
      DELETE FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.run_id = (c->>'run_id')::uuid AND w.seq > 0;
      UPDATE public.run_work w SET wrapped = NULL, blob = NULL
      WHERE w.tenant_id = p_tenant AND w.run_id = (c->>'run_id')::uuid AND w.seq = 0;
    END IF;
  END LOOP;
END $$;
--;;
-- Forgets which runs were under keys that are no more.
CREATE FUNCTION work_forget(p_keks text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  DELETE FROM public.run_work w WHERE w.kek_id = ANY (p_keks) AND w.wrapped IS NULL;
$$;
--;;
-- Removes results past their time; answers with the work keys that a result or a run still needs.
CREATE OR REPLACE FUNCTION results_expire(p_now timestamptz) RETURNS SETOF text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  WITH gone AS (DELETE FROM public.run_result r WHERE r.expires_at <= p_now RETURNING r.run_id)
  SELECT r.kek_id FROM public.run_result r WHERE r.expires_at > p_now
  UNION SELECT w.kek_id FROM public.run_work w WHERE w.kek_id IS NOT NULL AND w.wrapped IS NOT NULL;
$$;
--;;
-- One heartbeat of a process: says it lives, learns which of its runs are to be cancelled,
-- and which runs nobody drives: its own that it does not know, and those of a silent owner.
-- A process that said goodbye is silent at once; one that was silent itself does not judge the others at this beat.
-- p_active NULL: it does not ask about its own. A wish to cancel is told at every heartbeat for a
-- minute: longer than any statement may take to commit, counted from the heartbeat before.
CREATE OR REPLACE FUNCTION writer_tick(p_writer uuid, p_active uuid[], p_stale_seconds integer)
RETURNS TABLE (what text, tenant_id uuid, run_id uuid, epoch bigint, actor text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE seen_before timestamptz;
BEGIN
  SELECT k.seen_at INTO seen_before FROM public.writer_key k WHERE k.writer_id = p_writer;
  UPDATE public.writer_key k SET seen_at = now() WHERE k.writer_id = p_writer;
  RETURN QUERY
    SELECT 'cancel', q.tenant_id, q.run_id, 0::bigint, q.actor FROM public.run_command q
    JOIN public.runs r ON r.tenant_id = q.tenant_id AND r.run_id = q.run_id
    WHERE q.command = 'cancel' AND q.created_at > seen_before - interval '60 seconds' AND r.owner = p_writer
      AND r.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted') AND r.kind <> 'admin'
    UNION ALL
    (SELECT 'orphan', r.tenant_id, r.run_id, r.epoch, ''::text FROM public.writer_key k
    JOIN public.runs r ON r.owner = k.writer_id
    WHERE k.writer_id <> p_writer AND (k.retired_at IS NOT NULL OR k.seen_at < now() - make_interval(secs => p_stale_seconds))
      AND seen_before > now() - make_interval(secs => p_stale_seconds)
      AND r.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted') AND r.kind <> 'admin'
    ORDER BY r.tenant_id, r.run_id LIMIT 64);
  IF p_active IS NOT NULL THEN
    RETURN QUERY
      SELECT 'orphan', r.tenant_id, r.run_id, r.epoch, ''::text FROM public.runs r
      LEFT JOIN unnest(p_active) AS a(id) ON a.id = r.run_id
      WHERE r.owner = p_writer AND a.id IS NULL AND r.kind <> 'admin'
        AND r.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted')
      ORDER BY r.tenant_id, r.run_id LIMIT 64;
  END IF;
END $$;
--;;
-- Level 1: chosen fields go; what stays is there again under a new run key.
-- A copy of the run opens with any key that ever wrapped its own: those of now, those that earlier erasures of it still wait
-- for, and those that are retired and not destroyed yet.
CREATE OR REPLACE FUNCTION erase_anonymize_run(
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
    UNION SELECT w.kek_id FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.run_id = p_run AND w.seq = 0
    UNION SELECT u.kek_id FROM public.erasure e CROSS JOIN LATERAL unnest(e.kek_ids) AS u(kek_id)
      WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status = 'pending'
    UNION SELECT t.kek_id FROM public.kek_retirement t WHERE t.tenant_id = p_tenant AND t.destroyed_at IS NULL) AS k(kek_id);
  DELETE FROM public.payload p USING unnest(p_gone_seqs, p_gone_fields) AS u(seq, field)
  WHERE p.tenant_id = p_tenant AND p.run_id = p_run AND p.seq = u.seq AND p.field = u.field;
  UPDATE public.payload p SET blob = u.blob FROM unnest(p_kept_seqs, p_kept_fields, p_kept_blobs) AS u(seq, field, blob)
  WHERE p.tenant_id = p_tenant AND p.run_id = p_run AND p.seq = u.seq AND p.field = u.field;
  UPDATE public.run_key k SET kek_id = p_kek, wrapped = p_wrapped WHERE k.tenant_id = p_tenant AND k.run_id = p_run;
  DELETE FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.run_id = p_run;
  DELETE FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.run_id = p_run;
  PERFORM public.erase_receipt(p_tenant, p_erasure, coalesce(keks, '{}'), p_record_run, p_record_seq, p_at, p_due, p_reason);
END $$;
--;;
-- Level 2: of a run only the hashes of its records stay.
CREATE OR REPLACE FUNCTION erase_delete_run(
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
    UNION SELECT w.kek_id FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.run_id = p_run AND w.seq = 0
    UNION SELECT u.kek_id FROM public.erasure e CROSS JOIN LATERAL unnest(e.kek_ids) AS u(kek_id)
      WHERE e.tenant_id = p_tenant AND e.run_id = p_run AND e.status = 'pending'
    UNION SELECT t.kek_id FROM public.kek_retirement t WHERE t.tenant_id = p_tenant AND t.destroyed_at IS NULL) AS k(kek_id);
  DELETE FROM public.payload p WHERE p.tenant_id = p_tenant AND p.run_id = p_run;
  DELETE FROM public.run_key k WHERE k.tenant_id = p_tenant AND k.run_id = p_run;
  DELETE FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.run_id = p_run;
  DELETE FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.run_id = p_run;
  DELETE FROM public.run_command c WHERE c.tenant_id = p_tenant AND c.run_id = p_run;
  UPDATE public.record r SET header = NULL, kind = NULL, ts = NULL, epoch = NULL WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  DELETE FROM public.runs r WHERE r.tenant_id = p_tenant AND r.run_id = p_run;
  PERFORM public.erase_receipt(p_tenant, p_erasure, coalesce(keks, '{}'), p_record_run, p_record_seq, p_at, p_due, p_reason);
END $$;
--;;
-- What a KEK still wraps.
CREATE OR REPLACE FUNCTION kek_wraps(p_tenant uuid, p_kek text) RETURNS TABLE (what text, run_id uuid, wrapped bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT 'run', k.run_id, k.wrapped FROM public.run_key k WHERE k.tenant_id = p_tenant AND k.kek_id = p_kek
  UNION ALL
  SELECT 'result', s.run_id, s.wrapped FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.kek_id = p_kek
  UNION ALL
  SELECT 'work', w.run_id, w.wrapped FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.kek_id = p_kek AND w.wrapped IS NOT NULL;
$$;
--;;
CREATE OR REPLACE FUNCTION kek_rewrap(p_tenant uuid, p_what text, p_run uuid, p_old text, p_new text, p_wrapped bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.kek_in_use(p_tenant, p_new);
  IF p_what = 'run' THEN
    UPDATE public.run_key k SET kek_id = p_new, wrapped = p_wrapped WHERE k.tenant_id = p_tenant AND k.run_id = p_run AND k.kek_id = p_old;
  ELSIF p_what = 'work' THEN
    UPDATE public.run_work w SET kek_id = p_new, wrapped = p_wrapped
    WHERE w.tenant_id = p_tenant AND w.run_id = p_run AND w.kek_id = p_old AND w.wrapped IS NOT NULL;
  ELSE
    UPDATE public.run_result s SET kek_id = p_new, wrapped = p_wrapped WHERE s.tenant_id = p_tenant AND s.run_id = p_run AND s.kek_id = p_old;
  END IF;
END $$;
--;;
-- The key store's word on a retired KEK: gone, or gone by `p_due`. Completes the receipts that waited for it last.
CREATE OR REPLACE FUNCTION kek_destroyed(p_tenant uuid, p_kek text, p_destroyed timestamptz, p_due timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM public.run_key k WHERE k.tenant_id = p_tenant AND k.kek_id = p_kek)
    OR EXISTS (SELECT 1 FROM public.run_result s WHERE s.tenant_id = p_tenant AND s.kek_id = p_kek)
    OR EXISTS (SELECT 1 FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.kek_id = p_kek AND w.wrapped IS NOT NULL) THEN
    RAISE EXCEPTION 'the key still wraps something' USING ERRCODE = 'MF013';
  END IF;
  UPDATE public.kek_retirement r SET destroyed_at = p_destroyed, due_at = p_due WHERE r.tenant_id = p_tenant AND r.kek_id = p_kek;
  IF NOT FOUND THEN RAISE EXCEPTION 'the key is not retired' USING ERRCODE = 'MF013'; END IF;
  UPDATE public.erasure e SET due_at = greatest(e.due_at, p_due)
  WHERE e.tenant_id = p_tenant AND e.status = 'pending' AND p_kek = ANY (e.kek_ids) AND p_destroyed IS NULL;
  PERFORM public.erasure_complete(p_tenant, p_destroyed);
END $$;
