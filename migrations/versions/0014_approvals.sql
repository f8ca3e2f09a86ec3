-- Approvals: which calls wait for somebody's decision, and what became of that. Ids, states, times and a keyed digest; no content.

-- What is to be decided stands in the run's ledger and its working copy: this row says that there is something, and until when.
-- `used`: the call that was approved was begun, and the approval is good for nothing more. `void`: it came to nothing, with its run
-- or because the call changed.
CREATE TABLE approval (
  tenant_id uuid NOT NULL,
  approval_id uuid NOT NULL,
  run_id uuid NOT NULL,
  state text NOT NULL CONSTRAINT ck_approval_state
    CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'void', 'used')),
  digest bytea NOT NULL CONSTRAINT ck_approval_digest CHECK (octet_length(digest) = 32),
  seq bigint NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  decided_at timestamptz,
  CONSTRAINT pk_approval PRIMARY KEY (tenant_id, approval_id),
  CONSTRAINT fk_approval_run FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, run_id) ON DELETE CASCADE,
  CONSTRAINT ck_approval_decided CHECK ((decided_at IS NULL) = (state = 'pending'))
);
--;;
CREATE INDEX ix_approval_inbox ON approval (tenant_id, state, approval_id);
--;;
CREATE INDEX ix_approval_run ON approval (tenant_id, run_id);
--;;
-- What came with records of this very transaction opens and closes approvals, and tells endpoints of it: ids, states and times.
-- MF002 the approval is not in a state that allows it, DETAIL as in ledger_append; MF008 the records are not there.
CREATE FUNCTION approval_keep(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE c jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
    IF c->>'op' = 'approval.open' THEN
      INSERT INTO public.approval (tenant_id, approval_id, run_id, state, digest, seq, created_at, expires_at)
      VALUES (p_tenant, (c->>'approval_id')::uuid, (c->>'run_id')::uuid, 'pending', decode(c->>'digest', 'hex'), (c->>'seq')::bigint,
              (c->>'at')::timestamptz, (c->>'expires_at')::timestamptz);
      PERFORM public.approval_tell(p_tenant, (c->>'approval_id')::uuid, 'approval.requested', (c->>'at')::timestamptz);
    ELSIF c->>'op' = 'approval.close' THEN
      UPDATE public.approval a SET state = c->>'state', decided_at = coalesce(a.decided_at, (c->>'at')::timestamptz)
      WHERE a.tenant_id = p_tenant AND a.approval_id = (c->>'approval_id')::uuid AND a.run_id = (c->>'run_id')::uuid
        AND a.state = ANY (ARRAY(SELECT jsonb_array_elements_text(c->'from')));
      IF NOT FOUND THEN
        RAISE EXCEPTION 'the approval is closed' USING ERRCODE = 'MF002', DETAIL = p_tenant || ' ' || (c->>'run_id');
      END IF;
      IF c->>'state' <> 'used' THEN
        PERFORM public.approval_tell(p_tenant, (c->>'approval_id')::uuid, 'approval.decided', (c->>'at')::timestamptz);
      END IF;
    END IF;
  END LOOP;
END $$;
--;;
-- Whether somebody wants to be told is looked up here, as in webhook_tell.
CREATE FUNCTION approval_tell(p_tenant uuid, p_approval uuid, p_type text, p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.webhook_delivery (tenant_id, delivery_id, endpoint_id, run_id, type, body, due_at, give_up_at, created_at)
  SELECT p_tenant, public.webhook_new_id(), e.endpoint_id, a.run_id, p_type,
    jsonb_build_object('type', p_type, 'timestamp', public.webhook_moment(p_at), 'data', jsonb_build_object(
      'approval_id', 'apr_' || replace(a.approval_id::text, '-', ''), 'run_id', 'run_' || replace(a.run_id::text, '-', ''),
      'status', a.state, 'seq', a.seq, 'created_at', public.webhook_moment(a.created_at),
      'expires_at', public.webhook_moment(a.expires_at)))::text,
    now(), now() + interval '24 hours', now()
  FROM public.approval a
  JOIN public.webhook_endpoint e ON e.tenant_id = p_tenant AND e.enabled AND p_type = ANY (e.events)
  WHERE a.tenant_id = p_tenant AND a.approval_id = p_approval;
$$;
--;;
-- With a run its approvals end. Only a run that somebody took over can have had one that is still open.
CREATE FUNCTION approval_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  UPDATE public.approval a SET state = 'void', decided_at = coalesce(a.decided_at, NEW.finished_at)
  WHERE a.tenant_id = NEW.tenant_id AND a.run_id = NEW.run_id AND a.state IN ('pending', 'approved');
  RETURN NULL;
END $$;
--;;
CREATE TRIGGER run_ends_approvals AFTER UPDATE ON runs FOR EACH ROW
WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL AND NEW.epoch > 1)
EXECUTE FUNCTION approval_ended();
