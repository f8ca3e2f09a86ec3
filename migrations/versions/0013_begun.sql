-- Tells of the states that the records of this very transaction brought runs to: ids, the state, times and hashes, no content.
-- Whether somebody wants to be told is looked up here and not remembered by a process: an endpoint counts from its commit on.
-- No row is waited for that is not waited for already: a look at endpoints takes no lock, and none is ever deleted while it is told.
-- MF008 the records are not there.
CREATE OR REPLACE FUNCTION webhook_tell(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.webhook_endpoint e WHERE e.tenant_id = p_tenant AND e.enabled) THEN RETURN; END IF;
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  INSERT INTO public.webhook_delivery (tenant_id, delivery_id, endpoint_id, run_id, type, body, due_at, give_up_at, created_at)
  SELECT p_tenant, public.webhook_new_id(), e.endpoint_id, r.run_id, 'run.' || t.status,
    jsonb_build_object('type', 'run.' || t.status, 'timestamp', public.webhook_moment(x.ts), 'data', jsonb_build_object(
      'run_id', 'run_' || replace(r.run_id::text, '-', ''), 'status', t.status, 'error', r.error_code,
      'seq', x.seq, 'chain_hash', encode(x.chain, 'hex'),
      'created_at', public.webhook_moment(r.created_at), 'finished_at', public.webhook_moment(r.finished_at)))::text,
    now(), now() + interval '24 hours', now()
  FROM (
    (SELECT DISTINCT ON (c.value->>'run_id') (c.value->>'run_id')::uuid AS run_id, c.value->>'status' AS status
    FROM jsonb_array_elements(p_companions) WITH ORDINALITY AS c(value, place)
    WHERE c.value->>'op' IN ('run.insert', 'run.change') ORDER BY c.value->>'run_id', c.place DESC)
    UNION
    SELECT (c.value->>'run_id')::uuid, 'queued' FROM jsonb_array_elements(p_companions) AS c(value) WHERE c.value->>'op' = 'queue.put'
  ) AS t
  JOIN public.runs r ON r.tenant_id = p_tenant AND r.run_id = t.run_id AND r.kind <> 'admin'
  CROSS JOIN LATERAL (
    SELECT c.seq, c.chain, c.ts FROM public.record c
    WHERE c.tenant_id = p_tenant AND c.run_id = t.run_id AND c.batch_id = p_batch ORDER BY c.seq DESC LIMIT 1
  ) AS x
  JOIN public.webhook_endpoint e ON e.tenant_id = p_tenant AND e.enabled AND 'run.' || t.status = ANY (e.events);
END $$;
