-- The only ways in which the application writes. Each runs as mf_writer with a fixed search path.

-- Appends records of one tenant, of one run or several, with their companions: all of it, or nothing.
-- Errors: MF001 another owner holds a run; MF002 a run's state forbids the change; MF003 no such run: DETAIL names
-- tenant and runs, so that the caller drops them and signs the others anew. MF005 a log is halted; MF006 the writer is
-- retired; MF014 somebody holds the named runs: nobody waits for a run of somebody else, only for the one it appends to alone.
-- MF007 a KEK is retired that something was to be wrapped under (its table and the check: migration 0005).
CREATE FUNCTION ledger_append(
  p_tenant uuid, p_batch uuid, p_writer uuid, p_ranges bytea, p_entries bytea, p_tip bytea, p_sig bytea,
  p_runs uuid[], p_seqs bigint[], p_epochs bigint[], p_kinds text[], p_ts timestamptz[],
  p_headers bytea[], p_rcs bytea[], p_chains bytea[],
  p_field_runs uuid[], p_field_seqs bigint[], p_fields smallint[], p_blobs bytea[],
  p_companions jsonb
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  c jsonb;
  shared boolean := octet_length(p_ranges) > 32;
  stale text;
  missing text;
BEGIN
  -- The transaction's id first, then the look: whoever halts or retires and then waits for the horizon has waited for this.
  PERFORM pg_current_xact_id();
  IF EXISTS (SELECT 1 FROM public.tenants t WHERE t.halted IS NOT NULL)
    AND (cardinality(p_kinds) = 0 OR NOT p_kinds <@ '{log.recovery}') THEN
    RAISE EXCEPTION 'the ledger is halted' USING ERRCODE = 'MF005';
  END IF;
  IF EXISTS (SELECT 1 FROM public.writer_key k WHERE k.writer_id = p_writer AND k.retired_at IS NOT NULL) THEN
    RAISE EXCEPTION 'the writer is retired' USING ERRCODE = 'MF006';
  END IF;

  IF p_companions IS NOT NULL THEN
    FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
      IF c->>'op' = 'run.insert' THEN
        INSERT INTO public.runs (tenant_id, run_id, kind, status, epoch, owner, provider, model, agent, policy_digest, created_at)
        VALUES (p_tenant, (c->>'run_id')::uuid, c->>'kind', c->>'status', 1, p_writer, c->>'provider', c->>'model', c->>'agent',
                c->>'policy_digest', (c->>'created_at')::timestamptz);
        PERFORM public.kek_in_use(p_tenant, c->>'kek_id');
        INSERT INTO public.run_key (tenant_id, run_id, kek_id, wrapped)
        VALUES (p_tenant, (c->>'run_id')::uuid, c->>'kek_id', decode(c->>'wrapped', 'hex'));
      ELSIF c->>'op' = 'run.claim' THEN
        IF shared THEN
          PERFORM 1 FROM public.runs
          WHERE tenant_id = p_tenant AND run_id = (c->>'run_id')::uuid FOR NO KEY UPDATE SKIP LOCKED;
          IF NOT FOUND THEN RAISE EXCEPTION 'held' USING ERRCODE = 'MF014', DETAIL = p_tenant || ' ' || (c->>'run_id'); END IF;
        END IF;
        UPDATE public.runs SET epoch = epoch + 1, owner = p_writer
        WHERE tenant_id = p_tenant AND run_id = (c->>'run_id')::uuid AND epoch = (c->>'from_epoch')::bigint;
        IF NOT FOUND THEN RAISE EXCEPTION 'stale epoch' USING ERRCODE = 'MF001', DETAIL = p_tenant || ' ' || (c->>'run_id'); END IF;
      END IF;
    END LOOP;
  END IF;

  -- The fence: held to COMMIT, so that nobody can raise an epoch between this look and this write.
  IF shared THEN
    WITH held AS MATERIALIZED (
      SELECT r.run_id, r.epoch FROM public.runs r
      WHERE r.tenant_id = p_tenant AND r.run_id = ANY (p_runs)
      ORDER BY r.tenant_id, r.run_id FOR SHARE SKIP LOCKED
    )
    SELECT string_agg(DISTINCT e.run_id::text, ' ') FILTER (WHERE held.run_id IS NOT NULL),
      string_agg(DISTINCT e.run_id::text, ' ') FILTER (WHERE held.run_id IS NULL)
    INTO stale, missing
    FROM unnest(p_runs, p_epochs) AS e(run_id, epoch) LEFT JOIN held ON held.run_id = e.run_id
    WHERE held.run_id IS NULL OR held.epoch IS DISTINCT FROM e.epoch;
  ELSE
    WITH held AS MATERIALIZED (
      SELECT r.run_id, r.epoch FROM public.runs r
      WHERE r.tenant_id = p_tenant AND r.run_id = ANY (p_runs)
      ORDER BY r.tenant_id, r.run_id FOR SHARE
    )
    SELECT string_agg(DISTINCT e.run_id::text, ' ') FILTER (WHERE held.run_id IS NOT NULL),
      string_agg(DISTINCT e.run_id::text, ' ') FILTER (WHERE held.run_id IS NULL)
    INTO stale, missing
    FROM unnest(p_runs, p_epochs) AS e(run_id, epoch) LEFT JOIN held ON held.run_id = e.run_id
    WHERE held.run_id IS NULL OR held.epoch IS DISTINCT FROM e.epoch;
  END IF;
  IF stale IS NOT NULL THEN RAISE EXCEPTION 'stale epoch' USING ERRCODE = 'MF001', DETAIL = p_tenant || ' ' || stale; END IF;
  IF missing IS NOT NULL AND shared THEN
    RAISE EXCEPTION 'held, or no such run' USING ERRCODE = 'MF014', DETAIL = p_tenant || ' ' || missing;
  END IF;
  IF missing IS NOT NULL THEN RAISE EXCEPTION 'no such run' USING ERRCODE = 'MF003', DETAIL = p_tenant || ' ' || missing; END IF;

  INSERT INTO public.batch (tenant_id, batch_id, writer_id, n, ranges, entries, tip, sig)
  VALUES (p_tenant, p_batch, p_writer, cardinality(p_seqs), p_ranges, p_entries, p_tip, p_sig);
  INSERT INTO public.record (tenant_id, run_id, seq, epoch, kind, ts, header, rc, chain, batch_id)
  SELECT p_tenant, u.run_id, u.seq, u.epoch, u.kind, u.ts, u.header, u.rc, u.chain, p_batch
  FROM unnest(p_runs, p_seqs, p_epochs, p_kinds, p_ts, p_headers, p_rcs, p_chains)
    AS u(run_id, seq, epoch, kind, ts, header, rc, chain);
  INSERT INTO public.payload (tenant_id, run_id, seq, field, blob)
  SELECT p_tenant, u.run_id, u.seq, u.field, u.blob
  FROM unnest(p_field_runs, p_field_seqs, p_fields, p_blobs) AS u(run_id, seq, field, blob);

  IF p_companions IS NOT NULL THEN
    FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
      IF c->>'op' = 'run.change' THEN
        UPDATE public.runs SET
          status = c->>'status',
          input_tokens = coalesce((c->>'input_tokens')::bigint, input_tokens),
          output_tokens = coalesce((c->>'output_tokens')::bigint, output_tokens),
          cost_micros = coalesce((c->>'cost_micros')::bigint, cost_micros),
          steps = coalesce((c->>'steps')::integer, steps),
          entries = (c->>'entries')::bigint,
          error_code = c->>'error_code',
          finished_at = (c->>'finished_at')::timestamptz
        WHERE tenant_id = p_tenant AND run_id = (c->>'run_id')::uuid
          AND status = ANY (ARRAY(SELECT jsonb_array_elements_text(c->'from')));
        IF NOT FOUND THEN RAISE EXCEPTION 'illegal transition' USING ERRCODE = 'MF002', DETAIL = p_tenant || ' ' || (c->>'run_id'); END IF;
      ELSIF c->>'op' = 'hold.set' THEN
        INSERT INTO public.run_hold (tenant_id, run_id, reason, actor, set_at)
        VALUES (p_tenant, (c->>'held_run')::uuid, c->>'reason', c->>'actor', (c->>'at')::timestamptz);
      ELSIF c->>'op' = 'hold.release' THEN
        DELETE FROM public.run_hold h WHERE h.tenant_id = p_tenant AND h.run_id = (c->>'held_run')::uuid;
        IF NOT FOUND THEN RAISE EXCEPTION 'no such hold' USING ERRCODE = 'MF003'; END IF;
      ELSIF c->>'op' = 'result.insert' THEN
        PERFORM public.kek_in_use(p_tenant, c->>'kek_id');
        INSERT INTO public.run_result (tenant_id, run_id, kek_id, wrapped, blob, expires_at)
        VALUES (p_tenant, (c->>'run_id')::uuid, c->>'kek_id', decode(c->>'wrapped', 'hex'), decode(c->>'blob', 'hex'),
                (c->>'expires_at')::timestamptz);
      END IF;
    END LOOP;
  END IF;
END $$;
--;;
-- The id of a tenant name; made when the name is first seen.
CREATE FUNCTION tenant_ensure(p_name text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE found_id uuid;
BEGIN
  INSERT INTO public.tenants (name) VALUES (p_name) ON CONFLICT (name) DO NOTHING;
  SELECT t.tenant_id INTO found_id FROM public.tenants t WHERE t.name = p_name;
  RETURN found_id;
END $$;
--;;
-- Makes the public key of a process known before its first append.
CREATE FUNCTION writer_register(p_writer uuid, p_public_key bytea, p_certificate bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  INSERT INTO public.writer_key (writer_id, public_key, certificate) VALUES (p_writer, p_public_key, p_certificate)
  ON CONFLICT (writer_id) DO NOTHING;
$$;
--;;
-- The goodbye of a process: its key signs no more.
CREATE FUNCTION writer_leave(p_writer uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  UPDATE public.writer_key SET retired_at = now(), retired_xid = pg_current_xact_id()
  WHERE writer_id = p_writer AND retired_at IS NULL;
$$;
--;;
-- One heartbeat of a process: says it lives, learns which of its runs are to be cancelled,
-- and which runs nobody drives: its own that it does not know, and those of a silent owner.
-- p_active NULL: it does not ask about its own. A wish to cancel is told at every heartbeat for a
-- minute: longer than any statement may take to commit, counted from the heartbeat before.
CREATE FUNCTION writer_tick(p_writer uuid, p_active uuid[], p_stale_seconds integer)
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
    WHERE k.writer_id <> p_writer AND k.seen_at < now() - make_interval(secs => p_stale_seconds)
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
-- Removes results past their time; answers with the work keys that some result still needs.
CREATE FUNCTION results_expire(p_now timestamptz) RETURNS SETOF text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  WITH gone AS (DELETE FROM public.run_result r WHERE r.expires_at <= p_now RETURNING r.run_id)
  SELECT DISTINCT r.kek_id FROM public.run_result r WHERE r.expires_at > p_now;
$$;
