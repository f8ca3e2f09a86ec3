-- What a client's Idempotency-Key began: keyed digests of the key and of the request, the status and an id; never a body.
-- status NULL: the first request is under way, for as long as its lease lasts. request NULL: its content was erased.
CREATE TABLE idempotency (
  tenant_id uuid NOT NULL CONSTRAINT fk_idempotency_tenant REFERENCES tenants ON DELETE CASCADE,
  key_digest bytea NOT NULL CONSTRAINT ck_idempotency_key CHECK (octet_length(key_digest) = 32),
  request_digest bytea CONSTRAINT ck_idempotency_request CHECK (octet_length(request_digest) = 32),
  run_id uuid,
  status smallint CONSTRAINT ck_idempotency_status CHECK (status BETWEEN 200 AND 599),
  told text CONSTRAINT ck_idempotency_told CHECK (told ~ '^[a-z0-9_.:]{1,64}$'),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_idempotency PRIMARY KEY (tenant_id, key_digest),
  CONSTRAINT fk_idempotency_run FOREIGN KEY (tenant_id, run_id)
    REFERENCES runs (tenant_id, run_id) ON DELETE CASCADE
);
--;;
CREATE INDEX ix_idempotency_run ON idempotency (tenant_id, run_id) WHERE run_id IS NOT NULL;
--;;
CREATE INDEX ix_idempotency_created ON idempotency (created_at);
--;;
-- Whether nobody else is about to use a key. It has a digest for each day that may count, and two requests on either side
-- of midnight share one: whoever holds that one is first, whatever the clocks say. Nobody waits: a second one is told to come again.
CREATE FUNCTION idempotency_held(p_tenant uuid, p_keys bytea[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE k bytea;
BEGIN
  FOREACH k IN ARRAY p_keys LOOP
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_tenant || encode(k, 'hex'), 9)) THEN RETURN false; END IF;
  END LOOP;
  RETURN true;
END $$;
--;;
-- What a key began in the last 24 hours. With p_lease_seconds, a key that began nothing, or something that was never
-- ended, is taken for this request: its row is the only one that says `begun`.
CREATE FUNCTION idempotency_begin(p_tenant uuid, p_keys bytea[], p_requests bytea[], p_lease_seconds integer)
RETURNS TABLE (state text, key_digest bytea, request_digest bytea, run_id uuid, status smallint, told text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE found public.idempotency;
BEGIN
  IF p_lease_seconds IS NOT NULL AND NOT public.idempotency_held(p_tenant, p_keys) THEN
    RETURN QUERY SELECT 'busy'::text, NULL::bytea, NULL::bytea, NULL::uuid, NULL::smallint, NULL::text;
    RETURN;
  END IF;
  SELECT i.* INTO found FROM public.idempotency i
  WHERE i.tenant_id = p_tenant AND i.key_digest = ANY (p_keys) AND i.created_at > now() - interval '24 hours'
  ORDER BY i.created_at LIMIT 1;
  IF found.tenant_id IS NULL THEN
    IF p_lease_seconds IS NULL THEN RETURN; END IF;
    INSERT INTO public.idempotency AS i (tenant_id, key_digest, request_digest) VALUES (p_tenant, p_keys[1], p_requests[1])
    ON CONFLICT ON CONSTRAINT pk_idempotency DO UPDATE SET request_digest = excluded.request_digest, run_id = NULL,
      status = NULL, told = NULL, created_at = now();
    RETURN QUERY SELECT 'begun'::text, p_keys[1], p_requests[1], NULL::uuid, NULL::smallint, NULL::text;
  ELSIF found.status IS NULL AND p_lease_seconds IS NOT NULL AND found.request_digest = ANY (p_requests)
    AND found.created_at < now() - make_interval(secs => p_lease_seconds) THEN
    UPDATE public.idempotency i SET created_at = now() WHERE i.tenant_id = p_tenant AND i.key_digest = found.key_digest;
    RETURN QUERY SELECT 'begun'::text, found.key_digest, found.request_digest, NULL::uuid, NULL::smallint, NULL::text;
  ELSE
    RETURN QUERY SELECT CASE WHEN found.status IS NULL THEN 'busy' ELSE 'known' END, found.key_digest,
      found.request_digest, found.run_id, found.status, found.told;
  END IF;
END $$;
--;;
-- How the first request of a key ended; status NULL: it did nothing, and the key is free again.
CREATE FUNCTION idempotency_end(p_tenant uuid, p_key bytea, p_run uuid, p_status smallint, p_told text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF p_status IS NULL OR (p_run IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM public.runs r WHERE r.tenant_id = p_tenant AND r.run_id = p_run)) THEN
    DELETE FROM public.idempotency i WHERE i.tenant_id = p_tenant AND i.key_digest = p_key AND i.status IS NULL;
  ELSE
    UPDATE public.idempotency i SET run_id = p_run, status = p_status, told = p_told
    WHERE i.tenant_id = p_tenant AND i.key_digest = p_key AND i.status IS NULL;
  END IF;
END $$;
--;;
-- Takes the keys of runs that begin in this very transaction: run and key are there together, or neither.
-- MF008 the records are not there; MF020 the key is in use at this moment; MF021 it was used.
CREATE FUNCTION idempotency_keep(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  c jsonb;
  keys bytea[];
  busy text;
  used text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
    CONTINUE WHEN c->>'op' <> 'key.take';
    SELECT array_agg(decode(k, 'hex') ORDER BY n) INTO keys
    FROM jsonb_array_elements_text(c->'keys') WITH ORDINALITY AS t(k, n);
    IF NOT public.idempotency_held(p_tenant, keys) THEN
      busy := concat_ws(' ', busy, c->>'run_id');
    ELSIF EXISTS (SELECT 1 FROM public.idempotency i WHERE i.tenant_id = p_tenant AND i.key_digest = ANY (keys)
      AND i.created_at > now() - interval '24 hours') THEN
      used := concat_ws(' ', used, c->>'run_id');
    ELSE
      INSERT INTO public.idempotency AS i (tenant_id, key_digest, request_digest, run_id, status)
      VALUES (p_tenant, keys[1], decode(c->>'request', 'hex'), (c->>'run_id')::uuid, (c->>'status')::smallint)
      ON CONFLICT ON CONSTRAINT pk_idempotency DO UPDATE SET request_digest = excluded.request_digest,
        run_id = excluded.run_id, status = excluded.status, told = NULL, created_at = now();
    END IF;
  END LOOP;
  -- All of them at once: the rest is written anew once, and not once for each of them.
  IF used IS NOT NULL THEN RAISE EXCEPTION 'keys were used' USING ERRCODE = 'MF021', DETAIL = p_tenant || ' ' || used; END IF;
  IF busy IS NOT NULL THEN RAISE EXCEPTION 'keys are in use' USING ERRCODE = 'MF020', DETAIL = p_tenant || ' ' || busy; END IF;
END $$;
--;;
-- Removes what is older than 24 hours, so many rows at a time; how many those were.
CREATE FUNCTION idempotency_trim(p_most integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  WITH old AS (
    SELECT i.tenant_id, i.key_digest FROM public.idempotency i WHERE i.created_at <= now() - interval '24 hours'
    ORDER BY i.created_at LIMIT p_most FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM public.idempotency i USING old WHERE i.tenant_id = old.tenant_id AND i.key_digest = old.key_digest RETURNING 1
  ) SELECT count(*) FROM gone;
$$;
--;;
-- With content of a run its requests' digests go: nobody can try guesses on them. That the key was used stays known.
CREATE FUNCTION idempotency_anonymized() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE public.idempotency i SET request_digest = NULL WHERE i.tenant_id = NEW.log_id AND i.run_id = NEW.run_id;
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER erasure_anonymizes_keys AFTER UPDATE ON erasure FOR EACH ROW
WHEN (NEW.action = 'anonymize_run' AND OLD.status = 'requested' AND NEW.status = 'pending')
EXECUTE FUNCTION idempotency_anonymized();
