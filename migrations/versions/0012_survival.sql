-- What lets a run outlive its day and its process: work keys that change over to another KEK, and wishes that meet a run that parks.

-- The work keys of open runs that are under a KEK of an earlier day than p_day; so many at a time.
CREATE FUNCTION work_outlived(p_day text, p_most integer) RETURNS TABLE (tenant_id uuid, run_id uuid, kek_id text, wrapped bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT w.tenant_id, w.run_id, w.kek_id, w.wrapped FROM public.run_work w
  WHERE w.kek_id IS NOT NULL AND w.wrapped IS NOT NULL AND split_part(split_part(w.kek_id, '/', 3), '.', 1) < p_day
  ORDER BY w.tenant_id, w.run_id LIMIT p_most;
$$;
--;;
-- Puts a work key under another KEK. The former one is retired: an erasure of the run waits for it, for copies of the row that are older.
-- False: the run is over, or somebody else was faster. MF007 the new KEK is retired.
CREATE FUNCTION work_rewrap(p_tenant uuid, p_run uuid, p_old text, p_new text, p_wrapped bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.kek_in_use(p_tenant, p_new);
  UPDATE public.run_work w SET kek_id = p_new, wrapped = p_wrapped
  WHERE w.tenant_id = p_tenant AND w.run_id = p_run AND w.seq = 0 AND w.kek_id = p_old AND w.wrapped IS NOT NULL;
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO public.kek_retirement (tenant_id, kek_id, successor, retired_at) VALUES (p_tenant, p_old, p_new, now())
  ON CONFLICT DO NOTHING;
  RETURN true;
END $$;
--;;
-- Forgets which runs were under keys that are no more. A receipt that waits for one is completed by whoever gave it.
CREATE OR REPLACE FUNCTION work_forget(p_keks text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.kek_retirement r SET destroyed_at = now()
  WHERE r.kek_id = ANY (p_keks) AND r.destroyed_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM public.erasure e WHERE e.tenant_id = r.tenant_id AND e.status = 'pending' AND r.kek_id = ANY (e.kek_ids));
  DELETE FROM public.run_work w WHERE w.kek_id = ANY (p_keks) AND w.wrapped IS NULL;
$$;
--;;
-- As before, and a run that parks while somebody wished it to end is due at once: the place is taken first, so that a wish
-- that was committed before is seen, and one that comes later finds the run parked.
CREATE OR REPLACE FUNCTION queue_keep(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  c jsonb;
  kind text := 'run:' || p_tenant;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
    IF c->>'op' = 'queue.put' THEN
      INSERT INTO public.pgqueuer (priority, entrypoint, dedupe_key, payload, status, queue_manager_id)
      VALUES (0, kind, c->>'run_id', uuid_send((c->>'run_id')::uuid), CASE WHEN c->>'worker' IS NULL THEN 'queued' ELSE 'picked' END::public.pgqueuer_status,
              (c->>'worker')::uuid);
    ELSIF c->>'op' = 'run.change' AND c->>'finished_at' IS NOT NULL THEN
      DELETE FROM public.pgqueuer q
      WHERE q.dedupe_key = c->>'run_id' AND q.entrypoint = kind AND q.status IN ('queued', 'picked');
    ELSIF c->>'op' = 'queue.park' THEN
      UPDATE public.pgqueuer q
      SET status = 'queued', queue_manager_id = NULL, slot = NULL, attempts = 0, updated = now(),
        execute_after = (c->>'until')::timestamptz
      WHERE q.dedupe_key = c->>'run_id' AND q.entrypoint = kind AND q.status IN ('queued', 'picked');
      UPDATE public.pgqueuer q SET execute_after = now()
      WHERE q.dedupe_key = c->>'run_id' AND q.entrypoint = kind AND q.status = 'queued' AND EXISTS (
        SELECT 1 FROM public.run_command w WHERE w.tenant_id = p_tenant AND w.run_id = (c->>'run_id')::uuid AND w.command = 'cancel');
    ELSIF c->>'op' = 'queue.wake' THEN
      UPDATE public.pgqueuer q SET execute_after = least(q.execute_after, now()), updated = now()
      WHERE q.dedupe_key = c->>'run_id' AND q.entrypoint = kind AND q.status = 'queued';
    END IF;
  END LOOP;
END $$;
--;;
-- Parked runs that somebody wished to end while they parked, whoever drove them: due now; how many. By the wishes of p_since, or,
-- where it is NULL, by all that is parked: so neither what was ever cancelled nor what is parked is looked through every second.
CREATE FUNCTION queue_wishes(p_since interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE heard bigint;
BEGIN
  IF p_since IS NOT NULL THEN
    UPDATE public.pgqueuer q SET execute_after = now() WHERE q.id IN (
      SELECT p.id FROM public.run_command w
      JOIN public.runs r ON r.tenant_id = w.tenant_id AND r.run_id = w.run_id AND r.status = 'awaiting_approval'
      JOIN public.pgqueuer p ON p.dedupe_key = w.run_id::text AND p.status = 'queued' AND p.execute_after > now()
      WHERE w.command = 'cancel' AND w.created_at > now() - p_since FOR UPDATE OF p SKIP LOCKED);
  ELSE
    UPDATE public.pgqueuer q SET execute_after = now() WHERE q.id IN (
      SELECT p.id FROM public.pgqueuer p
      WHERE p.status = 'queued' AND p.execute_after > now() AND EXISTS (
        SELECT 1 FROM public.run_command w
        WHERE w.tenant_id = substr(p.entrypoint, 5)::uuid AND w.run_id = p.dedupe_key::uuid AND w.command = 'cancel')
      FOR UPDATE SKIP LOCKED);
  END IF;
  GET DIAGNOSTICS heard = ROW_COUNT;
  RETURN heard;
END $$;
--;;
-- From now on no endpoint is sealed under p_old: whoever was about to has committed when this returns, or is refused.
CREATE FUNCTION webhook_turn_key(p_tenant uuid, p_old text, p_new text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(p_old, 0));
  INSERT INTO public.kek_retirement (tenant_id, kek_id, successor, retired_at) VALUES (p_tenant, p_old, p_new, now())
  ON CONFLICT DO NOTHING;
END $$;
--;;
-- Seals an endpoint under another KEK, as it is: no change that anybody would be told of. False: it was changed meanwhile.
CREATE FUNCTION webhook_reseal(p_tenant uuid, p_endpoint uuid, p_old text, p_version bigint, p_new text, p_sealed bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.kek_in_use(p_tenant, p_new);
  UPDATE public.webhook_endpoint e SET kek_id = p_new, sealed = p_sealed
  WHERE e.tenant_id = p_tenant AND e.endpoint_id = p_endpoint AND e.kek_id = p_old AND e.version = p_version;
  RETURN FOUND;
END $$;
--;;
CREATE INDEX ix_webhook_delivery_dead ON webhook_delivery (ended_at) WHERE state = 'dead';
--;;
-- How much the outbox holds, up to a bound, for how long the oldest has waited, and how much was given up and is still kept.
CREATE FUNCTION webhook_pulse() RETURNS TABLE (waiting bigint, oldest_seconds double precision, dead bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT (SELECT count(*) FROM (SELECT 1 FROM public.webhook_delivery d WHERE d.state = 'pending' LIMIT 100000) AS p),
    coalesce((SELECT extract(epoch FROM now() - (min(d.give_up_at) - interval '24 hours'))
      FROM public.webhook_delivery d WHERE d.state = 'pending'), 0)::double precision,
    (SELECT count(*) FROM (SELECT 1 FROM public.webhook_delivery d WHERE d.state = 'dead' LIMIT 100000) AS g);
$$;
--;;
-- The files of a run that is under way, sealed under its work key, by keyed names; the row of zeros says which there are.
CREATE TABLE run_file (
  tenant_id uuid NOT NULL,
  run_id uuid NOT NULL,
  name bytea NOT NULL CONSTRAINT ck_run_file_name CHECK (octet_length(name) = 32),
  blob bytea NOT NULL,
  CONSTRAINT pk_run_file PRIMARY KEY (tenant_id, run_id, name),
  CONSTRAINT fk_run_file_run FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, run_id) ON DELETE CASCADE
);
--;;
ALTER TABLE run_file ALTER COLUMN blob SET STORAGE EXTERNAL;
--;;
-- What of a run's metadata a list can be narrowed by: keyed digests of a key and its value, no content.
CREATE TABLE run_label (
  tenant_id uuid NOT NULL,
  digest bytea NOT NULL CONSTRAINT ck_run_label_digest CHECK (octet_length(digest) = 32),
  run_id uuid NOT NULL,
  CONSTRAINT pk_run_label PRIMARY KEY (tenant_id, digest, run_id),
  CONSTRAINT fk_run_label_run FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, run_id) ON DELETE CASCADE
);
--;;
CREATE INDEX ix_run_label_run ON run_label (tenant_id, run_id);
--;;
-- Changes the files of a run for its present owner, all at once. MF001 another one owns it, or it is over; MF008 it holds too much.
CREATE FUNCTION work_files(p_tenant uuid, p_run uuid, p_epoch bigint, p_names bytea[], p_blobs bytea[], p_gone bytea[], p_most bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM 1 FROM public.runs r WHERE r.tenant_id = p_tenant AND r.run_id = p_run AND r.epoch = p_epoch AND r.finished_at IS NULL FOR SHARE;
  IF NOT FOUND THEN RAISE EXCEPTION 'stale epoch' USING ERRCODE = 'MF001'; END IF;
  DELETE FROM public.run_file f WHERE f.tenant_id = p_tenant AND f.run_id = p_run AND f.name = ANY (p_gone);
  INSERT INTO public.run_file AS f (tenant_id, run_id, name, blob)
  SELECT p_tenant, p_run, u.name, u.blob FROM unnest(p_names, p_blobs) AS u(name, blob)
  ON CONFLICT ON CONSTRAINT pk_run_file DO UPDATE SET blob = excluded.blob;
  IF (SELECT sum(octet_length(f.blob)) FROM public.run_file f WHERE f.tenant_id = p_tenant AND f.run_id = p_run) > p_most THEN
    RAISE EXCEPTION 'too much' USING ERRCODE = 'MF008';
  END IF;
END $$;
--;;
-- As before; labels come with a run, and its files go with its last record.
CREATE OR REPLACE FUNCTION work_keep(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
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
    ELSIF c->>'op' = 'run.label' THEN
      INSERT INTO public.run_label (tenant_id, digest, run_id)
      SELECT p_tenant, decode(d, 'hex'), (c->>'run_id')::uuid FROM jsonb_array_elements_text(c->'digests') AS t(d)
      ON CONFLICT DO NOTHING;
    ELSIF c->>'op' = 'run.change' AND c->>'finished_at' IS NOT NULL THEN
      DELETE FROM public.run_work w WHERE w.tenant_id = p_tenant AND w.run_id = (c->>'run_id')::uuid AND w.seq > 0;
      UPDATE public.run_work w SET wrapped = NULL, blob = NULL
      WHERE w.tenant_id = p_tenant AND w.run_id = (c->>'run_id')::uuid AND w.seq = 0;
      DELETE FROM public.run_file f WHERE f.tenant_id = p_tenant AND f.run_id = (c->>'run_id')::uuid;
    END IF;
  END LOOP;
END $$;
--;;
-- With content of a run its labels go: nobody can try guesses on them.
CREATE FUNCTION labels_anonymized() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  DELETE FROM public.run_label l WHERE l.tenant_id = NEW.log_id AND l.run_id = NEW.run_id;
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER erasure_anonymizes_labels AFTER UPDATE ON erasure FOR EACH ROW
WHEN (NEW.action = 'anonymize_run' AND OLD.status = 'requested' AND NEW.status = 'pending')
EXECUTE FUNCTION labels_anonymized();
