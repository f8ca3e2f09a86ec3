"""Remembers what an attacker changes and puts every row back, whatever the attack was.

The rules of `record` that an attacker dropped are put back too.

Triggers of the bench's own on every table write old and new rows down when the session that
changes them says `attack.marked`; changes by the server under test are not touched. So one scene
serves thousands of trials, and each starts from the same rows.
"""

import asyncpg

_SCHEMA = """
CREATE SCHEMA attack;
CREATE TABLE attack.change (
  id bigserial PRIMARY KEY, rel regclass NOT NULL, op text NOT NULL, was text, became text
);
CREATE FUNCTION attack.remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO attack.change (rel, op, was, became)
  VALUES (TG_RELID::regclass, TG_OP, CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE OLD::text END,
          CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE NEW::text END);
  RETURN NULL;
END $$;
CREATE FUNCTION attack.put_back() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  c record;
  k text;
  places integer := 0;
BEGIN
  FOR c IN SELECT * FROM attack.change ORDER BY id DESC LOOP
    SELECT coalesce(
      (SELECT string_agg(format('t.%1$I = (($1)::%2$s).%1$I', a.attname, c.rel), ' AND ')
       FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
       WHERE i.indrelid = c.rel AND i.indisprimary), format('t = ($1)::%s', c.rel)) INTO k;
    IF c.became IS NOT NULL THEN
      EXECUTE format('DELETE FROM %s t WHERE %s', c.rel, k) USING c.became;
    END IF;
    IF c.was IS NOT NULL AND c.rel = 'public.rate_use'::regclass THEN
      -- The server counts its requests on meanwhile, and makes the row that it misses anew.
      INSERT INTO public.rate_use SELECT ((c.was)::public.rate_use).* ON CONFLICT DO NOTHING;
    ELSIF c.was IS NOT NULL THEN
      BEGIN
        EXECUTE format('INSERT INTO %1$s SELECT (($1)::%1$s).*', c.rel) USING c.was;
      EXCEPTION WHEN unique_violation THEN
        -- The server missed a tenant's name meanwhile and made it anew.
        IF c.rel <> 'public.tenants'::regclass THEN RAISE; END IF;
        DELETE FROM public.tenants t WHERE t.name = ((c.was)::public.tenants).name;
        INSERT INTO public.tenants SELECT ((c.was)::public.tenants).*;
      END;
    END IF;
    places := places + 1;
  END LOOP;
  DELETE FROM attack.change;
  RETURN places;
END $$;
GRANT USAGE ON SCHEMA attack TO PUBLIC;
CREATE TABLE attack.rule AS SELECT conname AS name, pg_get_constraintdef(oid) AS words
  FROM pg_constraint WHERE conrelid = 'record'::regclass AND contype = 'c';
"""
_DROPPED = """
SELECT name, words FROM attack.rule r WHERE NOT EXISTS (
  SELECT 1 FROM pg_constraint WHERE conrelid = 'record'::regclass AND conname = r.name)
"""
_TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""
_GUARDS = """
SELECT t.tgrelid::regclass::text AS rel, t.tgname AS name FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND n.nspname = 'public' AND t.tgname <> 'attack_remember'
ORDER BY c.relkind DESC, 1
"""


async def install(superuser: asyncpg.Connection) -> None:
    await superuser.execute(_SCHEMA)
    for row in await superuser.fetch(_TABLES):
        table = row[0]
        await superuser.execute(
            f"CREATE TRIGGER attack_remember AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " FOR EACH ROW WHEN (current_setting('attack.marked', true) = 'on')"
            " EXECUTE FUNCTION attack.remember()"
        )
        await superuser.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER attack_remember")
    parts = await superuser.fetch(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'attack_remember'"
    )
    for row in parts:
        await superuser.execute(f"ALTER TABLE {row[0]} ENABLE ALWAYS TRIGGER attack_remember")


async def set_guards(superuser: asyncpg.Connection, *, on: bool) -> None:
    """The deny triggers as the migrations left them, or off: what a superuser does first."""
    how = "ENABLE ALWAYS" if on else "DISABLE"
    for row in await superuser.fetch(_GUARDS):
        await superuser.execute(f"ALTER TABLE {row['rel']} {how} TRIGGER {row['name']}")


async def put_back(superuser: asyncpg.Connection, *, guarded: bool = False) -> int:
    """Undo the attack; how many changes of rows it was. `guarded`: the deny triggers are on."""
    if guarded:
        await set_guards(superuser, on=False)
    async with superuser.transaction():
        await superuser.execute("SET LOCAL session_replication_role = replica")
        await superuser.execute("SET LOCAL attack.marked = 'off'")
        places: int = await superuser.fetchval("SELECT attack.put_back()")
    for row in await superuser.fetch(_DROPPED):
        await superuser.execute(f"ALTER TABLE record ADD CONSTRAINT {row['name']} {row['words']}")
        for column in ("rc", "chain"):
            await superuser.execute(f"ALTER TABLE record ALTER COLUMN {column} SET NOT NULL")
    if guarded:
        await set_guards(superuser, on=True)
    return places
