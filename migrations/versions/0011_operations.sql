-- How many runs of each tenant wait to be begun and are under way, and since when the oldest one waits. Numbers alone.
CREATE FUNCTION runs_pulse() RETURNS TABLE (tenant text, waiting bigint, running bigint, waits_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT t.name, count(*) FILTER (WHERE r.status = 'queued'), count(*) FILTER (WHERE r.status IN ('running','cancelling')),
    coalesce(extract(epoch FROM now() - min(r.created_at) FILTER (WHERE r.status = 'queued')), 0)::double precision
  FROM public.runs r JOIN public.tenants t ON t.tenant_id = r.tenant_id
  WHERE r.status NOT IN ('succeeded','failed','blocked','cancelled','expired','interrupted') AND r.kind <> 'admin'
  GROUP BY t.name;
$$;
--;;
-- Where the ledgers of runs end that somebody follows, and whether they are over: asked once a second for all of them.
-- It says when to look, never what to show; mark: another one when anybody changed the run's row.
CREATE FUNCTION runs_heads(p_tenants uuid[], p_runs uuid[]) RETURNS TABLE (run_id uuid, seq bigint, status text, mark text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT r.run_id, coalesce((SELECT c.seq FROM public.record c WHERE c.tenant_id = r.tenant_id AND c.run_id = r.run_id
    ORDER BY c.seq DESC LIMIT 1), -1), r.status, r.xmin::text || r.ctid::text
  FROM unnest(p_tenants, p_runs) AS u(tenant_id, run_id)
  JOIN public.runs r ON r.tenant_id = u.tenant_id AND r.run_id = u.run_id;
$$;
