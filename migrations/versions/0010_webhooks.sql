-- Webhooks: who wants to be told what, and what is still to be told or was.

-- `sealed` holds the URL and the secrets, under a KEK of the tenant. What was removed stays for a while without them, so that
-- no transaction that saw the endpoint finds it gone.
CREATE TABLE webhook_endpoint (
  tenant_id uuid NOT NULL CONSTRAINT fk_webhook_endpoint_tenant REFERENCES tenants ON DELETE CASCADE,
  endpoint_id uuid NOT NULL,
  events text[] NOT NULL,
  enabled boolean NOT NULL,
  reason text,
  failing boolean NOT NULL DEFAULT false,
  version bigint NOT NULL,
  kek_id text,
  sealed bytea,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  removed_at timestamptz,
  CONSTRAINT pk_webhook_endpoint PRIMARY KEY (tenant_id, endpoint_id),
  CONSTRAINT ck_webhook_endpoint_sealed CHECK ((sealed IS NULL) = (removed_at IS NOT NULL) AND (kek_id IS NULL) = (sealed IS NULL)),
  CONSTRAINT ck_webhook_endpoint_removed CHECK (removed_at IS NULL OR NOT enabled)
);
--;;
-- The outbox and the log of deliveries in one. A row is written in the transaction of the record that it tells of.
-- `claim` is whose turn it is until `due_at`; afterwards it is anybody's again.
CREATE TABLE webhook_delivery (
  tenant_id uuid NOT NULL,
  delivery_id uuid NOT NULL,
  endpoint_id uuid NOT NULL,
  run_id uuid,
  type text NOT NULL,
  body text NOT NULL,
  state text NOT NULL DEFAULT 'pending' CONSTRAINT ck_webhook_delivery_state CHECK (state IN ('pending', 'delivered', 'dead')),
  attempts integer NOT NULL DEFAULT 0,
  claim uuid,
  due_at timestamptz NOT NULL,
  give_up_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  attempted_at timestamptz,
  ended_at timestamptz,
  status integer,
  error text,
  CONSTRAINT pk_webhook_delivery PRIMARY KEY (tenant_id, delivery_id),
  CONSTRAINT fk_webhook_delivery_endpoint FOREIGN KEY (tenant_id, endpoint_id)
    REFERENCES webhook_endpoint (tenant_id, endpoint_id) ON DELETE CASCADE,
  CONSTRAINT fk_webhook_delivery_run FOREIGN KEY (tenant_id, run_id)
    REFERENCES runs (tenant_id, run_id) ON DELETE CASCADE,
  CONSTRAINT ck_webhook_delivery_ended CHECK ((ended_at IS NULL) = (state = 'pending'))
);
--;;
CREATE INDEX ix_webhook_delivery_due ON webhook_delivery (tenant_id, endpoint_id, due_at) WHERE state = 'pending';
--;;
CREATE INDEX ix_webhook_delivery_log ON webhook_delivery (tenant_id, endpoint_id, delivery_id);
--;;
CREATE INDEX ix_webhook_delivery_run ON webhook_delivery (tenant_id, run_id) WHERE run_id IS NOT NULL;
--;;
CREATE INDEX ix_webhook_delivery_ended ON webhook_delivery (ended_at) WHERE state <> 'pending';
--;;
CREATE INDEX ix_webhook_delivery_given_up ON webhook_delivery (give_up_at) WHERE state = 'pending';
--;;
-- A UUIDv7 (RFC 9562) that Postgres 15 can make too.
CREATE FUNCTION webhook_new_id() RETURNS uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
    || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid;
$$;
--;;
CREATE FUNCTION webhook_moment(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
$$;
--;;
-- Tells of the states that the records of this very transaction brought runs to: ids, the state, times and hashes, no content.
-- Whether somebody wants to be told is looked up here and not remembered by a process: an endpoint counts from its commit on.
-- No row is waited for that is not waited for already: a look at endpoints takes no lock, and none is ever deleted while it is told.
-- MF008 the records are not there.
CREATE FUNCTION webhook_tell(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.webhook_endpoint e WHERE e.tenant_id = p_tenant AND e.enabled) THEN RETURN; END IF;
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  INSERT INTO public.webhook_delivery (tenant_id, delivery_id, endpoint_id, run_id, type, body, due_at, give_up_at, created_at)
  SELECT p_tenant, public.webhook_new_id(), e.endpoint_id, r.run_id, t.type,
    jsonb_build_object('type', t.type, 'timestamp', public.webhook_moment(x.ts), 'data', jsonb_build_object(
      'run_id', 'run_' || replace(r.run_id::text, '-', ''), 'status', t.status, 'error', r.error_code,
      'seq', x.seq, 'chain_hash', encode(x.chain, 'hex'),
      'created_at', public.webhook_moment(r.created_at), 'finished_at', public.webhook_moment(r.finished_at)))::text,
    now(), now() + interval '24 hours', now()
  FROM (
    SELECT DISTINCT ON (c.value->>'run_id') (c.value->>'run_id')::uuid AS run_id, c.value->>'status' AS status,
      'run.' || (c.value->>'status') AS type
    FROM jsonb_array_elements(p_companions) WITH ORDINALITY AS c(value, place)
    WHERE c.value->>'op' IN ('run.insert', 'run.change') ORDER BY c.value->>'run_id', c.place DESC
  ) AS t
  JOIN public.runs r ON r.tenant_id = p_tenant AND r.run_id = t.run_id AND r.kind <> 'admin'
  CROSS JOIN LATERAL (
    SELECT c.seq, c.chain, c.ts FROM public.record c
    WHERE c.tenant_id = p_tenant AND c.run_id = t.run_id AND c.batch_id = p_batch ORDER BY c.seq DESC LIMIT 1
  ) AS x
  JOIN public.webhook_endpoint e ON e.tenant_id = p_tenant AND e.enabled AND t.type = ANY (e.events);
END $$;
--;;
-- Tells tenants of new checkpoints of their logs, in the transaction that stores them.
CREATE FUNCTION webhook_tell_checkpoints(p_tenants uuid[], p_origins text[], p_sizes bigint[], p_roots bytea[], p_notes text[], p_at timestamptz)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.webhook_delivery (tenant_id, delivery_id, endpoint_id, type, body, due_at, give_up_at, created_at)
  SELECT e.tenant_id, public.webhook_new_id(), e.endpoint_id, 'log.checkpoint',
    jsonb_build_object('type', 'log.checkpoint', 'timestamp', public.webhook_moment(p_at), 'data', jsonb_build_object(
      'origin', u.origin, 'size', u.size, 'root_hash', encode(u.root, 'hex'), 'checkpoint', u.note))::text,
    now(), now() + interval '24 hours', now()
  FROM unnest(p_tenants, p_origins, p_sizes, p_roots, p_notes) AS u(tenant_id, origin, size, root, note)
  JOIN public.webhook_endpoint e ON e.tenant_id = u.tenant_id AND e.enabled AND 'log.checkpoint' = ANY (e.events);
$$;
--;;
-- MF020 the tenant has as many endpoints as it may have; MF007 the KEK is retired.
CREATE FUNCTION webhook_register(p_tenant uuid, p_endpoint uuid, p_kek text, p_sealed bytea, p_events text[], p_enabled boolean, p_most integer)
RETURNS SETOF webhook_endpoint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('webhook ' || p_tenant, 0));
  PERFORM public.kek_in_use(p_tenant, p_kek);
  IF (SELECT count(*) FROM public.webhook_endpoint e WHERE e.tenant_id = p_tenant AND e.removed_at IS NULL) >= p_most THEN
    RAISE EXCEPTION 'too many endpoints' USING ERRCODE = 'MF020';
  END IF;
  RETURN QUERY INSERT INTO public.webhook_endpoint (tenant_id, endpoint_id, events, enabled, version, kek_id, sealed, created_at, updated_at)
    VALUES (p_tenant, p_endpoint, p_events, p_enabled, 1, p_kek, p_sealed, now(), now()) RETURNING *;
END $$;
--;;
-- No row: somebody changed it since that version.
CREATE FUNCTION webhook_change(p_tenant uuid, p_endpoint uuid, p_version bigint, p_kek text, p_sealed bytea, p_events text[], p_enabled boolean)
RETURNS SETOF webhook_endpoint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM public.kek_in_use(p_tenant, p_kek);
  RETURN QUERY UPDATE public.webhook_endpoint e SET kek_id = p_kek, sealed = p_sealed, events = p_events, enabled = p_enabled,
      reason = CASE WHEN p_enabled THEN NULL ELSE e.reason END, failing = false, version = e.version + 1, updated_at = now()
    WHERE e.tenant_id = p_tenant AND e.endpoint_id = p_endpoint AND e.version = p_version AND e.removed_at IS NULL RETURNING e.*;
END $$;
--;;
CREATE FUNCTION webhook_remove(p_tenant uuid, p_endpoint uuid, p_version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE public.webhook_endpoint e SET removed_at = now(), enabled = false, kek_id = NULL, sealed = NULL,
    version = e.version + 1, updated_at = now()
  WHERE e.tenant_id = p_tenant AND e.endpoint_id = p_endpoint AND e.version = p_version AND e.removed_at IS NULL;
  RETURN FOUND;
END $$;
--;;
CREATE FUNCTION webhook_test(p_tenant uuid, p_endpoint uuid) RETURNS SETOF webhook_delivery
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.webhook_delivery (tenant_id, delivery_id, endpoint_id, type, body, due_at, give_up_at, created_at)
  SELECT e.tenant_id, public.webhook_new_id(), e.endpoint_id, 'webhook.test',
    jsonb_build_object('type', 'webhook.test', 'timestamp', public.webhook_moment(now()), 'data', jsonb_build_object(
      'endpoint_id', 'whe_' || replace(e.endpoint_id::text, '-', '')))::text,
    now(), now() + interval '24 hours', now()
  FROM public.webhook_endpoint e WHERE e.tenant_id = p_tenant AND e.endpoint_id = p_endpoint AND e.enabled
  RETURNING *;
$$;
--;;
-- Due at once, with all its time again; one that is being sent at this moment stays as it is.
CREATE FUNCTION webhook_redeliver(p_tenant uuid, p_endpoint uuid, p_delivery uuid) RETURNS SETOF webhook_delivery
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE public.webhook_delivery d SET state = 'pending', attempts = 0, claim = NULL, due_at = now(),
    give_up_at = now() + interval '24 hours', ended_at = NULL
  WHERE d.tenant_id = p_tenant AND d.endpoint_id = p_endpoint AND d.delivery_id = p_delivery
    AND NOT (d.state = 'pending' AND d.claim IS NOT NULL AND d.due_at > now());
  RETURN QUERY SELECT * FROM public.webhook_delivery d
    WHERE d.tenant_id = p_tenant AND d.endpoint_id = p_endpoint AND d.delivery_id = p_delivery;
END $$;
--;;
-- Endpoints that have something due, and whether the last attempt to reach them failed. From endpoint to endpoint by the index, however
-- much waits behind each; no lock.
CREATE FUNCTION webhook_due(p_most integer) RETURNS TABLE (tenant_id uuid, endpoint_id uuid, failing boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  WITH RECURSIVE waiting AS (
    (SELECT d.tenant_id, d.endpoint_id FROM public.webhook_delivery d WHERE d.state = 'pending'
      ORDER BY d.tenant_id, d.endpoint_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
      SELECT d.tenant_id, d.endpoint_id FROM public.webhook_delivery d
      WHERE d.state = 'pending' AND (d.tenant_id, d.endpoint_id) > (w.tenant_id, w.endpoint_id)
      ORDER BY d.tenant_id, d.endpoint_id LIMIT 1) AS n
  )
  SELECT w.tenant_id, w.endpoint_id, e.failing FROM waiting w
  JOIN public.webhook_endpoint e ON e.tenant_id = w.tenant_id AND e.endpoint_id = w.endpoint_id AND e.enabled
  WHERE EXISTS (
    SELECT 1 FROM public.webhook_delivery d
    WHERE d.tenant_id = w.tenant_id AND d.endpoint_id = w.endpoint_id AND d.state = 'pending' AND d.due_at <= now()
      AND d.give_up_at > now()
  ) LIMIT p_most;
$$;
--;;
-- Takes turns for one tenant, so many of each endpoint: nobody else sends these until the lease is over.
CREATE FUNCTION webhook_claim(p_tenant uuid, p_endpoints uuid[], p_rooms integer[], p_claim uuid, p_lease_seconds integer)
RETURNS TABLE (delivery_id uuid, endpoint_id uuid, body text, attempts integer, kek_id text, sealed bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE i integer;
BEGIN
  FOR i IN 1 .. cardinality(p_endpoints) LOOP
    RETURN QUERY
      UPDATE public.webhook_delivery d SET claim = p_claim, due_at = now() + make_interval(secs => p_lease_seconds),
        attempts = d.attempts + 1, attempted_at = now()
      FROM (
        SELECT w.delivery_id FROM public.webhook_delivery w
        WHERE w.tenant_id = p_tenant AND w.endpoint_id = p_endpoints[i] AND w.state = 'pending' AND w.due_at <= now()
          AND w.give_up_at > now() ORDER BY w.due_at, w.delivery_id LIMIT p_rooms[i] FOR UPDATE SKIP LOCKED
      ) AS mine, public.webhook_endpoint e
      WHERE d.tenant_id = p_tenant AND d.delivery_id = mine.delivery_id
        AND e.tenant_id = p_tenant AND e.endpoint_id = p_endpoints[i] AND e.enabled
      RETURNING d.delivery_id, d.endpoint_id, d.body, d.attempts, e.kek_id, e.sealed;
  END LOOP;
END $$;
--;;
-- What came of a turn, said by whoever still has it; false from anybody else. `gone` disables the endpoint.
CREATE FUNCTION webhook_settle(p_tenant uuid, p_delivery uuid, p_claim uuid, p_outcome text, p_status integer, p_error text, p_delay_seconds double precision)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE told uuid;
BEGIN
  UPDATE public.webhook_delivery d SET claim = NULL,
    state = CASE WHEN p_outcome = 'delivered' THEN 'delivered' WHEN p_outcome = 'gone' THEN 'dead'
      WHEN p_outcome = 'retry' AND now() + make_interval(secs => p_delay_seconds) >= d.give_up_at THEN 'dead' ELSE 'pending' END,
    ended_at = CASE WHEN p_outcome IN ('delivered', 'gone')
      OR (p_outcome = 'retry' AND now() + make_interval(secs => p_delay_seconds) >= d.give_up_at) THEN now() END,
    due_at = now() + make_interval(secs => CASE WHEN p_outcome = 'retry' THEN p_delay_seconds ELSE 0 END),
    attempts = d.attempts - CASE WHEN p_outcome = 'released' THEN 1 ELSE 0 END,
    status = CASE WHEN p_outcome = 'released' THEN d.status ELSE p_status END,
    error = CASE WHEN p_outcome = 'released' THEN d.error ELSE p_error END
  WHERE d.tenant_id = p_tenant AND d.delivery_id = p_delivery AND d.claim = p_claim AND d.state = 'pending'
  RETURNING d.endpoint_id INTO told;
  IF told IS NULL THEN RETURN false; END IF;
  IF p_outcome IN ('delivered', 'retry') THEN
    UPDATE public.webhook_endpoint e SET failing = (p_outcome = 'retry')
    WHERE e.tenant_id = p_tenant AND e.endpoint_id = told AND e.failing <> (p_outcome = 'retry');
  ELSIF p_outcome = 'gone' THEN
    UPDATE public.webhook_endpoint e SET enabled = false, reason = 'gone', version = e.version + 1, updated_at = now()
    WHERE e.tenant_id = p_tenant AND e.endpoint_id = told AND e.enabled;
  END IF;
  RETURN true;
END $$;
--;;
-- Gives up what had its time, and removes what was kept long enough and what belongs to removed endpoints; how many rows.
CREATE FUNCTION webhook_trim(p_retention_seconds integer, p_removed_seconds integer, p_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  gone bigint;
  found_rows bigint := 0;
BEGIN
  UPDATE public.webhook_delivery d SET state = 'dead', ended_at = now(), claim = NULL
  FROM (SELECT w.tenant_id, w.delivery_id FROM public.webhook_delivery w
    WHERE w.state = 'pending' AND w.give_up_at <= now() AND (w.claim IS NULL OR w.due_at <= now())
    ORDER BY w.give_up_at LIMIT p_most) AS old
  WHERE d.tenant_id = old.tenant_id AND d.delivery_id = old.delivery_id AND d.state = 'pending' AND d.give_up_at <= now();
  GET DIAGNOSTICS gone = ROW_COUNT;
  found_rows := found_rows + gone;
  DELETE FROM public.webhook_delivery d USING (
    SELECT w.tenant_id, w.delivery_id FROM public.webhook_delivery w
    WHERE w.state <> 'pending' AND w.ended_at < now() - make_interval(secs => p_retention_seconds)
    ORDER BY w.ended_at LIMIT p_most) AS old
  WHERE d.tenant_id = old.tenant_id AND d.delivery_id = old.delivery_id AND d.state <> 'pending';
  GET DIAGNOSTICS gone = ROW_COUNT;
  found_rows := found_rows + gone;
  DELETE FROM public.webhook_delivery d USING (
    SELECT w.tenant_id, w.delivery_id FROM public.webhook_endpoint e
    JOIN public.webhook_delivery w ON w.tenant_id = e.tenant_id AND w.endpoint_id = e.endpoint_id
    WHERE e.removed_at IS NOT NULL LIMIT p_most) AS old
  WHERE d.tenant_id = old.tenant_id AND d.delivery_id = old.delivery_id;
  GET DIAGNOSTICS gone = ROW_COUNT;
  found_rows := found_rows + gone;
  DELETE FROM public.webhook_endpoint e WHERE e.removed_at < now() - make_interval(secs => p_removed_seconds)
    AND NOT EXISTS (SELECT 1 FROM public.webhook_delivery d WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.endpoint_id);
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN found_rows + gone;
END $$;
