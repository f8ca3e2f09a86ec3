"""What Postgres itself says of a schema: every object that a migration could make or forget."""

import asyncpg

from tests.support.databases import connect

_QUERIES = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
          a.attstorage, a.attidentity, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped""",
    "relations": """
        SELECT relname, relkind, relrowsecurity, relforcerowsecurity, relispartition,
          pg_get_userbyid(relowner),
          coalesce(relacl, acldefault('r', relowner))::text[], pg_get_expr(relpartbound, oid),
          CASE WHEN relkind = 'p' THEN pg_get_partkeydef(oid) END
        FROM pg_class WHERE relnamespace = 'public'::regnamespace""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "policies": """
        SELECT tablename, policyname, permissive, roles::text[], cmd, qual, with_check
        FROM pg_policies WHERE schemaname = 'public'""",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE NOT tgisinternal AND c.relnamespace = 'public'::regnamespace""",
    "functions": """
        SELECT proname, pg_get_functiondef(oid), pg_get_userbyid(proowner),
          coalesce(proacl, acldefault('f', proowner))::text[]
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace""",
    "schema": "SELECT nspname, nspacl::text[] FROM pg_namespace WHERE nspname = 'public'",
    "types": """
        SELECT typname, typtype FROM pg_type WHERE typnamespace = 'public'::regnamespace
        AND typtype NOT IN ('c', 'b')""",
}

Dump = dict[str, list[str]]


async def schema_dump(url: str) -> Dump:
    """Every object of the public schema with its rights, in an order without oids."""
    connection = await connect(url)
    try:
        return {name: await _lines(connection, query) for name, query in _QUERIES.items()}
    finally:
        await connection.close()


async def _lines(connection: asyncpg.Connection, query: str) -> list[str]:
    rows = await connection.fetch(query)
    return sorted(repr([_ordered(value) for value in row.values()]) for row in rows)


def _ordered(value: object) -> object:
    """Grants are a set to Postgres: their order says nothing."""
    return sorted(value) if isinstance(value, list) else value
