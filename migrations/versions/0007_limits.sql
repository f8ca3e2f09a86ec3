-- Lost in a crash, and that is all right: a minute's counts are no record of anything.
CREATE UNLOGGED TABLE rate_use (
  tenant_id uuid NOT NULL CONSTRAINT fk_rate_use_tenant REFERENCES tenants ON DELETE CASCADE,
  key_ref text NOT NULL CONSTRAINT ck_rate_use_key_ref CHECK (key_ref ~ '^[0-9a-f]{16}$'),
  minute bigint NOT NULL,
  used bigint NOT NULL CONSTRAINT ck_rate_use_used CHECK (used >= 0),
  CONSTRAINT pk_rate_use PRIMARY KEY (tenant_id, key_ref, minute)
);
--;;
-- Adds what this process counted since it asked last and answers with what all have counted in the minute.
-- The database's clock says which minute it is, so that processes with other clocks count into the same one.
-- Of a tenant that was deleted nothing is kept and nothing said, whatever a process still counts for it.
-- In the order of the key, so that two processes never wait for each other in a ring.
CREATE FUNCTION rates_exchange(p_tenants uuid[], p_refs text[], p_used bigint[])
RETURNS TABLE (minute bigint, left_seconds integer, tenant_id uuid, key_ref text, used bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  seconds bigint := floor(extract(epoch FROM now()))::bigint;
  this bigint := seconds / 60;
BEGIN
  DELETE FROM public.rate_use r WHERE r.minute < this - 1;
  RETURN QUERY
    WITH added AS (
      INSERT INTO public.rate_use AS r (tenant_id, key_ref, minute, used)
      SELECT u.t, u.k, this, u.n FROM unnest(p_tenants, p_refs, p_used) AS u(t, k, n)
      WHERE EXISTS (SELECT FROM public.tenants t WHERE t.tenant_id = u.t)
      ORDER BY u.t, u.k
      ON CONFLICT ON CONSTRAINT pk_rate_use DO UPDATE SET used = r.used + excluded.used
      RETURNING r.tenant_id, r.key_ref, r.used
    )
    SELECT this, (60 - seconds % 60)::integer, a.tenant_id, a.key_ref, a.used FROM added a;
END $$;
