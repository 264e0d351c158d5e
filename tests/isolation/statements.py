"""Statements that nobody would write, over all tables of a schema, each from a seed: selects with joins, sub-queries, sets, windows and
aggregates, and writes that return what they touched. Must not know what the tables are for.

A statement's answer depends on the rows it may see alone: no clock, no randomness, no physical address, and all rows are ordered.
"""

import random
from collections.abc import Sequence

import msgspec

TEXTS = ("a", "n", "k", "viewer", "queued", "secret", "00000000", "{}")
MOST_DEPTH = 3


class Table(msgspec.Struct, frozen=True):
    """A table by its qualified name, and its columns."""

    name: str
    columns: tuple[str, ...]


class Source(msgspec.Struct, frozen=True):
    """What stands in a FROM clause, and what can be named of it."""

    sql: str
    values: tuple[str, ...]


class Author:
    """Writes statements. `strangers`: texts of others that it looks for."""

    def __init__(self, tables: Sequence[Table], strangers: Sequence[str], seed: int) -> None:
        self._tables = tables
        self._texts = (*TEXTS, *strangers)
        self._random = random.Random(seed)
        self._names = 0

    def statement(self) -> str:
        """One statement."""
        kind = self._random.random()
        if kind < 0.15:
            return self._write()
        if kind < 0.3:
            operator = self._pick("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL")
            return f"{self._select(0, width=2)} {operator} {self._select(0, width=2)} ORDER BY 1, 2"
        if kind < 0.4:
            name = self._name()
            inner = self._select(1, width=2)
            return f"WITH {name} AS MATERIALIZED ({inner}) SELECT c1, c2, count(*) FROM {name} GROUP BY 1, 2 ORDER BY 1, 2"
        return f"{self._select(0, width=3)} ORDER BY 1, 2, 3{self._pick('', '', f' LIMIT {self._random.randrange(5)}')}"

    def _select(self, depth: int, *, width: int) -> str:
        source = self._source(depth)
        where = f" WHERE {self._condition(source, depth)}" if self._random.random() < 0.7 else ""
        if self._random.random() < 0.3:
            group = self._value(source)
            outs = [group, *(self._aggregate(source) for _ in range(width - 1))]
            tail = f" GROUP BY {group}" + (" HAVING count(*) > 0" if self._random.random() < 0.3 else "")
        else:
            outs = [self._value(source) for _ in range(width)]
            if self._random.random() < 0.2:
                outs[-1] = f"(rank() OVER (PARTITION BY {outs[0]} ORDER BY {self._value(source)}))::text"
            tail = ""
        named = ", ".join(f"{out} AS c{number}" for number, out in enumerate(outs, 1))
        distinct = "" if tail else self._pick("", "", "DISTINCT ")
        return f"SELECT {distinct}{named} FROM {source.sql}{where}{tail}"

    def _source(self, depth: int) -> Source:
        kind = self._random.random()
        if depth >= MOST_DEPTH or kind < 0.55:
            return self._table()
        if kind < 0.7:
            name = self._name()
            return Source(f"({self._select(depth + 1, width=2)}) {name}", (f"{name}.c1", f"{name}.c2"))
        left, right = self._source(depth + 1), self._source(depth + 1)
        values = (*left.values, *right.values)
        on = f"{self._one(left.values)} {self._pick('=', '<>')} {self._one(right.values)}"
        return Source(f"{left.sql} {self._pick('', 'LEFT ', 'RIGHT ')}JOIN {right.sql} ON {on}", values)

    def _table(self) -> Source:
        table, name = self._random.choice(self._tables), self._name()
        sample = self._pick("", "", "", " TABLESAMPLE SYSTEM (100)")
        values = (*(f"{name}.{column}::text" for column in table.columns), f"{name}::text", f"to_json({name})::text")
        return Source(f"{table.name} {name}{sample}", values)

    def _value(self, source: Source) -> str:
        value = self._one(source.values)
        text = self._text()
        return self._pick(value, value, f"md5({value})", f"length({value})::text", f"coalesce({value}, {text})", f"left({value}, 4)")

    def _aggregate(self, source: Source) -> str:
        value = self._one(source.values)
        return self._pick(
            "count(*)::text",
            f"count(DISTINCT {value})::text",
            f"max({value})",
            f"min({value})",
            f"sum(length({value}))::text",
            f"string_agg({value}, ',' ORDER BY {value})",
            f"bool_or({value} = {self._text()})::text",
        )

    def _condition(self, source: Source, depth: int) -> str:
        value = self._one(source.values)
        kind = self._random.random()
        if depth < MOST_DEPTH and kind < 0.2:
            return f"{value} {self._pick('IN', 'NOT IN')} ({self._select(depth + 1, width=1)})"
        if depth < MOST_DEPTH and kind < 0.35:
            inner = self._table()
            return f"{self._pick('', 'NOT ')}EXISTS (SELECT FROM {inner.sql} WHERE {self._one(inner.values)} = {value})"
        if depth < MOST_DEPTH and kind < 0.5:
            return f"({self._condition(source, depth + 1)}) {self._pick('OR', 'AND')} ({self._condition(source, depth + 1)})"
        return self._pick(
            "true",
            f"{value} IS {self._pick('', 'NOT ')}NULL",
            f"{value} {self._pick('=', '<>', '<', '>=')} {self._text()}",
            f"{value} LIKE '%' || {self._text()} || '%'",
            f"{value} ~ {self._text()}",
        )

    def _write(self) -> str:
        table, name = self._random.choice(self._tables), self._name()
        source = Source(name, (*(f"{name}.{column}::text" for column in table.columns), f"{name}::text"))
        column = self._one(table.columns)
        returning = f"RETURNING {self._one(source.values)}"
        where = f"WHERE {self._condition(source, 1)}"
        other = self._table()
        joined = f"{where} AND {self._one(other.values)} {self._pick('=', '<>')} {self._one(source.values)}"
        return self._pick(
            f"UPDATE {table.name} {name} SET {column} = {name}.{column} {where} {returning}",
            f"UPDATE {table.name} {name} SET {column} = {name}.{column} FROM {other.sql} {joined} {returning}",
            f"DELETE FROM {table.name} {name} {where} {returning}",
            f"DELETE FROM {table.name} {name} USING {other.sql} {joined} {returning}",
            f"INSERT INTO {table.name} SELECT * FROM {table.name} {name} {where} ON CONFLICT DO NOTHING RETURNING *",
            f"SELECT {self._one(source.values)} FROM {table.name} {name} {where} FOR UPDATE SKIP LOCKED",
        )

    def _text(self) -> str:
        return "'" + self._random.choice(self._texts) + "'"

    def _one(self, values: Sequence[str]) -> str:
        return self._random.choice(values)

    def _pick(self, *choices: str) -> str:
        return self._random.choice(choices)

    def _name(self) -> str:
        self._names += 1
        return f"t{self._names}"
