-- Policies: every version that was uploaded, by its digest, and which one is in force. A body is what a tenant wrote, no content of runs.
CREATE TABLE policy_version (
  tenant_id uuid NOT NULL CONSTRAINT fk_policy_version_tenant REFERENCES tenants ON DELETE CASCADE,
  policy_id text NOT NULL,
  version bigint NOT NULL,
  digest text NOT NULL CONSTRAINT ck_policy_version_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
  body bytea NOT NULL CONSTRAINT ck_policy_version_body CHECK (digest = encode(sha256(body), 'hex')),
  author text NOT NULL,
  created_at timestamptz NOT NULL,
  CONSTRAINT pk_policy_version PRIMARY KEY (tenant_id, policy_id, version),
  CONSTRAINT uq_policy_version_digest UNIQUE (tenant_id, digest),
  CONSTRAINT ck_policy_version_version CHECK (version > 0)
);
--;;
-- What is looser than what was in force is in force only once another key has confirmed it, whatever a process believes.
CREATE TABLE policy_activation (
  tenant_id uuid NOT NULL,
  activation_id uuid NOT NULL,
  policy_id text NOT NULL,
  version bigint NOT NULL,
  state text NOT NULL CONSTRAINT ck_policy_activation_state CHECK (state IN ('pending', 'active', 'superseded')),
  needs_second boolean NOT NULL,
  loosened text[] NOT NULL,
  requested_by text NOT NULL,
  requested_at timestamptz NOT NULL,
  confirmed_by text,
  activated_at timestamptz,
  CONSTRAINT pk_policy_activation PRIMARY KEY (tenant_id, activation_id),
  CONSTRAINT fk_policy_activation_version FOREIGN KEY (tenant_id, policy_id, version)
    REFERENCES policy_version (tenant_id, policy_id, version) ON DELETE CASCADE,
  CONSTRAINT ck_policy_activation_second CHECK (confirmed_by IS NULL OR confirmed_by <> requested_by),
  CONSTRAINT ck_policy_activation_active CHECK (
    state <> 'active' OR (activated_at IS NOT NULL AND (confirmed_by IS NOT NULL OR NOT needs_second))),
  CONSTRAINT ck_policy_activation_pending CHECK (state <> 'pending' OR (activated_at IS NULL AND needs_second))
);
--;;
CREATE UNIQUE INDEX uq_policy_activation_active ON policy_activation (tenant_id, policy_id) WHERE state = 'active';
--;;
CREATE INDEX ix_policy_activation_log ON policy_activation (tenant_id, policy_id, activation_id);
--;;
-- What came with a record of this very transaction: versions, activations and confirmations. Each of them raised the epoch of the
-- tenant's administration run, so that of two at once one comes after the other and sees what it did.
-- MF002 another version or policy is in force than the change means, DETAIL as in ledger_append; MF008 the records are not there.
CREATE FUNCTION policy_keep(p_tenant uuid, p_batch uuid, p_companions jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE c jsonb; v_policy text; v_is_meant boolean;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM public.batch b
    WHERE b.tenant_id = p_tenant AND b.batch_id = p_batch AND b.xid = pg_current_xact_id()) THEN
    RAISE EXCEPTION 'the records are not there' USING ERRCODE = 'MF008';
  END IF;
  FOR c IN SELECT value FROM jsonb_array_elements(p_companions) LOOP
    v_policy := c->>'policy_id';
    v_is_meant := true;
    IF c->>'op' = 'policy.put' THEN
      v_is_meant := (c->>'version')::bigint = 1 + coalesce(
        (SELECT max(p.version) FROM public.policy_version p WHERE p.tenant_id = p_tenant AND p.policy_id = v_policy), 0)
        AND NOT EXISTS (SELECT 1 FROM public.policy_version p WHERE p.tenant_id = p_tenant AND p.digest = c->>'digest');
      IF v_is_meant THEN
        INSERT INTO public.policy_version (tenant_id, policy_id, version, digest, body, author, created_at)
        VALUES (p_tenant, v_policy, (c->>'version')::bigint, c->>'digest', decode(c->>'body', 'base64'), c->>'by', (c->>'at')::timestamptz);
      END IF;
    ELSIF c->>'op' IN ('policy.activate', 'policy.confirm') THEN
      v_is_meant := (c->>'base') IS NOT DISTINCT FROM (
        SELECT p.digest FROM public.policy_activation a JOIN public.policy_version p
          ON p.tenant_id = a.tenant_id AND p.policy_id = a.policy_id AND p.version = a.version
        WHERE a.tenant_id = p_tenant AND a.policy_id = v_policy AND a.state = 'active');
      IF v_is_meant AND c->>'op' = 'policy.activate' THEN
        INSERT INTO public.policy_activation
          (tenant_id, activation_id, policy_id, version, state, needs_second, loosened, requested_by, requested_at)
        VALUES (p_tenant, (c->>'activation_id')::uuid, v_policy, (c->>'version')::bigint,
          CASE WHEN (c->>'needs_second')::boolean THEN 'pending' ELSE 'superseded' END, (c->>'needs_second')::boolean,
          ARRAY(SELECT jsonb_array_elements_text(c->'loosened')), c->>'by', (c->>'at')::timestamptz);
      ELSIF v_is_meant THEN
        UPDATE public.policy_activation a SET confirmed_by = c->>'by'
        WHERE a.tenant_id = p_tenant AND a.activation_id = (c->>'activation_id')::uuid AND a.policy_id = v_policy
          AND a.state = 'pending' AND a.requested_by <> c->>'by';
        v_is_meant := FOUND;
      END IF;
      IF v_is_meant AND (c->>'op' = 'policy.confirm' OR NOT (c->>'needs_second')::boolean) THEN
        UPDATE public.policy_activation a SET state = 'superseded'
        WHERE a.tenant_id = p_tenant AND a.policy_id = v_policy AND a.state <> 'superseded'
          AND a.activation_id <> (c->>'activation_id')::uuid;
        UPDATE public.policy_activation a SET state = 'active', activated_at = (c->>'at')::timestamptz
        WHERE a.tenant_id = p_tenant AND a.activation_id = (c->>'activation_id')::uuid;
      END IF;
    END IF;
    IF NOT v_is_meant THEN
      RAISE EXCEPTION 'another policy is in force' USING ERRCODE = 'MF002', DETAIL = p_tenant || ' ' || (c->>'run_id');
    END IF;
  END LOOP;
END $$;
